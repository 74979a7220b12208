"""Loads everything below `defs/` for Dagster."""

import dagster as dg

from hoi_assets.defs.all_definitions import all_definitions
from hoi_assets.defs.project import load_project


@dg.definitions
def defs() -> dg.Definitions:
    return all_definitions(load_project())
