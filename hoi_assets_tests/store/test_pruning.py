"""Pruning removes only what nothing in force was made from."""

import pytest

from hoi_assets.errors import HoiError
from hoi_assets.store.places import manifest_file
from hoi_assets.store.pruning import prune
from hoi_assets.store.versions import Store
from hoi_assets_tests.store.conftest import publish


def test_prune_keeps_what_is_in_force_and_says_what_it_removed(store: Store) -> None:
    versions = [publish(store, rows={"x": [n]}) for n in range(3)]
    planned = prune(store, dry_run=True)
    assert all(published.path.is_dir() for published in versions)
    assert prune(store) == planned == sorted(p.path for p in versions[:2])
    assert [published.path.is_dir() for published in versions] == [False, False, True]
    with pytest.raises(HoiError, match="was pruned"):
        store.version("detailed_prompts", "hook", versions[0].version)
    assert len(store.history("detailed_prompts", "hook")) == 3
    assert not list(store.staging.iterdir())


def test_prune_keeps_the_latest_few(store: Store) -> None:
    versions = [publish(store, rows={"x": [n]}) for n in range(4)]
    prune(store, keep=3)
    assert [published.path.is_dir() for published in versions] == [False, True, True, True]


def test_prune_keeps_an_old_version_that_is_in_force_again(store: Store) -> None:
    first = publish(store, rows={"x": [0]})
    publish(store, rows={"x": [1]})
    publish(store, rows={"x": [0]})
    prune(store)
    assert store.require("detailed_prompts", "hook").table("rows")["x"].to_list() == [0]
    assert [path.name for path in first.path.parent.iterdir()] == [first.version]


def test_prune_keeps_what_is_in_force_where_a_kill_came_before_the_pointer(store: Store) -> None:
    first = publish(store, rows={"x": [0]})
    pointer = store.home / "assets" / "detailed_prompts" / "hook" / "current.json"
    before = pointer.read_bytes()
    publish(store, rows={"x": [1]})
    pointer.write_bytes(before)
    prune(store)
    store.require("detailed_prompts", "hook").verify()
    assert store.current("detailed_prompts", "hook") == first


def test_prune_keeps_what_versions_in_force_were_made_from(store: Store) -> None:
    root = publish(store, "taxonomy", None, rows={"x": [0]})
    prompts = publish(store, inputs={"parents": {"taxonomy": root.version}}, rows={"x": [0]})
    publish(store, "images", "hook", parents={"detailed_prompts/hook": prompts.version})
    publish(store, "taxonomy", None, rows={"x": [1]})
    unused = publish(store, rows={"x": [1]})
    publish(store, rows={"x": [2]})
    assert prune(store) == [unused.path]


def test_prune_to_nothing_is_refused(store: Store) -> None:
    with pytest.raises(HoiError, match="keep is 0"):
        prune(store, keep=0)


def test_manifest_without_its_version_is_removed_and_others_stay(store: Store) -> None:
    published = publish(store)
    stray = manifest_file(published.path).with_name("0123456789abcdef.json")
    stray.write_text("{}", encoding="utf-8")
    prune(store, dry_run=True)
    assert stray.exists()
    prune(store)
    assert not stray.exists() and manifest_file(published.path).exists()
