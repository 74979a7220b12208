"""Schedules, in the profile's time zone; shipped stopped."""

import dagster as dg

NIGHTLY_CRON = "0 3 * * *"
WEEKLY_CRON = "0 6 * * 0"


def nightly_regeneration(job: dg.JobDefinition, timezone: str) -> dg.ScheduleDefinition:
    """What changed, failed or is missing, every night at 03:00 in the profile's time zone."""
    return dg.ScheduleDefinition(
        name="nightly_regeneration",
        job=job,
        cron_schedule=NIGHTLY_CRON,
        execution_timezone=timezone,
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Every night at 03:00: materialises what is stale, blocked or missing, and "
        "nothing else.",
    )


def weekly_reverification(job: dg.JobDefinition, timezone: str) -> dg.ScheduleDefinition:
    """Whether stored content and verdicts still hold, Sundays at 06:00."""
    return dg.ScheduleDefinition(
        name="weekly_reverification",
        job=job,
        cron_schedule=WEEKLY_CRON,
        execution_timezone=timezone,
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Sundays at 06:00: checks every version in force against its hash, and "
        "scores a sample of pairs afresh. Changes nothing; fails where something does not hold.",
    )
