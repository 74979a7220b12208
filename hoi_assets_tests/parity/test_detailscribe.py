"""The published DetailScribe procedure, one full run per switch step with a callback that switches
the prompt, draws the pictures that `redenoising.s_reference` branches off one initial run.

Written after the description of the authors' code (arXiv 2504.08714, gxy000/DetailScribe): one
picture a call, the T5 part of every prompt 512 tokens long. The callback of switch step s runs
after step s, counted from 0, encodes the corrected prompt and replaces `prompt_embeds` alone, so
that the pooled embedding stays the original prompt's. Switch step 0 is a plain run.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from hoi_assets.engines.sd3.compute import initial_image_spec
from hoi_assets.engines.sd3.loading import LoadedSD3, load_sd3
from hoi_assets.engines.sd3.redenoising import (
    Redenoising,
    generate_initial_images,
    generate_variants,
)
from hoi_assets.settings import ModelRef
from hoi_assets.store.weights import model_digest
from hoi_assets_tests.engines.small_sd3 import make_sd3

STEPS, GUIDANCE, SEED = 6, 4.5, 2628670643
SWITCH_STEPS = (0, 1, 2, 4, STEPS - 1)
PROMPT = "a left hand holds a blue mug"
CORRECTED = f"{PROMPT}. The hand has five fingers."
PUBLISHED_TOKENS = 512


@pytest.fixture(scope="module", params=[False, True], ids=["without T5", "with T5"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedSD3:
    folder = tmp_path_factory.mktemp("models") / "sd3"
    make_sd3(folder, with_t5=request.param)
    return load_sd3(ModelRef(source=str(folder), max_sequence_length=PUBLISHED_TOKENS))


def published(pipe: Any, switch_step: int | None) -> Image.Image:
    """The authors' picture of one switch step; None: their initial picture."""

    def switch(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if step == switch_step:
            embeds, negative, _, _ = pipe.encode_prompt(
                CORRECTED, None, None, max_sequence_length=PUBLISHED_TOKENS
            )
            tensors["prompt_embeds"] = torch.cat([negative, embeds], dim=0)
        return tensors

    found: Image.Image = pipe(
        CORRECTED if switch_step == 0 else PROMPT,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        max_sequence_length=PUBLISHED_TOKENS,
        width=64,
        height=64,
        generator=torch.Generator("cpu").manual_seed(SEED),
        callback_on_step_end=switch if switch_step else None,
        callback_on_step_end_tensor_inputs=["latents", "prompt_embeds"],
    ).images[0]
    return found


def test_published_procedure_is_reproduced_bit_for_bit(loaded: LoadedSD3) -> None:
    from diffusers import StableDiffusion3Pipeline

    source = Path(loaded.ref.source)
    has_t5 = (source / "text_encoder_3").is_dir()
    absent = {} if has_t5 else {"text_encoder_3": None, "tokenizer_3": None}
    pipe = StableDiffusion3Pipeline.from_pretrained(source, **absent)
    pipe.set_progress_bar_config(disable=True)

    row = initial_image_spec(PROMPT, SEED, 0, 1, STEPS, GUIDANCE, 64, 64)
    (first,) = generate_initial_images(loaded, [row], 1, SWITCH_STEPS, s_reference=True)
    assert first.image is not None
    assert first.image.tobytes() == published(pipe, None).tobytes()
    wanted = Redenoising(row, CORRECTED, first.latents)
    variants = list(generate_variants(loaded, [wanted], 1, SWITCH_STEPS, s_reference=True))
    assert [one.switch_step for one in variants] == list(SWITCH_STEPS)
    for one in variants:
        assert one.image is not None
        assert one.image.tobytes() == published(pipe, one.switch_step).tobytes(), one.switch_step
    # Two of these are alike by the authors' counting: switching after the last step is no switch.
    assert len({one.image.tobytes() for one in variants if one.image}) == len(SWITCH_STEPS)


def test_number_of_tokens_is_part_of_the_models_digest(loaded: LoadedSD3) -> None:
    ref = ModelRef(source=loaded.ref.source)
    assert model_digest(ref) != loaded.digest
    assert loaded.encode(PROMPT)[0].shape[1] == 32 + PUBLISHED_TOKENS
    own = load_sd3(ref)
    has_t5 = own.pipe.text_encoder_3 is not None
    assert own.encode(PROMPT)[0].shape[1] == 32 + (PUBLISHED_TOKENS if has_t5 else 1)
