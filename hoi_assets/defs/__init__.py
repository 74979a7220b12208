"""Everything that Dagster is told: assets, partitions, resources, jobs, schedules, automation."""
