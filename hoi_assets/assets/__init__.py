"""Dagster assets, one module per stage: read, call the library, publish."""
