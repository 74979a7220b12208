"""The weights that are stored with the project, and their cards."""

from pathlib import Path

import pytest

from hoi_assets.tinyworld.weights.card import read_card
from hoi_assets.tinyworld.weights.recipes import RECIPES
from hoi_assets.tinyworld.weights.store import WEIGHTS

MIB = 2**20
FOLDERS = (
    "sdxl",
    "sdxl/vae",
    "clip",
    "vilt",
    "image_reward",
    "examiner",
    "sd3",
    "vqa",
    "component_examiner",
)


def test_all_tiny_weights_together_stay_within_48_mib() -> None:
    sizes = [path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()]
    assert 10 * MIB < sum(sizes) <= 48 * MIB


@pytest.mark.parametrize("folder", FOLDERS)
def test_card_names_the_recipe_that_made_the_weights(folder: str) -> None:
    card = read_card(WEIGHTS / folder)
    assert card.recipe_digest == RECIPES[card.recipe].digest
    assert 0 < card.steps <= card.planned_steps == RECIPES[card.recipe].steps
    assert card.quality


def test_no_pickle_is_stored() -> None:
    suffixes = {path.suffix for path in WEIGHTS.rglob("*") if path.is_file()}
    assert suffixes <= {".safetensors", ".json", ".md"}


def test_stored_configurations_name_no_path_of_a_machine() -> None:
    for path in WEIGHTS.rglob("*.json"):
        assert '"_name_or_path": "/' not in path.read_text(encoding="utf-8"), path


def test_missing_card_says_how_to_make_it(tmp_path: Path) -> None:
    from hoi_assets.errors import HoiError

    with pytest.raises(HoiError, match="no model card"):
        read_card(tmp_path)


def test_sd3_was_trained_over_the_vae_that_it_shares_with_sdxl() -> None:
    weights = "vae/diffusion_pytorch_model.safetensors"
    assert (WEIGHTS / "sd3" / weights).resolve() == (WEIGHTS / "sdxl" / weights).resolve()
    recipe = read_card(WEIGHTS / "sdxl" / "vae").recipe_digest
    assert f"recipe {recipe}" in read_card(WEIGHTS / "sd3").note
