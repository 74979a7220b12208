"""What the UI shows: the pipelines, the jobs that loop over them, schedules and sensors."""

import dagster as dg

from hoi_assets.defs.automation import follow_sensor
from hoi_assets.defs.project import Project
from hoi_assets.defs.regenerate import loop_job
from hoi_assets.defs.reverification import reverification_job
from hoi_assets.defs.rounds import SCORECARDS, round_job
from hoi_assets.defs.schedules import nightly_regeneration, weekly_reverification
from hoi_assets.defs.sensors import PAIRS, benchmark_on_changed_model, retrain_on_new_labels
from hoi_assets.grammar.plans import SCENARIOS


def all_definitions(project: Project) -> dg.Definitions:
    """Everything that Dagster loads for this project."""
    everything = loop_job(project, "all_pipelines", "all", "Everything in one process, warm.")
    regenerate = loop_job(
        project, "regenerate", "stale", "What is stale, blocked or missing, in one process, warm."
    )
    automated = [a for a in project.assets if any(s.automation_condition for s in a.specs)]
    sensors: list[dg.SensorDefinition] = []
    if automated:
        sensors.append(follow_sensor(dg.AssetSelection.assets(*automated)))
    if any(stage.name == PAIRS for stage in project.graph.stages):
        sensors.append(retrain_on_new_labels(project, regenerate))
    scenarios = [key for key in project.all_keys if key in SCENARIOS]
    if scenarios:
        sensors.append(benchmark_on_changed_model(project, regenerate, scenarios))
    reverification = reverification_job(project)
    jobs = [everything, regenerate, reverification]
    if any(stage.name == SCORECARDS for stage in project.graph.stages):
        jobs.append(round_job(project))
    timezone = project.platform.settings.timezone
    extra = dg.Definitions(
        jobs=jobs,
        schedules=[
            nightly_regeneration(regenerate, timezone),
            weekly_reverification(reverification, timezone),
        ],
        sensors=sensors,
    )
    return dg.Definitions.merge(project.pipelines, extra)
