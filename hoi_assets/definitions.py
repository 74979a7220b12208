"""Loads everything below `defs/` for Dagster."""

import dagster as dg

from hoi_assets.defs.project import load_project


@dg.definitions
def defs() -> dg.Definitions:
    return load_project().definitions
