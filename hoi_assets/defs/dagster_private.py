"""All that is used of Dagster beyond its public API.

Tested with Dagster 1.13.27; `hoi_assets_tests/defs/test_dagster_private.py` checks it.
"""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.events import RunFailureReason
from dagster._core.execution.plan.objects import ErrorSource

from hoi_assets.settings import ROOT

if TYPE_CHECKING:
    from dagster._core.remote_origin import RemoteRepositoryOrigin

TRIED_WITH = "1.13.27"


def was_interrupted(result: dg.ExecuteInProcessResult) -> bool:
    """Whether Ctrl-C or a click on Terminate ended the run; Dagster raises neither."""
    return any(
        (event.is_step_failure and event.step_failure_data.error_source == ErrorSource.INTERRUPT)
        or (
            event.is_job_failure
            and event.job_failure_data.failure_reason == RunFailureReason.UNEXPECTED_TERMINATION
        )
        for event in result.all_events
    )


def launch_backfill(
    instance: dg.DagsterInstance,
    definitions: dg.Definitions,
    assets: Sequence[dg.AssetKey],
    keys: Sequence[str],
    tags: Mapping[str, str],
    title: str,
) -> str:
    """Ask the daemon for one run per partition key; the public API has no such call.

    Returns:
        The backfill's id.
    """
    # Imported here: it takes a quarter of a second, which loading the definitions can save.
    from dagster._core.execution.backfill import PartitionBackfill
    from dagster._core.utils import make_new_backfill_id

    backfill_id = make_new_backfill_id()
    instance.add_backfill(
        PartitionBackfill.from_asset_partitions(
            backfill_id=backfill_id,
            asset_graph=definitions.resolve_asset_graph(),
            partition_names=list(keys),
            asset_selection=list(assets),
            backfill_timestamp=time.time(),
            tags=dict(tags),
            dynamic_partitions_store=instance,
            all_partitions=False,
            title=title,
            description=None,
            run_config=None,
        )
    )
    return backfill_id


def repository_of(instance: dg.DagsterInstance, run_id: str | None) -> "RemoteRepositoryOrigin":
    """The repository that the UI lists a run's job in: that of the run, where it was launched from
    one, else that of `workspace.yaml`, which `hoi ui` shows."""
    from dagster._core.definitions.repository_definition import SINGLETON_REPOSITORY_NAME
    from dagster._core.remote_origin import RemoteRepositoryOrigin
    from dagster._core.workspace.load_target import WorkspaceFileTarget

    run = None if run_id is None else instance.get_run_by_id(run_id)
    if run is not None and run.remote_job_origin is not None:
        return run.remote_job_origin.repository_origin
    (location,) = WorkspaceFileTarget([str(ROOT / "workspace.yaml")]).create_origins()
    return RemoteRepositoryOrigin(location, SINGLETON_REPOSITORY_NAME)


def execute_under(
    repository: "RemoteRepositoryOrigin",
    job: dg.JobDefinition,
    instance: dg.DagsterInstance,
    *,
    assets: Sequence[dg.AssetKey],
    partition_key: str | None,
    tags: Mapping[str, str],
    run_config: Mapping[str, Any],
) -> dg.ExecuteInProcessResult:
    """`job.execute_in_process` for a run that the UI shows under its job and on its Overview.

    Both look for the repository that a run came from, which the public method does not record.
    """
    from dagster._core.definitions.job_base import InMemoryJob
    from dagster._core.execution.api import execute_run_iterator
    from dagster._core.execution.execute_in_process import merge_run_tags

    in_process = job.as_ephemeral_job(resource_defs={}, input_values={}, asset_selection=assets)
    run = instance.create_run_for_job(
        job_def=in_process,
        run_config=run_config,
        tags=merge_run_tags(job, partition_key, tags, assets, instance, run_config),
        asset_selection=frozenset(assets),
        remote_job_origin=repository.get_job_origin(job.name),
    )
    events = list(execute_run_iterator(InMemoryJob(in_process), run, instance))
    ended = instance.get_run_by_id(run.run_id)
    assert ended is not None  # the line above has just written it
    return dg.ExecuteInProcessResult(
        event_list=events, dagster_run=ended, output_capture={}, job_def=in_process
    )
