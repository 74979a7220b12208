"""A store in a folder whose name has spaces and a quote, and helpers to fill it."""

import resource
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from hoi_assets.store.ledger import Ledger
from hoi_assets.store.ledger_home import open_ledger
from hoi_assets.store.versions import Published, Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "it's a home")


@pytest.fixture(params=["sqlite", "postgres"])
def open_one(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], Ledger]:
    """Opens the ledger of one home: again and again the same one."""
    if request.param == "postgres":
        server = request.getfixturevalue("postgres")
        monkeypatch.setenv("HOI_LEDGER_URL", server.url(server.new_database()))
    home = tmp_path / "a home"
    return lambda: open_ledger(home, home / "staging", read_only=False)


@pytest.fixture
def sqlite_ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "a home" / "ledger.sqlite")


def publish(
    store: Store,
    asset: str = "detailed_prompts",
    partition: str | None = "hook",
    inputs: Mapping[str, Any] | None = None,
    parents: dict[str, str] | None = None,
    **tables: Mapping[str, Any],
) -> Published:
    """Publish tables given by name as columns; a table `rows` where none is named."""
    with store.stage(asset, partition) as staging:
        for name, columns in (tables or {"rows": {"x": [1]}}).items():
            staging.write_table(name, pl.DataFrame(columns))
        return store.publish(staging, dict(inputs or {}), run_id="run", parents=parents)


def table(rows: int = 70_000) -> pl.DataFrame:
    """A table with columns of all types that stages write."""
    numbers = pl.int_range(rows, eager=True)
    return pl.DataFrame(
        {
            "number": numbers,
            "share": (numbers * 0.1).sin(),
            "text": ("word " + (numbers % 97).cast(pl.String)),
            "gap": pl.select(pl.when(numbers % 3 == 0).then(numbers)).to_series(),
            "list": (numbers % 40).cast(pl.String).str.split("3"),
            "flag": numbers % 2 == 0,
            "bytes": numbers.cast(pl.String).cast(pl.Binary),
            "nothing": pl.Series([None] * rows, dtype=pl.Null),
        }
    )


@contextmanager
def file_size_limit(limit: int) -> Iterator[None]:
    """Inside, no file of this process grows beyond `limit` bytes: a full disk for any user."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
