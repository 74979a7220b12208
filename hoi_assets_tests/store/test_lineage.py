import pytest

from hoi_assets.errors import HoiError
from hoi_assets.store.lineage import lineage
from hoi_assets.store.pruning import prune
from hoi_assets.store.versions import Store
from hoi_assets_tests.store.conftest import publish


def test_lineage_follows_inputs_and_parents_to_the_root_each_once(store: Store) -> None:
    root = publish(store, "taxonomy", None)
    prompts = publish(store, "prompts", "hook", {"parents": {"taxonomy": root.version}})
    loras = publish(store, "loras", "hook", parents={"taxonomy": root.version})
    images = publish(
        store,
        "images",
        "hook",
        {"prompts/hook": prompts.version, "settings": "3f", "code_version": "1"},
        parents={"loras/hook": loras.version},
    )
    found = lineage(store, "images", "hook", images.version)
    assert found[0] == images
    assert {published.name for published in found[1:3]} == {"prompts/hook", "loras/hook"}
    assert found[3:] == [root]


def test_lineage_takes_the_versions_that_were_used_not_those_in_force(store: Store) -> None:
    old = publish(store, "taxonomy", None, rows={"x": [1]})
    prompts = publish(store, "prompts", "hook", {"taxonomy": old.version})
    publish(store, "taxonomy", None, rows={"x": [2]})
    assert lineage(store, "prompts", "hook", prompts.version) == [prompts, old]


def test_version_published_twice_stands_as_its_child_found_it(store: Store) -> None:
    before = publish(store, "prompts", "hook", {"seed": "1"})
    images = publish(store, "images", "hook", {"prompts/hook": before.version})
    later = publish(store, "prompts", "hook", {"seed": "2"})
    assert later.version == before.version
    assert lineage(store, "images", "hook", images.version)[1].inputs == {"seed": "1"}
    assert lineage(store, "prompts", "hook", later.version) == [later]


def test_equal_content_elsewhere_is_no_ancestor(store: Store) -> None:
    hook, tripod = publish(store, "prompts", "hook"), publish(store, "prompts", "tripod")
    assert hook.version == tripod.version
    images = publish(store, "images", "hook", {"prompts/hook": hook.version})
    assert [p.name for p in lineage(store, "images", "hook", images.version)] == [
        "images/hook",
        "prompts/hook",
    ]


def test_pruned_ancestors_are_listed_still(store: Store) -> None:
    root = publish(store, "taxonomy", None, rows={"x": [1]})
    first = publish(store, "prompts", "hook", {"taxonomy": root.version}, rows={"x": [1]})
    publish(store, "taxonomy", None, rows={"x": [2]})
    publish(store, "prompts", "hook", rows={"x": [2]})
    assert len(prune(store)) == 2
    found = lineage(store, "prompts", "hook", first.version)
    assert found == [first, root]
    assert not any(published.path.exists() for published in found)


def test_fan_in_lists_every_partition(store: Store) -> None:
    pairs = [publish(store, "pairs", name) for name in ("hook", "tripod")]
    dataset = publish(store, "dataset", None, {"parents": {p.name: p.version for p in pairs}})
    assert lineage(store, "dataset", None, dataset.version) == [dataset, *pairs]


def test_unknown_version_is_named(store: Store) -> None:
    publish(store)
    with pytest.raises(HoiError, match="detailed_prompts/hook has no version 'abc'"):
        lineage(store, "detailed_prompts", "hook", "abc")
