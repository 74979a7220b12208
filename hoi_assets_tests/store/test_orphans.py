"""What is stored for a partition that is gone is marked, and removed on request."""

import polars as pl
import pytest

from hoi_assets.store.catalogue import query, rebuild
from hoi_assets.store.lineage import lineage
from hoi_assets.store.orphans import orphans
from hoi_assets.store.pruning import prune
from hoi_assets.store.versions import Store
from hoi_assets_tests.store.conftest import publish

KNOWN = ("tripod", "functional")


@pytest.fixture
def store_with_orphan(store: Store) -> Store:
    """`hook` is gone; the dataset in force was made from `tripod` alone."""
    publish(store, "base_prompt_taxonomy", None)
    for key in ("hook", "tripod"):
        publish(store, "detailed_prompts", key, rows={"x": [1, 2], "key": [key, key]})
        store.ledger.record(
            [{"stage": "detailed_prompts", "partition": key, "row_id": "a", "status": "accepted"}]
        )
    tripod = store.require("detailed_prompts", "tripod")
    publish(store, "hoi_dataset", None, inputs={tripod.name: tripod.version}, rows={"y": [1]})
    return store


def test_rows_of_a_partition_that_is_gone_are_marked_in_sql(store_with_orphan: Store) -> None:
    for table, by in (("detailed_prompts", 2), ("ledger", 1), ("publications", 1)):
        found = query(
            store_with_orphan,
            f"select partition, bool_and(orphaned) as orphaned, count(*) as n from {table} "
            "where partition is not null group by all order by all",
            KNOWN,
        )
        assert found.rows() == [("hook", True, by), ("tripod", False, by)], table
    unpartitioned = "select distinct orphaned from base_prompt_taxonomy"
    assert query(store_with_orphan, unpartitioned, KNOWN).rows() == [(False,)]
    # Whoever does not say which partitions there are is not told either.
    assert query(store_with_orphan, "select distinct orphaned from ledger").rows() == [(None,)]


def test_catalogue_follows_the_partitions_that_there_are(store_with_orphan: Store) -> None:
    rebuild(store_with_orphan, KNOWN)
    ask = "select count(*) as n from detailed_prompts where orphaned"
    assert query(store_with_orphan, ask, KNOWN)["n"].item() == 2
    assert query(store_with_orphan, ask, (*KNOWN, "hook"))["n"].item() == 0
    assert query(store_with_orphan, ask, KNOWN)["n"].item() == 2


def test_prune_removes_orphans_and_only_those(store_with_orphan: Store) -> None:
    store = store_with_orphan
    gone = store.require("detailed_prompts", "hook").path
    assert orphans(store, KNOWN) == [("detailed_prompts", "hook")]
    assert prune(store) == []
    assert prune(store, known=KNOWN, dry_run=True) == [gone]
    assert gone.is_dir() and store.current("detailed_prompts", "hook") is not None
    assert prune(store, known=KNOWN) == [gone]
    assert not gone.exists() and store.current("detailed_prompts", "hook") is None
    assert orphans(store, KNOWN) == [] and prune(store, known=KNOWN) == []
    assert store.require("detailed_prompts", "tripod").table("rows").height == 2
    for table in ("detailed_prompts", "ledger", "publications"):
        found = query(store, f"select distinct partition from {table}", KNOWN)
        assert "hook" not in found["partition"], table


def test_orphan_that_a_version_in_force_was_made_from_is_kept_until_that_is_made_anew(
    store_with_orphan: Store,
) -> None:
    store = store_with_orphan
    hook = store.require("detailed_prompts", "hook")
    made = publish(store, "hoi_dataset", None, inputs={hook.name: hook.version}, rows={"y": [2]})
    assert hook.path not in prune(store, known=KNOWN)
    assert store.current("detailed_prompts", "hook") is None
    assert store.version("detailed_prompts", "hook", hook.version).table("rows").height == 2
    assert hook.name in [one.name for one in lineage(store, "hoi_dataset", None, made.version)]
    publish(store, "hoi_dataset", None, rows={"y": [3]})
    assert hook.path in prune(store, known=KNOWN)
    assert not hook.path.exists()


def test_partition_that_comes_back_is_published_again(store_with_orphan: Store) -> None:
    store = store_with_orphan
    prune(store, known=KNOWN)
    publish(store, "detailed_prompts", "hook", rows={"x": [9]})
    assert store.require("detailed_prompts", "hook").table("rows")["x"].to_list() == [9]
    assert len(store.history("detailed_prompts", "hook")) == 2
    assert orphans(store, KNOWN) == [("detailed_prompts", "hook")]
    assert isinstance(query(store, "select * from detailed_prompts", KNOWN), pl.DataFrame)
