from pathlib import Path

import pytest

from hoi_assets.tinyworld.weights.store import write_fresh
from hoi_assets_tests.tinyworld.weights.shapes import (
    INTERACTIONS,
    write_plans,
    write_shapes,
    write_twins,
)


@pytest.fixture(scope="session")
def fresh_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of untrained models in their stored form."""
    folder = tmp_path_factory.mktemp("fresh")
    write_fresh(folder, log=lambda line: None)
    return folder


@pytest.fixture(scope="session")
def shapes_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small world of coloured shapes with all splits that trainings read."""
    folder = tmp_path_factory.mktemp("world")
    write_shapes(folder, "pretrain", 40)
    write_shapes(folder, "examiner", 40)
    write_twins(folder, "twins", 60)
    write_plans(folder, "interactions", INTERACTIONS)
    write_plans(folder, "interactions_examiner", INTERACTIONS)
    return folder
