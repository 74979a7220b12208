"""Partitions of the two pipelines; their keys are a contract."""

from pathlib import Path

import dagster as dg

from hoi_assets.errors import HoiError
from hoi_assets.grammar.plans import SCENARIOS
from hoi_assets.settings import load_settings
from hoi_assets.taxonomy import category_keys


def hand_pose_keys(taxonomy_folder: Path) -> tuple[str, ...]:
    """The categories of the taxonomy, by file name.

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
    return categories


hand_pose = dg.StaticPartitionsDefinition(list(hand_pose_keys(load_settings().taxonomy_folder)))
scenario = dg.StaticPartitionsDefinition(list(SCENARIOS))
