"""One denoising run of Stable Diffusion 3 over a batch: from noise or from latents under way."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from PIL import Image

from hoi_assets.engines.batch_sizes import DRAW
from hoi_assets.engines.diffusion_pipeline import (
    inference,
    prompt_embeddings,
    set_decode_slicing,
    tensor_to_images,
)
from hoi_assets.engines.image_spec import ImageSpec
from hoi_assets.engines.out_of_memory import in_fitting_parts
from hoi_assets.engines.sd3.compute import SCHEDULER
from hoi_assets.engines.sd3.loading import LoadedSD3
from hoi_assets.engines.seeds import generator
from hoi_assets.errors import HoiError


@dataclass(frozen=True)
class Denoised:
    """What a run gives, by slot.

    Attributes:
        images: None where it is not finite; empty where the run was stopped early.
        latents: by number of steps done, counted from the noise, on the CPU.
        batch_size: of the runs that it took; smaller than asked for where memory was short.
    """

    images: dict[int, Image.Image | None]
    latents: dict[int, dict[int, Any]]
    batch_size: int


def denoise(
    loaded: LoadedSD3,
    rows: Mapping[int, ImageSpec],
    prompts: Mapping[int, str],
    batch_size: int,
    pooled: Mapping[int, str] | None = None,
    start: int = 0,
    latents: Mapping[int, Any] | None = None,
    latents_after: Iterable[int] = (),
    stop: int | None = None,
) -> Denoised:
    """Denoise a batch.

    Args:
        rows: by slot, all of one shape, steps and guidance; the other slots hold a filler.
        pooled: texts of the pooled embeddings; None: the prompts.
        start: steps that `latents` (by slot) have behind them; 0 starts from the rows' noise.
        latents_after: numbers of steps, counted from the noise, after which latents are returned.
        stop: number of steps after which the run ends without decoding.

    Raises:
        HoiError: not even a batch of one fits into memory.
    """
    import torch

    pipe, call = loaded.pipe, next(iter(rows.values()))
    wanted, guided = set(latents_after), call.guidance_scale > 1
    shape = (
        pipe.transformer.config.in_channels,
        call.height // pipe.vae_scale_factor,
        call.width // pipe.vae_scale_factor,
    )

    def run(slots: list[int | None]) -> tuple[list[Image.Image | None], dict[int, Any]]:
        places = [None if slot is None else rows[slot] for slot in slots]
        if latents is None:
            noise = [torch.randn(shape, generator=generator(r.seed if r else 0)) for r in places]
        else:
            noise = [torch.zeros(shape) if slot is None else latents[slot] for slot in slots]
        texts = [None if slot is None else prompts[slot] for slot in slots]
        negatives = [row.negative_prompt if row else None for row in places]
        embeds = prompt_embeddings(loaded, texts, negatives, guided)
        if pooled is not None:
            others = [None if slot is None else pooled[slot] for slot in slots]
            name = "pooled_prompt_embeds"
            embeds[name] = prompt_embeddings(loaded, others, negatives, guided)[name]
        found: dict[int, Any] = {}

        def watch(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            done = start + index + 1
            if done in wanted:
                found[done] = tensors["latents"].detach().cpu().clone()
            if done == stop:
                pipe._interrupt = True  # how diffusers has a callback end a run
            return {}

        dtype = pipe.transformer.dtype
        with _schedule(loaded, call.steps, start) as times, inference(loaded):
            decoded = pipe(
                **embeds,
                **times,
                latents=torch.stack([one.to(dtype) for one in noise]),
                guidance_scale=call.guidance_scale,
                width=call.width,
                height=call.height,
                callback_on_step_end=watch,
                output_type="pt" if stop is None else "latent",
            ).images
        return tensor_to_images(decoded) if stop is None else [], found

    set_decode_slicing(loaded, call.width, call.height)
    size, parts = in_fitting_parts(
        [slot if slot in rows else None for slot in range(batch_size)],
        run,
        loaded.batch_limits,
        (DRAW, call.width, call.height),
        f"image of {call.width}x{call.height} px",
    )
    images: dict[int, Image.Image | None] = {}
    kept: dict[int, dict[int, Any]] = {}
    for first, (pictures, found) in parts:
        images |= {first + n: one for n, one in enumerate(pictures) if first + n in rows}
        for done, whole in found.items():
            kept.setdefault(done, {}).update(
                {first + n: one for n, one in enumerate(whole) if first + n in rows}
            )
    return Denoised(images, kept, size)


@contextmanager
def _schedule(loaded: LoadedSD3, steps: int, start: int) -> Iterator[dict[str, Any]]:
    """Use a fresh scheduler; yields the arguments for its remaining steps."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    own = loaded.pipe.scheduler
    whole = FlowMatchEulerDiscreteScheduler.from_config(own.config)
    times: dict[str, Any] = {"num_inference_steps": steps}
    loaded.pipe.scheduler = whole
    if start:
        whole.set_timesteps(steps)
        times = {"sigmas": whole.sigmas[start:-1].tolist()}
        # Those sigmas are shifted already.
        loaded.pipe.scheduler = FlowMatchEulerDiscreteScheduler(
            num_train_timesteps=own.config.num_train_timesteps
        )
    try:
        yield times
    finally:
        loaded.pipe.scheduler = own


def check_spec(loaded: LoadedSD3, row: ImageSpec, batch_size: int) -> None:
    """Refuse a row that this model cannot generate.

    Raises:
        HoiError: names what is wrong with it.
    """
    transformer = loaded.pipe.transformer.config
    side = loaded.pipe.vae_scale_factor * transformer.patch_size
    if not 0 <= row.slot < batch_size:
        raise HoiError(
            f"row {row.prompt!r} has slot {row.slot}, outside a batch of {batch_size}",
            "set the batch size to the one that the row was generated with",
        )
    if row.width % side or row.height % side:
        raise HoiError(
            f"image size {row.width}x{row.height} is not a multiple of {side}",
            "change the width and height of the row",
        )
    if max(row.width, row.height) > transformer.pos_embed_max_size * side:
        raise HoiError(
            f"image size {row.width}x{row.height} is beyond the model's "
            f"{transformer.pos_embed_max_size * side}",
            "change the width and height of the row",
        )
    if row.scheduler != SCHEDULER:
        raise HoiError(f"unknown scheduler {row.scheduler!r}", f"name {SCHEDULER}")
    if row.lora is not None:
        raise HoiError("LoRA is not supported for Stable Diffusion 3", "remove it from the row")
    if loaded.pipe.scheduler.config.use_dynamic_shifting:
        raise HoiError(
            f"model {loaded.ref.source!r} shifts its noise schedule by the image size",
            "use a Stable Diffusion 3 or 3.5 model with a fixed shift",
        )
