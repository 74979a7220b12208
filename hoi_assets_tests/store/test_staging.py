"""Equal tables are equal files, however and wherever they were put together."""

import os
import subprocess
import sys

import polars as pl

from hoi_assets.store.staging import parquet_bytes
from hoi_assets.store.versions import Store
from hoi_assets_tests.store.conftest import table


def test_equal_tables_give_equal_bytes_however_put_together() -> None:
    whole = table()
    parts = pl.concat([whole[:1000], whole[1000:50_000], whole[50_000:]], rechunk=False)
    assert parts.n_chunks() > 1
    longer = pl.concat([whole[-3:], whole], rechunk=True)
    expected = parquet_bytes(whole)
    assert parquet_bytes(parts) == expected
    assert parquet_bytes(longer[3:]) == expected
    assert parquet_bytes(whole[:-1]) != expected


def test_equal_tables_give_equal_bytes_in_other_processes() -> None:
    code = (
        "import hashlib; from hoi_assets_tests.store.conftest import table;"
        "from hoi_assets.store.staging import parquet_bytes;"
        "print(hashlib.sha256(parquet_bytes(table(5000))).hexdigest())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed, "POLARS_MAX_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed, threads in (("1", "1"), ("2", "2"))
    }
    assert len(found) == 1


def test_table_is_read_back_as_written(store: Store) -> None:
    with store.stage("verifier") as staging:
        staging.write_table("rows", table(100))
        staging.write_table("empty", table(0))
        assert staging.table("rows").equals(table(100))
        published = store.publish(staging, {}, None)
    assert published.table("rows").equals(table(100))
    assert published.table("empty").schema == table(0).schema
