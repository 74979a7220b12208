"""One asset in its job, in this process."""

import dagster as dg

from hoi_assets.defs.project import Project
from hoi_assets.publishing.asset import FORCE_TAG


def execute(
    project: Project,
    instance: dg.DagsterInstance,
    asset: str,
    partition: str | None,
    force: bool = True,
) -> dg.ExecuteInProcessResult:
    """The asset alone; a failure is in the result.

    Args:
        force: compute though nothing changed.
    """
    job = next(job for job in project.pipeline_jobs if asset in project.assets_of(job))
    return project.pipelines.resolve_job_def(job.name).execute_in_process(
        asset_selection=[dg.AssetKey(asset)],
        partition_key=partition,
        instance=instance,
        raise_on_error=False,
        tags={FORCE_TAG: "true"} if force else {},
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
    )
