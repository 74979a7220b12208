"""HPSv3 against the published package: `hpsv3_scores.json` was made by it, see
`hpsv3_reference.py`."""

import json
from pathlib import Path

import numpy as np
import pytest

from hoi_assets.engines.hpsv3.loading import HPSv3, load_hpsv3
from hoi_assets.engines.hpsv3.scoring import hpsv3_scores
from hoi_assets_tests.engines.small_hpsv3 import PROMPTS, make_hpsv3, pictures, recipe_digest

PUBLISHED = json.loads((Path(__file__).parent / "hpsv3_scores.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_hpsv3(tmp_path_factory.mktemp("hpsv3"))


@pytest.fixture(scope="module")
def scorer(folder: Path) -> HPSv3:
    return load_hpsv3(folder)


def test_scores_are_those_of_the_published_package(scorer: HPSv3) -> None:
    assert recipe_digest() == PUBLISHED["recipe"]
    wanted = np.array(PUBLISHED["mu_and_log_sigma"])
    wanted[:, 1] = np.exp(wanted[:, 1])
    found = hpsv3_scores(scorer, pictures(), PROMPTS)
    print(np.abs(found-wanted).max(0), found)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)
