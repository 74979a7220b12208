"""Generates images with SDXL in batches of one shape, so that each depends on its own
specification alone (see `image_spec`); empty slots hold a filler."""

import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hoi_assets.engines.batch_sizes import DRAW, TRIED_STEPS
from hoi_assets.engines.diffusion_pipeline import (
    inference,
    prompt_embeddings,
    set_decode_slicing,
    tensor_to_images,
)
from hoi_assets.engines.image_spec import (
    GeneratedImage,
    ImageSpec,
    Lora,
    batches_by_slot,
    slot_of,
)
from hoi_assets.engines.long_prompts import grouped
from hoi_assets.engines.out_of_memory import in_fitting_parts
from hoi_assets.engines.sdxl.loading import TEXT_ENCODERS, LoadedSDXL
from hoi_assets.engines.seeds import generator
from hoi_assets.errors import HoiError
from hoi_assets.hashing import digest_file
from hoi_assets.settings import Sampling

LORA_FILE = "pytorch_lora_weights.safetensors"
LORA_PARTS = tuple(f"{part}." for part in ("unet", *TEXT_ENCODERS))
MAX_ADAPTERS = 16
NOT_FINITE = "not_finite: the model gave NaN or infinity"


def make_image_spec(
    sampling: Sampling,
    prompt: str,
    seed: int,
    position: int,
    lora: Lora | None = None,
    avoid: str = "",
) -> ImageSpec:
    """The specification for `prompt` under the settings.

    Args:
        position: in its table; fixes the slot.
        avoid: negative prompt of this image, besides the settings'.
    """
    return ImageSpec(
        prompt=prompt,
        seed=seed,
        slot=slot_of(position, sampling.batch_size),
        steps=sampling.num_inference_steps,
        guidance_scale=sampling.guidance_scale,
        scheduler=sampling.scheduler,
        width=sampling.width,
        height=sampling.height,
        negative_prompt=", ".join(filter(None, (sampling.negative_prompt, avoid))),
        lora=lora,
    )


def lora_digest(folder: str | Path) -> str:
    """Hash of the LoRA's file in `folder`.

    Raises:
        HoiError: the folder holds no LoRA.
    """
    path = Path(folder) / LORA_FILE
    if not path.is_file():
        raise HoiError(f"LoRA file missing: {path}", "materialise category_loras again")
    return digest_file(path)


def generate_images(
    loaded: LoadedSDXL, rows: Iterable[ImageSpec], batch_size: int
) -> Iterator[GeneratedImage]:
    """Generate the images of `rows`; each is yielded as soon as its batch is finished.

    Args:
        batch_size: number of slots; the bits depend on it.

    Raises:
        HoiError: before the first batch, for a row that this model cannot generate.
    """
    rows = list(rows)
    for row in rows:
        _check(loaded, row, batch_size)
    return _generate_all(loaded, rows, batch_size)


def try_batch(loaded: LoadedSDXL, row: ImageSpec, size: int) -> None:
    """Draw a full batch of images like `row`, to see whether it fits (`settle_batch_size`)."""
    steps = min(row.steps, TRIED_STEPS)
    rows = [replace(row, slot=slot, steps=steps) for slot in range(size)]
    deque(generate_images(loaded, rows, size), maxlen=0)


def make_scheduler(loaded: LoadedSDXL, name: str) -> Any:
    """A fresh scheduler with the model's noise schedule.

    Args:
        name: `euler` or `dpmpp_2m` (DPM-Solver++ 2M).
    """
    from diffusers import DPMSolverMultistepScheduler, EulerDiscreteScheduler

    config = loaded.pipe.scheduler.config
    if name == "euler":
        return EulerDiscreteScheduler.from_config(config)
    if name == "dpmpp_2m":
        return DPMSolverMultistepScheduler.from_config(
            config, algorithm_type="dpmsolver++", solver_order=2, solver_type="midpoint"
        )
    raise HoiError(f"unknown scheduler {name!r}", "use one of: euler, dpmpp_2m")


def activate_lora(loaded: LoadedSDXL, lora: Lora | None) -> None:
    """Make `lora` the only active adapter; None is the base model, bit for bit.

    Adapters are never fused: unfusing leaves rounding errors in the base model.

    Raises:
        HoiError: the folder is gone, or its file is not the one that `lora.digest` names.
    """
    pipe = loaded.pipe
    if lora is None:
        loaded.text_adapter = ""
        if loaded.adapters:
            pipe.disable_lora()
        return
    if lora.digest not in loaded.adapters:
        _load_adapter(loaded, lora)
    loaded.adapters.move_to_end(lora.digest)
    pipe.enable_lora()
    pipe.set_adapters(loaded.adapters[lora.digest])
    _switch_text_encoders(loaded, loaded.adapters[lora.digest])


def _switch_text_encoders(loaded: LoadedSDXL, name: str) -> None:
    """Turn other LoRAs off on text encoders that this one leaves alone."""
    from diffusers.loaders.lora_base import disable_lora_for_text_encoder

    loaded.text_adapter = ""
    for part in TEXT_ENCODERS:
        encoder = getattr(loaded.pipe, part)
        if name in (getattr(encoder, "peft_config", None) or {}):
            loaded.text_adapter = name
        else:
            disable_lora_for_text_encoder(encoder)


