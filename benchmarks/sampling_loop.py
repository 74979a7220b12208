"""Loops that draw the same pictures with plain diffusers: what the platform is measured against.

Written as one would by hand, with none of the platform's code.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image


def load(base: Path, lora: Path | None = None, scheduler: str = "dpmpp_2m") -> Any:
    """A plain SDXL pipeline on the CPU in float32, with a LoRA where one is given."""
    import torch
    from diffusers import (
        DPMSolverMultistepScheduler,
        EulerDiscreteScheduler,
        StableDiffusionXLPipeline,
    )

    pipe = StableDiffusionXLPipeline.from_pretrained(
        base, dtype=torch.float32, use_safetensors=True, add_watermarker=False
    )
    config = pipe.scheduler.config
    if scheduler == "euler":
        pipe.scheduler = EulerDiscreteScheduler.from_config(config)
    else:
        pipe.scheduler = DPMSolverMultistepScheduler.from_config(
            config, algorithm_type="dpmsolver++", solver_order=2
        )
    if lora is not None:
        pipe.load_lora_weights(lora)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def batched_loop(
    pipe: Any,
    prompts: Sequence[str],
    seeds: Sequence[int],
    steps: int,
    guidance_scale: float,
    width: int,
    height: int,
    batch_size: int,
) -> list[Image.Image]:
    """All pictures, `batch_size` at a time; prompts of a batch are encoded together."""
    import torch

    images: list[Image.Image] = []
    for start in range(0, len(prompts), batch_size):
        stop = start + batch_size
        images += pipe(
            list(prompts[start:stop]),
            generator=[torch.Generator().manual_seed(seed) for seed in seeds[start:stop]],
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            width=width,
            height=height,
        ).images
    return images
