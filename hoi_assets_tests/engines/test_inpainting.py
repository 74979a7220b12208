"""Inpainting on the weights of a small SD3 and a small SDXL: its promises, not its quality."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from hoi_assets.engines.batch_sizes import settle_batch_size
from hoi_assets.engines.diffusion_pipeline import PromptedPipeline
from hoi_assets.engines.image_spec import ImageSpec
from hoi_assets.engines.inpainting import (
    INPAINT,
    InpaintedImage,
    InpaintSpec,
    inpaint_images,
    inpaint_key,
    try_repair_batch,
)
from hoi_assets.engines.sd3.loading import load_sd3
from hoi_assets.engines.sdxl.loading import load_sdxl
from hoi_assets.engines.seeds import generator
from hoi_assets.errors import HoiError
from hoi_assets.settings import ModelRef
from hoi_assets_tests.engines.short_memory import room_for
from hoi_assets_tests.engines.small_sd3 import make_sd3
from hoi_assets_tests.engines.small_sdxl import make_sdxl

BATCH, STEPS, SIDE = 3, 5, 64
SCHEDULERS = {"sd3": "flow_match_euler", "sdxl": "euler"}


@pytest.fixture(scope="module", params=["sd3", "sdxl"])
def loaded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> PromptedPipeline:
    folder = tmp_path_factory.mktemp("models") / request.param
    if request.param == "sd3":
        make_sd3(folder)
        return load_sd3(ModelRef(source=str(folder)))
    make_sdxl(folder)
    return load_sdxl(ModelRef(source=str(folder)))


def picture() -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def mask() -> Image.Image:
    found = Image.new("L", (SIDE, SIDE))
    ImageDraw.Draw(found).rectangle((16, 16, 39, 39), fill=255)
    return found


IMAGES = {"picture": picture(), "mask": mask(), "nothing": Image.new("L", (SIDE, SIDE))}


def specs(loaded: PromptedPipeline, count: int = 2, steps: int = 3) -> list[InpaintSpec]:
    kind = "sdxl" if hasattr(loaded.pipe, "unet") else "sd3"
    return [
        InpaintSpec(
            ImageSpec(
                f"a hand with {number} rings", 7 + number, number, STEPS, 4.0, SCHEDULERS[kind],
                SIDE, SIDE,
            ),
            "picture",
            "mask",
            steps,
        )
        for number in range(count)
    ]  # fmt: skip


def drawn(loaded: PromptedPipeline, wanted: list[InpaintSpec]) -> list[InpaintedImage]:
    return list(inpaint_images(loaded, wanted, BATCH, IMAGES.__getitem__))


def pixels(one: InpaintedImage) -> Any:
    assert one.image is not None, one.reason
    return np.asarray(one.image)


def test_only_pixels_inside_of_the_mask_change(loaded: PromptedPipeline) -> None:
    outside = np.asarray(mask()) == 0
    for one in drawn(loaded, specs(loaded)):
        assert (pixels(one)[outside] == np.asarray(picture())[outside]).all()
        assert (pixels(one)[~outside] != np.asarray(picture())[~outside]).mean() > 0.5


def test_picture_drawn_alone_equals_the_one_of_a_batch(loaded: PromptedPipeline) -> None:
    first, second = drawn(loaded, specs(loaded))
    (alone,) = drawn(loaded, specs(loaded)[1:])
    assert (pixels(alone) == pixels(second)).all()
    assert (pixels(first) != pixels(second)).any()


@pytest.mark.parametrize("steps", [1, 2, 4, STEPS])
def test_evaluations_are_those_that_the_denoiser_made(loaded: PromptedPipeline, steps: int) -> None:
    (spec,) = specs(loaded, 1, steps)
    calls: list[int] = []
    hook = loaded.denoiser.register_forward_pre_hook(lambda *_: calls.append(1))
    try:
        drawn(loaded, [spec])
    finally:
        hook.remove()
    # Both halves of classifier-free guidance go through at once.
    assert 2 * len(calls) == spec.denoiser_evaluations == 2 * steps


def test_pipeline_in_memory_is_left_as_it_was(loaded: PromptedPipeline) -> None:
    before = dict(loaded.denoiser.config), loaded.pipe.scheduler
    drawn(loaded, specs(loaded))
    assert (dict(loaded.denoiser.config), loaded.pipe.scheduler) == before


def test_empty_mask_gives_the_picture_back(loaded: PromptedPipeline) -> None:
    (spec,) = specs(loaded, 1)
    (same,) = drawn(loaded, [replace(spec, mask="nothing")])
    assert (pixels(same) == np.asarray(picture())).all()


def test_repairs_that_do_not_fit_together_are_drawn_in_smaller_batches(
    loaded: PromptedPipeline, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = specs(loaded, 3)
    whole = drawn(loaded, wanted)
    with caplog.at_level(logging.WARNING), room_for(loaded.denoiser, 1):
        halved = drawn(loaded, wanted)
    loaded.batch_limits.clear()
    assert caplog.messages == [
        "out of memory: a batch of 3 (repaired image of 64x64 px) does not fit; going on with "
        "batches of 1"
    ]
    assert [one.batch_size for one in whole] == [3] * 3
    for one, other in zip(halved, whole, strict=True):
        assert (one.spec, one.batch_size) == (other.spec, 1)
        assert np.abs(pixels(one).astype(int) - pixels(other)).max() <= 1
    # Its slot in the smaller batch and the size give the very same picture again.
    row = replace(wanted[2].row, slot=0)
    (again,) = inpaint_images(loaded, [replace(wanted[2], row=row)], 1, IMAGES.__getitem__)
    assert (pixels(again) == pixels(halved[2])).all()


def test_auto_finds_the_batch_of_repairs_by_trying(
    loaded: PromptedPipeline, tmp_path: Path
) -> None:
    (spec,) = specs(loaded, 1)
    work = (INPAINT, SIDE, SIDE)

    def attempt(size: int) -> None:
        try_repair_batch(loaded, spec, size, IMAGES.__getitem__)

    with room_for(loaded.denoiser, 2):
        size = settle_batch_size(loaded, tmp_path, "auto", work, attempt, lambda line: None)
    assert (size, dict(loaded.batch_limits)) == (2, {work: 2})
    loaded.batch_limits = {}


def test_a_repair_that_does_not_fit_alone_names_the_remedy(loaded: PromptedPipeline) -> None:
    with (
        room_for(loaded.denoiser, 0),
        pytest.raises(HoiError, match="one repaired image of 64x64 px does not fit") as error,
    ):
        drawn(loaded, specs(loaded))
    loaded.batch_limits.clear()
    assert "offload" in str(error.value)
    assert len(drawn(loaded, specs(loaded))) == 2  # the pipeline can be used again


def test_key_follows_all_that_determines_the_image(loaded: PromptedPipeline) -> None:
    (spec,) = specs(loaded, 1)
    others = [
        replace(spec, picture="another"),
        replace(spec, mask="another"),
        replace(spec, steps=2),
        replace(spec, row=replace(spec.row, seed=1)),
    ]
    keys = {inpaint_key(one, "base") for one in [spec, *others]}
    assert len(keys) == 5 and inpaint_key(spec, "other base") not in keys
    moved = replace(spec, row=replace(spec.row, slot=2))
    assert inpaint_key(moved, "base") == inpaint_key(spec, "base")


def test_steps_that_cannot_be_run_are_refused(loaded: PromptedPipeline) -> None:
    for steps in (0, STEPS + 1):
        with pytest.raises(HoiError, match="denoising steps"):
            drawn(loaded, specs(loaded, 1, steps))


def test_sd3_restores_the_latents_shift_when_it_decodes(tmp_path: Path) -> None:
    """diffusers' own decoding leaves out the shift: a picture of the wrong brightness."""
    make_sd3(tmp_path / "sd3")
    loaded = load_sd3(ModelRef(source=str(tmp_path / "sd3")))
    vae = loaded.pipe.vae
    assert vae.config.shift_factor
    (spec,) = specs(loaded, 1, 1)
    seen: list[Any] = []
    original = vae.decode

    def watch(latents: Any, *args: Any, **options: Any) -> Any:
        seen.append(latents)
        return original(latents, *args, **options)

    vae.decode = watch
    try:
        drawn(loaded, [replace(spec, mask="nothing")])
    finally:
        vae.decode = original
    # Where nothing is drawn again, what is decoded is what was encoded.
    pixels = loaded.pipe.image_processor.preprocess(picture())
    encoded = vae.encode(pixels).latent_dist.sample(generator=generator(spec.row.seed))
    torch.testing.assert_close(seen[0][:1], encoded.detach(), atol=1e-5, rtol=0)
