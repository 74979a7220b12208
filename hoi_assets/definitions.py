"""Builds Dagster's Definitions from the stages in `hoi_assets/assets/`."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import dagster as dg

from hoi_assets.defs.automation import (
    Line,
    conditions,
    follow_sensor,
    loop_job,
    nightly,
    phase_jobs,
)
from hoi_assets.defs.partitions import definitions_of
from hoi_assets.defs.resources import Platform, PlatformResource
from hoi_assets.publishing.asset import asset_of
from hoi_assets.publishing.expectations import Expectation
from hoi_assets.publishing.graph import Graph, stages_in
from hoi_assets.publishing.stage import Stage
from hoi_assets.publishing.suites import SUITES


def build_line(
    profile: str | None = None,
    home: Path | None = None,
    stages: Iterable[Stage] | None = None,
    suites: Mapping[str, Sequence[Expectation]] = SUITES,
) -> Line:
    """The graph, its assets and the jobs of its phases.

    Args:
        profile: name or path of a YAML file; None takes `HOI_PROFILE`, else `tiny`.
        home: where outputs go; None takes `HOI_HOME`, else `data/out`.
        stages: those of `hoi_assets.defs` where not given.
        suites: expectations by stage name.
    """
    platform = Platform(profile, home)
    graph = Graph(stages_in("hoi_assets.defs") if stages is None else stages, suites)
    partitions = definitions_of(platform.partition_keys)
    follow = conditions(graph)
    defs = dg.Definitions(
        assets=[asset_of(s, graph, partitions, follow.get(s.name)) for s in graph.stages],
        jobs=phase_jobs(graph),
        resources={
            "platform": PlatformResource(profile=profile, home=None if home is None else str(home))
        },
        executor=dg.in_process_executor,
    )
    return Line(graph, platform, defs)


def build_definitions(line: Line) -> dg.Definitions:
    """All that the UI shows: the line, and the jobs that loop over it."""
    whole = loop_job(line, "whole_line", "all", "The whole line in one process, warm.")
    regenerate = loop_job(
        line, "regenerate", "stale", "What changed, failed or is missing, in one process, warm."
    )
    follow = follow_sensor(list(conditions(line.graph)))
    extra = dg.Definitions(
        jobs=[whole, regenerate], schedules=[nightly(regenerate.name)], sensors=[follow]
    )
    return dg.Definitions.merge(line.defs, extra)


@dg.definitions
def defs() -> dg.Definitions:
    return build_definitions(build_line())
