"""Promises about a device whose memory is full, see `short_memory`."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hoi_assets.engines.batching import map_fixed
from hoi_assets.engines.image_cache import get_or_generate_images
from hoi_assets.engines.image_spec import ImageSpec
from hoi_assets.engines.sd3.compute import initial_image_spec
from hoi_assets.engines.sd3.loading import load_sd3
from hoi_assets.engines.sd3.redenoising import (
    Redenoising,
    generate_initial_images,
    generate_variants,
)
from hoi_assets.engines.sdxl.img2img import renoise, round_trip
from hoi_assets.engines.sdxl.loading import LoadedSDXL, load_sdxl
from hoi_assets.engines.sdxl.lora import train_dreambooth_lora
from hoi_assets.engines.sdxl.sampling import generate_images, make_image_spec
from hoi_assets.errors import HoiError
from hoi_assets.settings import LoraTraining, ModelRef, Sampling, load_settings
from hoi_assets.store.versions import Store
from hoi_assets_tests.engines.short_memory import MORE_THAN_THERE_IS, room_for
from hoi_assets_tests.engines.small_sd3 import make_sd3
from hoi_assets_tests.engines.small_sdxl import PROMPTS, picture

BATCH = 4


@pytest.fixture
def fresh(loaded: LoadedSDXL) -> Iterator[LoadedSDXL]:
    loaded.batch_limits.clear()
    yield loaded
    loaded.batch_limits.clear()


def _rows(sampling: Sampling, count: int) -> list[ImageSpec]:
    return [make_image_spec(sampling, PROMPTS[n % 3], n, n) for n in range(count)]


def _difference(one: Image.Image | None, other: Image.Image | None) -> int:
    assert one is not None and other is not None
    return int(np.abs(np.asarray(one, np.int16) - np.asarray(other, np.int16)).max())


def test_a_batch_that_does_not_fit_is_halved_and_gives_the_same_pictures(
    fresh: LoadedSDXL, sampling: Sampling, caplog: pytest.LogCaptureFixture
) -> None:
    rows = _rows(sampling, 6)
    whole = {one.row.seed: one for one in generate_images(fresh, rows, BATCH)}
    with caplog.at_level(logging.WARNING), room_for(fresh.pipe.unet, 1):
        halved = {one.row.seed: one for one in generate_images(fresh, rows, BATCH)}
    said = [line for line in caplog.messages if "out of memory" in line]
    assert said == [
        "out of memory: a batch of 4 (image of 64x64 px) does not fit; going on with batches of 2",
        "out of memory: a batch of 2 (image of 64x64 px) does not fit; going on with batches of 1",
    ]
    assert [one.batch_size for one in whole.values()] == [4] * 6
    for seed, one in halved.items():
        assert one.batch_size == 1
        assert _difference(one.image, whole[seed].image) <= 1
    assert len({one.image.tobytes() for one in halved.values() if one.image}) == 6


def test_a_picture_of_a_halved_batch_is_drawn_again_from_its_row(
    fresh: LoadedSDXL, sdxl_folder: Path, tmp_path: Path
) -> None:
    whole = load_settings("tiny")
    sampling = Sampling(width=64, height=64, num_inference_steps=2, batch_size=4)
    models = whole.models.model_copy(update={"base": ModelRef(source=str(sdxl_folder))})
    settings = whole.model_copy(update={"sampling": sampling, "models": models})
    store, rows = Store(tmp_path / "home"), _rows(sampling, 4)
    with room_for(fresh.pipe.unet, 2):
        drawn = get_or_generate_images(store, settings, rows, "pictures", lambda line: None)
    fresh.batch_limits.clear()
    records = [one.as_record() for one in drawn]
    assert [(row["slot"], row["batch_size"]) for row in records] == [(0, 2), (1, 2)] * 2
    for one, record in zip(drawn, records, strict=True):
        row = replace(one.row, slot=record["slot"])
        (again,) = generate_images(fresh, [row], record["batch_size"])
        assert again.image is not None
        assert store.images.put(again.image) == record["pixels"]


def test_views_of_the_generator_are_halved_too(fresh: LoadedSDXL, sampling: Sampling) -> None:
    images = [picture(colour) for colour in ("red", "blue", "green")]
    for view in (
        lambda: list(renoise(fresh, images, PROMPTS, (1, 2, 3), 0.7, sampling, BATCH)),
        lambda: list(round_trip(fresh, images, sampling, BATCH)),
    ):
        whole = view()
        with room_for(fresh.pipe.vae.encoder, 2, guided=False):
            halved = view()
        fresh.batch_limits.clear()
        assert len(halved) == 3
        for one, other in zip(whole, halved, strict=True):
            assert _difference(one, other) <= 1


def test_stable_diffusion_3_is_halved_from_noise_and_from_latents_under_way(tmp_path: Path) -> None:
    make_sd3(tmp_path / "sd3")
    loaded = load_sd3(ModelRef(source=str(tmp_path / "sd3")))
    rows = [initial_image_spec(PROMPTS[n], n, n, BATCH, 3, 4.5, 64, 64) for n in range(3)]

    def drawn() -> tuple[dict[int, Any], dict[tuple[int, int], Any]]:
        first = {one.row.seed: one for one in generate_initial_images(loaded, rows, BATCH, (1,))}
        wanted = [
            Redenoising(one.row, f"{one.row.prompt}, whole", one.latents) for one in first.values()
        ]
        found = generate_variants(loaded, wanted, BATCH, (0, 1))
        return first, {(one.redenoising.row.seed, one.switch_step): one for one in found}

    whole, whole_variants = drawn()
    with room_for(loaded.pipe.transformer, 2):
        halved, halved_variants = drawn()
    assert len(halved) == 3 and len(halved_variants) == 6
    for kind, other in ((halved, whole), (halved_variants, whole_variants)):
        for key, one in kind.items():
            assert (one.batch_size, other[key].batch_size) == (2, BATCH)
            assert _difference(one.image, other[key].image) <= 1


def test_one_image_that_does_not_fit_is_an_error_that_names_the_remedy(
    fresh: LoadedSDXL, sampling: Sampling
) -> None:
    with (
        room_for(fresh.pipe.unet, 0),
        pytest.raises(HoiError, match="batch of one image of 64x64 px does not fit") as error,
    ):
        list(generate_images(fresh, _rows(sampling, 2), BATCH))
    assert "offload" in str(error.value) and "nf4" in str(error.value)


def test_scores_come_from_smaller_batches_where_memory_is_short() -> None:
    sizes = []

    def compute(items: list[int]) -> np.ndarray:
        sizes.append(len(items))
        if len(items) > 2:
            torch.empty(MORE_THAN_THERE_IS)
        return np.array([10.0 * item for item in items])

    assert map_fixed(7, 5, compute).tolist() == [10.0 * item for item in range(7)]
    assert sizes == [5, 2, 2, 2, 2, 2, 2]

    def never(items: list[int]) -> np.ndarray:
        torch.empty(MORE_THAN_THERE_IS)
        raise AssertionError

    with pytest.raises(HoiError, match="a batch of one item does not fit"):
        map_fixed(3, 2, never)


def test_other_errors_are_not_taken_for_a_full_memory(
    fresh: LoadedSDXL, sampling: Sampling
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    handle = fresh.pipe.unet.register_forward_pre_hook(broken)
    try:
        with pytest.raises(RuntimeError, match="mat1"):
            list(generate_images(fresh, _rows(sampling, 1), BATCH))
    finally:
        handle.remove()
    assert not fresh.batch_limits


def test_a_training_that_does_not_fit_names_its_settings(sdxl_folder: Path, tmp_path: Path) -> None:
    loaded = load_sdxl(ModelRef(source=str(sdxl_folder)))
    config = LoraTraining(
        max_train_steps=1, train_batch_size=2, rank=2, with_prior_preservation=False
    )
    pairs = [(picture("red"), "a ball"), (picture("blue"), "a mug")]
    with (
        room_for(loaded.pipe.unet, 1, guided=False),
        pytest.raises(HoiError, match="step 1 of the LoRA's training does not fit") as error,
    ):
        train_dreambooth_lora(
            loaded, pairs, (), config, tmp_path / "work", tmp_path / "lora", lambda line: None
        )
    assert "lora.train_batch_size" in str(error.value)
