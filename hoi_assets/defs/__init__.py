"""Everything that Dagster loads: assets, partitions, resources, jobs, schedules, automation."""
