"""What the UI shows: the pipelines, the jobs that loop over them, schedule and sensor."""

import dagster as dg

from hoi_assets.defs.automation import follow_sensor
from hoi_assets.defs.project import Project
from hoi_assets.defs.regenerate import loop_job
from hoi_assets.defs.schedules import nightly_regeneration


def all_definitions(project: Project) -> dg.Definitions:
    """Everything that Dagster loads for this project."""
    everything = loop_job(project, "all_pipelines", "all", "Everything in one process, warm.")
    regenerate = loop_job(
        project, "regenerate", "stale", "What is stale, blocked or missing, in one process, warm."
    )
    automated = [a for a in project.assets if any(s.automation_condition for s in a.specs)]
    extra = dg.Definitions(
        jobs=[everything, regenerate],
        schedules=[nightly_regeneration(regenerate, project.platform.settings.timezone)],
        sensors=[follow_sensor(dg.AssetSelection.assets(*automated))] if automated else [],
    )
    return dg.Definitions.merge(project.pipelines, extra)
