"""A round of Prompt-Propose-Verify: plan from the verdicts, draw what is missing, judge, score."""

from collections.abc import Sequence

import dagster as dg
from pydantic import Field

from hoi_assets.defs.jobs import ppv_category, verifier_training
from hoi_assets.defs.project import Project
from hoi_assets.defs.regenerate import report_in_op
from hoi_assets.defs.warm_loop import Report, run_pipelines
from hoi_assets.errors import HoiError
from hoi_assets.progress import Log

JOB = "ppv_round"
SCORECARDS = "round_scorecards"


def run_round(
    project: Project,
    instance: dg.DagsterInstance,
    categories: Sequence[str],
    log: Log = print,
    parent_run_id: str | None = None,
) -> Report:
    """One more round of every category, in this process; a round that was cut short is ended first.

    The dataset and what follows it are left to `hoi run --only stale`.

    Args:
        categories: hand poses.

    Raises:
        HoiError: as `run_pipelines`; or a key that is a scenario.
    """
    poses = hand_poses(project)
    others = [key for key in categories if key not in poses]
    if others:
        raise HoiError(f"{', '.join(others)} has no rounds", f"name hand poses: {', '.join(poses)}")
    jobs = (verifier_training, ppv_category)
    assets = [SCORECARDS, *(name for job in jobs for name in project.assets_of(job))]
    return run_pipelines(
        project,
        instance,
        categories,
        log=log,
        parent_run_id=parent_run_id,
        assets=assets,
        config={"round_plan": {"another": True}},
    )


class RoundsConfig(dg.Config):
    """What can be set in the launchpad."""

    categories: list[str] = Field(
        default=[], description="Hand-pose categories; empty: those that the profile runs."
    )


def round_job(project: Project) -> dg.JobDefinition:
    """A job of one op that runs `run_round` in its own process."""

    @dg.op(name=f"{JOB}_loop")
    def loop(context: dg.OpExecutionContext, config: RoundsConfig) -> None:
        def work() -> Report:
            return run_round(
                project,
                context.instance,
                project.chosen(config.categories) or default_categories(project),
                log=context.log.info,
                parent_run_id=context.run_id,
            )

        report_in_op(context, work)

    @dg.job(
        name=JOB,
        executor_def=dg.in_process_executor,
        description="One more round per hand pose: other prompts where slices are thin, more "
        "instance images and a new LoRA where little is accepted; then its scores.",
    )
    def job() -> None:
        loop()

    return job


def hand_poses(project: Project) -> tuple[str, ...]:
    """Every hand-pose category."""
    known = project.partitions_of(ppv_category)
    return () if known is None else tuple(known.get_partition_keys())


def default_categories(project: Project) -> tuple[str, ...]:
    """The hand poses that the profile runs."""
    poses = hand_poses(project)
    return tuple(key for key in project.run_keys() if key in poses)
