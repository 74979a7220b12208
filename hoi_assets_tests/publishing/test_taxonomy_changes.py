"""A category removed from the taxonomy: named, left out downstream, and the UI still loads."""

from pathlib import Path

import dagster as dg

from hoi_assets.defs.all_definitions import all_definitions
from hoi_assets.defs.warm_loop import run_pipelines
from hoi_assets.store.orphans import orphans
from hoi_assets.store.pruning import prune
from hoi_assets_tests.publishing.small_pipeline import categories_of, small_project


def make(folder: Path, instance: dg.DagsterInstance) -> list[str]:
    """Run everything as `hoi run` does; the lines it printed."""
    said: list[str] = []
    report = run_pipelines(
        small_project(folder), instance, categories_of(folder / "taxonomy"), log=said.append
    )
    assert not report.blocked, report.table()
    return said


def test_removed_category_is_left_out_by_name_and_removed_on_request(
    folder: Path, instance: dg.DagsterInstance
) -> None:
    assert not [line for line in make(folder, instance) if "partitions that are gone" in line]
    (folder / "taxonomy" / "categories" / "hook.yaml").unlink()

    project = small_project(folder)
    definitions = all_definitions(project)
    dg.Definitions.validate_loadable(definitions)
    keys = definitions.resolve_job_def("category").partitions_def
    assert keys is not None and list(keys.get_partition_keys()) == ["worn"]

    (line,) = [line for line in make(folder, instance) if line.startswith("dataset: ")]
    assert line.endswith("hook (`hoi prune --orphans` removes them)")
    store = project.platform.store
    assert set(store.require("dataset").table("rows")["category"]) == {"worn"}
    known = categories_of(folder / "taxonomy")
    assert [asset for asset, _ in orphans(store, known)] == ["evaluation", "pictures", "prompts"]
    assert store.require("pictures", "hook").table("rows").height == 3

    assert len(prune(store, known=known)) >= 3
    assert not orphans(store, known) and store.current("pictures", "hook") is None
    assert not [line for line in make(folder, instance) if "partitions that are gone" in line]


def test_removed_category_that_comes_back_is_used_again(
    folder: Path, instance: dg.DagsterInstance
) -> None:
    file = folder / "taxonomy" / "categories" / "hook.yaml"
    make(folder, instance)
    before = small_project(folder).platform.store.require("dataset").version
    text = file.read_text(encoding="utf-8")
    file.unlink()
    make(folder, instance)
    file.write_text(text, encoding="utf-8")
    make(folder, instance)
    assert small_project(folder).platform.store.require("dataset").version == before
