"""All that is used of Dagster beyond its public API.

Tested with Dagster 1.13.27; `hoi_assets_tests/defs/test_dagster_private.py` checks it.
"""

import time
from collections.abc import Mapping, Sequence

import dagster as dg
from dagster._core.events import RunFailureReason
from dagster._core.execution.plan.objects import ErrorSource

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
