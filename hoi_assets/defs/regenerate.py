"""Jobs that run the warm loop inside Dagster."""

from collections.abc import Callable
from enum import StrEnum

import dagster as dg
from pydantic import Field

from hoi_assets.defs.project import Project
from hoi_assets.defs.warm_loop import Only, Report, run_pipelines
from hoi_assets.errors import HoiError


class OnlyChoice(StrEnum):
    """The choices of `only`."""

    all = "all"
    stale = "stale"
    failed = "failed"
    missing = "missing"


class LoopConfig(dg.Config):
    """What can be set in the launchpad."""

    partitions: list[str] = Field(
        default=[],
        description="Categories and scenarios; empty: the profile's and those published before.",
    )
    only: OnlyChoice | None = Field(
        default=None,
        description="stale: changed, missing or blocked; failed: blocked or with failed rows; "
        "missing: never published; all.",
    )
    force: bool = Field(default=False, description="Compute although the inputs are unchanged.")


def report_in_op(context: dg.OpExecutionContext, work: Callable[[], Report]) -> None:
    """Do a loop's work in an op, which shows its report.

    Raises:
        Failure: a partition is blocked, or the work cannot be done as asked.
    """
    try:
        report = work()
    except HoiError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    table = {"report": dg.MetadataValue.md(f"```\n{report.table()}\n```")}
    if report.blocked:
        raise dg.Failure(f"blocked: {report.blocked_names}\n{report.table()}", metadata=table)
    context.add_output_metadata(table)


def loop_job(project: Project, name: str, only: Only, description: str) -> dg.JobDefinition:
    """A job of one op that runs `run_pipelines` in its own process.

    Args:
        only: where the config says nothing.
    """

    @dg.op(name=f"{name}_loop")
    def loop(context: dg.OpExecutionContext, config: LoopConfig) -> None:
        def work() -> Report:
            return run_pipelines(
                project,
                context.instance,
                project.chosen(config.partitions) or project.keys_in_use(),
                only=only if config.only is None else config.only.value,
                force=config.force,
                log=context.log.info,
                parent_run_id=context.run_id,
            )

        report_in_op(context, work)

    @dg.job(name=name, executor_def=dg.in_process_executor, description=description)
    def job() -> None:
        loop()

    return job
