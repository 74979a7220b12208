"""Damaged content is never used nor published again, whoever runs; `hoi stale` shows it."""

from pathlib import Path

import dagster as dg

from hoi_assets.defs.project import Project
from hoi_assets.defs.warm_loop import run_pipelines
from hoi_assets.publishing.staleness import status
from hoi_assets_tests.damage import damage
from hoi_assets_tests.publishing.small_pipeline import (
    calls,
    categories_of,
    small_project,
    write_profile,
)


def make(folder: Path, instance: dg.DagsterInstance, force: bool = False) -> set[str]:
    """Run everything as `hoi run` does; what is blocked."""
    keys = categories_of(folder / "taxonomy")
    report = run_pipelines(small_project(folder), instance, keys, force=force, log=lambda _: None)
    return {f"{one.asset}: {one.reason}" for one in report.blocked}


def in_force(project: Project) -> dict[str, str]:
    return {one.name: one.version for one in project.platform.store.all_current()}


def test_damaged_table_blocks_a_run_until_it_is_made_again(
    folder: Path, instance: dg.DagsterInstance
) -> None:
    project = small_project(folder)
    assert not make(folder, instance)
    before, made = in_force(project), len(calls(folder))
    damaged = project.platform.store.require("pictures", "hook").file("rows.parquet")
    damage(damaged)

    (blocked,) = make(folder, instance)
    assert blocked.startswith("pictures: pictures/hook version ")
    assert "rows.parquet is not the file that was written" in blocked
    assert in_force(project) == before and len(calls(folder)) == made
    platform = project.platform
    found = status(project.graph, platform.settings, platform.store)
    states = {(one.asset, one.partition): one for one in found}
    assert states["pictures", "hook"].state == "blocked"
    assert "rows.parquet" in states["pictures", "hook"].reasons[0]
    assert states["pictures", "worn"].state == "fresh"

    assert not make(folder, instance, force=True)
    assert in_force(project) == before
    platform.store.require("pictures", "hook").verify()
    assert not make(folder, instance)


def test_damaged_parent_is_not_read_by_what_has_to_be_computed(
    folder: Path, instance: dg.DagsterInstance
) -> None:
    project = small_project(folder)
    assert not make(folder, instance)
    before = in_force(project)
    damage(project.platform.store.require("pictures", "hook").path / "rows.parquet")
    write_profile(folder, dataset={"min_categories": 2})  # the dataset is to be computed again
    job = small_project(folder).pipelines.resolve_job_def("dataset_and_model")
    done = job.execute_in_process(instance=instance, raise_on_error=False)
    assert not done.success
    (failed,) = [event for event in done.all_events if event.is_step_failure]
    assert "pictures/hook version" in str(failed.step_failure_data.user_failure_data)
    assert in_force(project) == before


def test_damaged_version_is_not_published_again_by_a_new_audit(
    folder: Path, instance: dg.DagsterInstance
) -> None:
    project = small_project(folder)
    assert not make(folder, instance)
    before = in_force(project)
    damage(project.platform.store.require("prompts", "hook").path / "rows.parquet")
    write_profile(folder, gates={"min_prompts": 1})  # only the gate's expectations change
    (blocked,) = make(folder, instance)
    assert blocked.startswith("prompts: prompts/hook version ")
    assert in_force(project) == before
