"""Masks of local repair: from which map they come, and what they mark."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hoi_assets.detailscribe.repair_masks import mask_from_maps, repair_masks
from hoi_assets.engines.vilt.defect_head import build_defect_head
from hoi_assets.engines.vilt.relevance import relevance_of_no
from hoi_assets.engines.vilt.verifier import load_verifier, save_verifier
from hoi_assets.engines.vilt.vqa import load_vqa
from hoi_assets.errors import HoiError
from hoi_assets.settings import LocalRepair, ModelRef, load_settings
from hoi_assets.store.versions import Store
from hoi_assets_tests.engines.small_judges import vilt_folder
from hoi_assets_tests.test_detailscribe_pipeline import make_vqa

__all__ = ["vilt_folder"]

SIDE = 64


def noise(seed: int) -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    )


def test_mask_is_the_union_of_the_maps_widened_by_the_margin() -> None:
    first, second = np.zeros((4, 4)), np.zeros((4, 4))
    first[0, 0] = second[3, 3] = 0.8
    narrow = mask_from_maps([first, second], (40, 40), 0.5, 0.0)
    assert narrow.sum() == 2 * 100 and narrow[0, 0] and narrow[39, 39]
    wide = mask_from_maps([first, second], (40, 40), 0.5, 0.05)
    assert wide.sum() == 2 * 144 and wide[narrow].all()
    assert not mask_from_maps([first, second], (40, 40), 0.9, 0.5).any()


def test_relevance_is_the_slope_of_the_answer_and_does_not_depend_on_neighbours(
    tmp_path: Path,
) -> None:
    make_vqa(tmp_path / "vqa")
    vqa = load_vqa(tmp_path / "vqa")
    images, questions = [noise(0), noise(1)], ["is there a cup?", "is the hand open?"]
    maps = relevance_of_no(vqa, images, questions)
    assert maps.min() >= 0 and maps.max() == 1
    assert (relevance_of_no(vqa, images[:1], questions[:1])[0] == maps[0]).all()
    assert (maps[0] != maps[1]).any()


def test_verifiers_defect_map_is_the_mask_whatever_the_critic_says(
    tmp_path: Path, vilt_folder: Path
) -> None:
    verifier = load_verifier(vilt_folder)
    head = build_defect_head(verifier.model.config.hidden_size, ("extra_finger",))
    with torch.no_grad():  # every cell of the upper left of each patch is defective, no other
        head["map"].bias[:] = torch.tensor([5.0, -5.0, -5.0, -5.0])
    folder = tmp_path / "verifier"
    save_verifier(replace(verifier, defect_head=head), folder)
    store = Store(tmp_path / "home")
    pixels = store.images.put(noise(0))
    store.images.flush()
    settings = load_settings("tiny")
    models = settings.models.model_copy(update={"repair_verifier": ModelRef(source=str(folder))})
    settings = settings.model_copy(update={"models": models})
    row = {"row_id": "a", "pixels": pixels, "prompt": "a hand", "width": SIDE, "height": SIDE}
    options = LocalRepair(mask="verifier", mask_margin=0)
    (mask,) = repair_masks(store, settings, options, [row], [None], print).values()
    assert mask.pixels is not None and mask.share == pytest.approx(1 / 4)
    for named, problem in (
        (ModelRef(source=str(vilt_folder)), "no defect head"),
        (None, r"models\.repair_verifier is not set"),
    ):
        models = settings.models.model_copy(update={"repair_verifier": named})
        other = settings.model_copy(update={"models": models})
        with pytest.raises(HoiError, match=problem):
            repair_masks(store, other, options, [row], [None], print)