def _load_adapter(loaded: LoadedSDXL, lora: Lora) -> None:
    from safetensors import safe_open

    found = lora_digest(lora.folder)
    if found != lora.digest:
        raise HoiError(
            f"LoRA in {lora.folder} has hash {found[:12]}, but {lora.digest[:12]} is wanted",
            "materialise category_loras again, or use the version that is there",
        )
    path = Path(lora.folder) / LORA_FILE
    with safe_open(path, framework="pt") as file:
        if any(not key.startswith(LORA_PARTS) for key in file.keys()):  # noqa: SIM118
            raise HoiError(
                f"{path} changes more than the UNet and the text encoders",
                "use a LoRA in diffusers' layout of these alone",
            )
    while len(loaded.adapters) >= MAX_ADAPTERS:
        _, oldest = loaded.adapters.popitem(last=False)
        loaded.pipe.delete_adapters(oldest)
    name = f"lora_{lora.digest[:16]}"
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "Already found a `peft_config`"
            )  # several adapters at once are intended
            loaded.pipe.load_lora_weights(
                lora.folder, weight_name=LORA_FILE, adapter_name=name, local_files_only=True
            )
    except (ValueError, RuntimeError, OSError) as error:
        raise HoiError(
            f"{path} does not fit the base model {loaded.ref.source!r}: {error}",
            "train the LoRA on this base model",
        ) from error
    loaded.adapters[lora.digest] = name


def _check(loaded: LoadedSDXL, row: ImageSpec, batch_size: int) -> None:
    factor = loaded.pipe.vae_scale_factor
    if not 0 <= row.slot < batch_size:
        raise HoiError(
            f"row {row.prompt!r} has slot {row.slot}, outside a batch of {batch_size}",
            "set sampling.batch_size to the one that the row was generated with",
        )
    if row.width % factor or row.height % factor:
        raise HoiError(
            f"image size {row.width}x{row.height} is not a multiple of {factor}",
            "change sampling.width and sampling.height",
        )
    if row.scheduler not in ("euler", "dpmpp_2m"):
        raise HoiError(f"unknown scheduler {row.scheduler!r}", "use one of: euler, dpmpp_2m")


def _generate_all(
    loaded: LoadedSDXL, rows: list[ImageSpec], batch_size: int
) -> Iterator[GeneratedImage]:
    for alike in grouped(rows, lambda row: loaded.chunks(row.prompt, row.negative_prompt)):
        for batch in batches_by_slot(alike, batch_size):
            yield from _generate_batch(loaded, batch, batch_size)


def _generate_batch(
    loaded: LoadedSDXL, batch: dict[int, ImageSpec], batch_size: int
) -> Iterator[GeneratedImage]:
    call = next(iter(batch.values()))
    activate_lora(loaded, call.lora)
    set_decode_slicing(loaded, call.width, call.height)
    with temporary_scheduler(loaded, call.scheduler):
        size, parts = in_fitting_parts(
            [batch.get(slot) for slot in range(batch_size)],
            lambda places: tensor_to_images(_denoise(loaded, call, places)),
            loaded.batch_limits,
            (DRAW, call.width, call.height),
            f"image of {call.width}x{call.height} px",
        )
    for start, images in parts:
        for place, image in enumerate(images):
            row = batch.get(start + place)
            if row is not None:
                yield GeneratedImage(row, image, None if image else NOT_FINITE, size)


def _denoise(loaded: LoadedSDXL, call: ImageSpec, places: list[ImageSpec | None]) -> Any:
    """Images (n, 3, height, width) in [0, 1]; None is a filler.

    Args:
        call: any of the rows: all have its size, steps and guidance.
    """
    import torch

    pipe = loaded.pipe
    shape = (
        1,
        pipe.unet.config.in_channels,
        call.height // pipe.vae_scale_factor,
        call.width // pipe.vae_scale_factor,
    )
    latents = torch.cat(
        [torch.randn(shape, generator=generator(row.seed if row else 0)) for row in places]
    )
    embeds = prompt_embeddings(
        loaded,
        [row.prompt if row else None for row in places],
        [row.negative_prompt if row else None for row in places],
        guided=call.guidance_scale > 1,
    )
    with inference(loaded):
        return pipe(
            **embeds,
            latents=latents.to(pipe.unet.dtype),
            num_inference_steps=call.steps,
            guidance_scale=call.guidance_scale,
            width=call.width,
            height=call.height,
            output_type="pt",
        ).images


@contextmanager
def temporary_scheduler(loaded: LoadedSDXL, name: str) -> Iterator[None]:
    """Use a fresh scheduler, and restore the pipeline's own afterwards."""
    own = loaded.pipe.scheduler
    loaded.pipe.scheduler = make_scheduler(loaded, name)
    try:
        yield
    finally:
        loaded.pipe.scheduler = own
