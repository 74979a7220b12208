"""A job that checks what is published and changes nothing."""

import dagster as dg
from pydantic import Field

from hoi_assets.defs.project import Project
from hoi_assets.errors import HoiError


class ReverificationConfig(dg.Config):
    """What can be set in the launchpad."""

    sample: int = Field(default=16, ge=0, description="Pairs per category to score afresh.")


def reverification_job(project: Project) -> dg.JobDefinition:
    """Check every version in force against its hash, and a sample of verdicts by fresh scores."""

    @dg.op(name="reverify")
    def reverify_op(context: dg.OpExecutionContext, config: ReverificationConfig) -> None:
        from hoi_assets.ppv.reverification import reverify

        store = project.platform.store
        problems = []
        for published in store.all_current():
            try:
                published.verify()
            except HoiError as error:
                problems.append(str(error))
        try:
            found = reverify(store, project.platform.settings, config.sample, context.log.info)
        except HoiError as error:
            found = []
            problems.append(str(error))
        for one in found:
            if not one.holds:
                problems.append(
                    f"{one.category}: fresh scores are up to {one.largest_difference:.1e} off, "
                    f"{len(one.changed)} of {one.pairs} verdicts changed: "
                    f"{', '.join(one.changed[:10])}"
                )
        if problems:
            raise dg.Failure("\n".join(problems), allow_retries=False)
        context.add_output_metadata(
            {
                "versions": len(store.all_current()),
                "pairs": sum(one.pairs for one in found),
                "largest_difference": max((one.largest_difference for one in found), default=0.0),
            }
        )

    @dg.job(
        name="reverification",
        executor_def=dg.in_process_executor,
        description="Checks every version in force against its hash and scores a sample of pairs "
        "afresh; changes nothing.",
    )
    def job() -> None:
        reverify_op()

    return job
