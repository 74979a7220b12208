"""Schedules; shipped stopped."""

import dagster as dg

NIGHTLY_CRON = "0 3 * * *"


def nightly_regeneration(job: dg.JobDefinition, timezone: str) -> dg.ScheduleDefinition:
    """What changed, failed or is missing, every night at 03:00 in the profile's time zone."""
    return dg.ScheduleDefinition(
        name="nightly_regeneration",
        job=job,
        cron_schedule=NIGHTLY_CRON,
        execution_timezone=timezone,
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Materialises what is stale, blocked or missing.",
    )
