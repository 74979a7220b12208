"""Partitions of the graph."""

from pathlib import Path

import dagster as dg

from hoi_assets.taxonomy import category_keys


def hand_pose(taxonomy_folder: Path) -> dg.StaticPartitionsDefinition:
    """One partition per category of the taxonomy: the file names of its `categories` folder."""
    return dg.StaticPartitionsDefinition(list(category_keys(taxonomy_folder)))
