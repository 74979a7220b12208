"""Backfills by Dagster's daemon: one run per category or scenario."""

from collections.abc import Mapping, Sequence

import dagster as dg

from hoi_assets.defs.dagster_private import launch_backfill
from hoi_assets.defs.project import Project


def launch_backfills(
    project: Project, instance: dg.DagsterInstance, keys: Sequence[str], tags: Mapping[str, str]
) -> list[str]:
    """Ask the daemon to materialise the partitioned chains of these categories and scenarios.

    What reads them (the dataset and on) is not part of it: Dagster never launches a fan-in whose
    backfill has a failed partition. Run `hoi run`, or switch the sensor `follow_categories` on.

    Returns:
        The backfills' ids: one per kind of partitions.
    """
    ids = []
    launched: set[tuple[str, ...]] = set()
    for job in project.pipeline_jobs:
        partitions_def = project.partitions_of(job)
        if partitions_def is None:
            continue
        known = tuple(partitions_def.get_partition_keys())
        own = [key for key in keys if key in known]
        if own and known not in launched:  # the first job of each kind is its chain
            launched.add(known)
            assets = [dg.AssetKey(name) for name in project.assets_of(job)]
            title = f"hoi backfill: {', '.join(own)}"[:100]
            ids.append(launch_backfill(instance, project.pipelines, assets, own, tags, title))
    return ids
