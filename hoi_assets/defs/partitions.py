"""Partitions of the graph."""

from pathlib import Path

import dagster as dg

from hoi_assets.errors import HoiError
from hoi_assets.grammar.plans import SCENARIOS
from hoi_assets.publishing.stage import Keys, Partitions
from hoi_assets.taxonomy import category_keys


def partition_keys(taxonomy_folder: Path) -> Keys:
    """`hand_pose`: the categories of the taxonomy, by file name; `scenario`: InterActing's.

    Raises:
        HoiError: a category is named like a scenario.
    """
    categories = category_keys(taxonomy_folder)
    for name in categories:
        if name in SCENARIOS:
            raise HoiError(
                f"the category {name!r} is named like a scenario of InterActing",
                f"rename {taxonomy_folder / 'categories' / name}.yaml",
            )
    return {"hand_pose": categories, "scenario": SCENARIOS}


def definitions_of(keys: Keys) -> dict[Partitions, dg.StaticPartitionsDefinition]:
    """The keys as Dagster takes them."""
    return {name: dg.StaticPartitionsDefinition(list(own)) for name, own in keys.items()}
