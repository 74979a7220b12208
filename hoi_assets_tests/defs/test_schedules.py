"""The nightly schedule keeps the profile's time zone, summer time included."""

from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

# What the daemon asks for the times of a schedule; there is no public call.
from dagster._utils.schedules import schedule_execution_time_iterator

from hoi_assets.defs.all_definitions import all_definitions
from hoi_assets_tests.publishing.small_pipeline import (
    GOOD,
    small_project,
    write_profile,
    write_taxonomy,
)

YEAR = 2025
PARIS = "Europe/Paris"


def ticks(folder: Path, timezone: str) -> list[datetime]:
    """Local times at which the schedule of a profile with this time zone ticks within a year."""
    write_taxonomy(folder / "taxonomy", {"hook": GOOD})
    write_profile(folder, timezone=timezone)
    repository = all_definitions(small_project(folder)).get_repository_def()
    (schedule,) = repository.schedule_defs
    zone = ZoneInfo(timezone)
    times = schedule_execution_time_iterator(
        datetime(YEAR, 1, 1, tzinfo=zone).timestamp(),
        schedule.cron_schedule,
        schedule.execution_timezone,
    )
    local = (time.astimezone(zone) for time in times)
    return list(takewhile(lambda time: time.year == YEAR, local))


# In Helsinki 3:00 does not exist on the last Sunday of March, and comes twice on that of October.
@pytest.mark.parametrize("timezone", ["UTC", PARIS, "America/New_York", "Europe/Helsinki"])
def test_nightly_schedule_ticks_once_a_day_at_three_in_the_profiles_time_zone(
    timezone: str, tmp_path: Path
) -> None:
    found = ticks(tmp_path, timezone)
    assert len({time.date() for time in found}) == len(found) == 365
    odd = [time for time in found if (time.hour, time.minute) != (3, 0)]
    assert [(time.month, time.day, time.hour) for time in odd] == (
        [(3, 30, 4)] if timezone == "Europe/Helsinki" else []
    )


def test_summer_time_moves_the_schedule_with_the_clocks_on_the_wall(tmp_path: Path) -> None:
    found = {time.date().isoformat(): time.astimezone(UTC) for time in ticks(tmp_path, PARIS)}
    hours = [found[f"{YEAR}-{day}"].hour for day in ("03-29", "03-30", "10-25", "10-26")]
    assert hours == [2, 1, 1, 2]
