"""Automation conditions, and the sensor that evaluates them; shipped stopped.

The partitioned chains are materialised by hand, schedules or backfills. What reads them follows
when their data versions *changed*: a run that found nothing to do triggers nothing.
"""

import dagster as dg

any_dep_changed = dg.AutomationCondition.any_deps_match(
    dg.AutomationCondition.data_version_changed()
)

# A fan-in runs once none of its parents is in progress; `eager()` would wait for every partition.
follow_changed_parents = (
    any_dep_changed.since_last_handled()
    & ~dg.AutomationCondition.any_deps_in_progress()
    & ~dg.AutomationCondition.in_progress()
)
# For an asset whose parent is requested in the same tick.
follow_in_one_run = follow_changed_parents | dg.AutomationCondition.any_deps_match(
    dg.AutomationCondition.will_be_requested()
)
# One partition at a time, and only where all of its parents exist.
follow_per_partition = follow_changed_parents & ~dg.AutomationCondition.any_deps_missing()


def follow_last(*before: str, per_partition: str) -> dg.AutomationCondition:
    """For what sums up a wave of changes: once, when nothing of it is due any more.

    A chain takes several ticks, each asset following in the tick after its parent was published,
    so that in between none is in progress; `will_be_requested` looks at equal partitions only.

    Args:
        before: names of its parents that follow as well and have no partitions.
        per_partition: the parent that follows per partition.
    """
    due = any_dep_changed.since_last_handled()
    due_in_partition = due & ~dg.AutomationCondition.any_deps_missing()
    any_due = [
        dg.AutomationCondition.any_deps_match(condition).allow(dg.AssetSelection.assets(*names))
        for condition, names in ((due, before), (due_in_partition, (per_partition,)))
    ]
    return follow_changed_parents & ~any_due[0] & ~any_due[1]


def follow_sensor(assets: dg.AssetSelection) -> dg.AutomationConditionSensorDefinition:
    """Evaluates the conditions of these assets every 30 seconds once it is switched on."""
    return dg.AutomationConditionSensorDefinition(
        "follow_categories",
        target=assets,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="After categories or scenarios changed: dataset, fine-tuning, scores, report.",
    )
