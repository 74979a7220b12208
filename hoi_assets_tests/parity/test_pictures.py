"""Pictures are bit-equal with those of plain diffusers' pipelines, called as its manual says."""

from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from hoi_assets.engines.sd3.compute import initial_image_spec
from hoi_assets.engines.sd3.loading import load_sd3
from hoi_assets.engines.sd3.redenoising import generate_initial_images
from hoi_assets.engines.sdxl.loading import load_sdxl
from hoi_assets.engines.sdxl.sampling import generate_images, make_image_spec
from hoi_assets.settings import ModelRef, Sampling
from hoi_assets_tests.engines.small_sd3 import make_sd3
from hoi_assets_tests.engines.small_sdxl import PROMPTS

STEPS, SEED = 4, 11
DTYPES = ("float32", "bfloat16")
SCHEDULERS = get_args(Sampling.model_fields["scheduler"].annotation)
# Guidance scale and negative prompt.
CALLS = ((4.5, ""), (4.5, "blurred"), (1.0, ""))


def generator(seed: int = SEED) -> torch.Generator:
    """On the CPU, as diffusers recommends for pictures that can be drawn again."""
    return torch.Generator("cpu").manual_seed(seed)


def plain_sdxl(folder: Path, scheduler: str, dtype: str) -> Any:
    """SDXL with the scheduler as its documentation configures it; a pipeline of its own."""
    from diffusers import (
        DPMSolverMultistepScheduler,
        EulerDiscreteScheduler,
        StableDiffusionXLPipeline,
    )

    pipe = StableDiffusionXLPipeline.from_pretrained(folder, dtype=getattr(torch, dtype))
    pipe.set_progress_bar_config(disable=True)
    cls = {"euler": EulerDiscreteScheduler, "dpmpp_2m": DPMSolverMultistepScheduler}[scheduler]
    pipe.scheduler = cls.from_config(pipe.scheduler.config)
    return pipe


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_sdxl_draws_what_plain_diffusers_draws(
    sdxl_folder: Path, scheduler: str, dtype: str
) -> None:
    plain = plain_sdxl(sdxl_folder, scheduler, dtype)
    loaded = load_sdxl(ModelRef(source=str(sdxl_folder), dtype=dtype))
    for guidance_scale, negative in CALLS:
        row = make_image_spec(
            sdxl_options(scheduler, guidance_scale, negative), PROMPTS[1], SEED, 0
        )
        (ours,) = generate_images(loaded, [row], 1)
        theirs = plain(
            PROMPTS[1],
            negative_prompt=negative or None,
            num_inference_steps=STEPS,
            guidance_scale=guidance_scale,
            width=64,
            height=64,
            generator=generator(),
        ).images[0]
        assert ours.image is not None
        assert ours.image.tobytes() == theirs.tobytes(), (guidance_scale, negative)


def sdxl_options(scheduler: str, guidance_scale: float, negative: str, size: int = 1) -> Sampling:
    return Sampling(
        scheduler=scheduler,
        num_inference_steps=STEPS,
        guidance_scale=guidance_scale,
        negative_prompt=negative,
        width=64,
        height=64,
        batch_size=size,
    )


def test_a_batch_is_plain_diffusers_batch_of_prompts_encoded_one_by_one(sdxl_folder: Path) -> None:
    """Encoded together, prompts differ in their last bits by their neighbours."""
    plain = plain_sdxl(sdxl_folder, "euler", "float32")
    loaded = load_sdxl(ModelRef(source=str(sdxl_folder)))
    options = sdxl_options("euler", 4.5, "", len(PROMPTS))
    rows = [make_image_spec(options, p, SEED + n, n) for n, p in enumerate(PROMPTS)]
    ours = [one.image for one in generate_images(loaded, rows, len(PROMPTS))]
    encoded = [plain.encode_prompt(prompt) for prompt in PROMPTS]
    embeds, negative, pooled, negative_pooled = (
        torch.cat([one[part] for one in encoded]) for part in range(4)
    )
    theirs = plain(
        prompt_embeds=embeds,
        negative_prompt_embeds=negative,
        pooled_prompt_embeds=pooled,
        negative_pooled_prompt_embeds=negative_pooled,
        num_inference_steps=STEPS,
        guidance_scale=4.5,
        width=64,
        height=64,
        generator=[generator(row.seed) for row in rows],
    ).images
    assert [one.tobytes() for one in ours if one] == [one.tobytes() for one in theirs]


@pytest.fixture(scope="module", params=[False, True], ids=["without T5", "with T5"])
def sd3_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "sd3"
    make_sd3(folder, with_t5=request.param)
    return folder


@pytest.mark.parametrize("dtype", DTYPES)
def test_sd3_draws_what_plain_diffusers_draws(sd3_folder: Path, dtype: str) -> None:
    from diffusers import StableDiffusion3Pipeline

    loaded = load_sd3(ModelRef(source=str(sd3_folder), dtype=dtype))
    absent = {"text_encoder_3": None, "tokenizer_3": None}
    has_t5 = (sd3_folder / "text_encoder_3").is_dir()
    plain = StableDiffusion3Pipeline.from_pretrained(
        sd3_folder, dtype=getattr(torch, dtype), **({} if has_t5 else absent)
    )
    plain.set_progress_bar_config(disable=True)
    for guidance_scale, negative in CALLS:
        row = initial_image_spec(PROMPTS[1], SEED, 0, 1, STEPS, guidance_scale, 64, 64, negative)
        (ours,) = generate_initial_images(loaded, [row], 1)
        theirs = plain(
            PROMPTS[1],
            negative_prompt=negative or None,
            num_inference_steps=STEPS,
            guidance_scale=guidance_scale,
            width=64,
            height=64,
            max_sequence_length=loaded.max_sequence_length,
            generator=generator(),
        ).images[0]
        assert ours.image is not None
        assert ours.image.tobytes() == theirs.tobytes(), (guidance_scale, negative)
