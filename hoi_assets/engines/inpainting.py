"""Draws part of an image again: Stable Diffusion 3 and SDXL by diffusers' inpainting pipelines.

They are built from the components of a pipeline that is in memory; nothing is loaded twice. As
everywhere, an image has its own noise and a batch a fixed shape (see `image_spec`). What lies
outside of the mask keeps its pixels.
"""

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from PIL import Image

from hoi_assets.engines.diffusion_pipeline import (
    PromptedPipeline,
    prompt_embeddings,
    set_decode_slicing,
    tensor_to_images,
)
from hoi_assets.engines.image_spec import ImageSpec, batches_by_slot, image_key
from hoi_assets.engines.out_of_memory import SMALLER_MODEL, naming_out_of_memory
from hoi_assets.engines.pipeline_files import read_index
from hoi_assets.engines.sd3.loading import load_sd3
from hoi_assets.engines.sdxl.loading import LoadedSDXL, load_sdxl
from hoi_assets.engines.sdxl.sampling import activate_lora, make_scheduler
from hoi_assets.engines.seeds import generator
from hoi_assets.errors import HoiError
from hoi_assets.hashing import digest
from hoi_assets.settings import ModelRef

SDXL_PIPELINE = "StableDiffusionXLPipeline"
INPAINTING_VERSION = "1"  # part of every key: raise it when the pixels change
OpenImage = Callable[[str], Image.Image]
# Latent channels of the models that the pipelines were written for. They refuse others, though
# nothing that they compute depends on the number.
SD3_CHANNELS, SDXL_CHANNELS = 16, 4


def is_sdxl(ref: ModelRef) -> bool:
    """Whether a repairing model is a Stable Diffusion XL, by its index; else it is a 3.

    Raises:
        HoiError: its index cannot be read.
    """
    return bool(read_index(ref).get("_class_name") == SDXL_PIPELINE)


def load_inpainting_model(ref: ModelRef, device: str = "cpu") -> PromptedPipeline:
    """A Stable Diffusion 3 or SDXL pipeline, from the model cache where it is in memory already.

    Raises:
        HoiError: as `load_sd3` and `load_sdxl`.
    """
    return load_sdxl(ref, device) if is_sdxl(ref) else load_sd3(ref, device)


@dataclass(frozen=True)
class InpaintSpec:
    """All that determines an image of which a part was drawn again, except model and environment.

    Attributes:
        row: prompt, seed and sampling of the new part.
        picture: digest of the picture that is repaired.
        mask: digest of a grey picture, white where the picture is drawn again.
        steps: how many of `row.steps` are run, the last ones; all of them start from pure noise.
    """

    row: ImageSpec
    picture: str
    mask: str
    steps: int

    @property
    def denoiser_evaluations(self) -> int:
        """Forward passes of the denoiser (NFE)."""
        return self.steps * (2 if self.row.guidance_scale > 1 else 1)


@dataclass(frozen=True)
class InpaintedImage:
    """An image, or the reason why there is none; `seconds` is its share of the batch's time."""

    spec: InpaintSpec
    image: Image.Image | None
    reason: str | None
    seconds: float


def inpaint_key(spec: InpaintSpec, base_digest: str) -> str:
    """Hash of all that determines the image, except slot and environment."""
    return digest(
        {
            "inpainting": INPAINTING_VERSION,
            "row": image_key(spec.row, base_digest),
            "picture": spec.picture,
            "mask": spec.mask,
            "steps": spec.steps,
        }
    )


def inpaint_images(
    loaded: PromptedPipeline,
    specs: Iterable[InpaintSpec],
    batch_size: int,
    open_image: OpenImage,
) -> Iterator[InpaintedImage]:
    """Draw the masked part of each picture again; each is yielded when its batch is finished.

    Args:
        loaded: a Stable Diffusion 3 or SDXL pipeline.
        open_image: a stored picture or mask by its digest.

    Raises:
        HoiError: a slot outside of the batch, a number of steps that cannot be run, or no room on
            the device.
    """
    waiting: dict[tuple[int, ImageSpec], deque[InpaintSpec]] = defaultdict(deque)
    for spec in specs:
        _check(spec, batch_size)
        waiting[spec.steps, spec.row].append(spec)
    for steps in sorted({steps for steps, _ in waiting}):
        rows = [row for (own, row), queue in waiting.items() if own == steps for _ in queue]
        for batch in batches_by_slot(rows, batch_size):
            chosen = {slot: waiting[steps, row].popleft() for slot, row in batch.items()}
            yield from _inpaint_batch(loaded, chosen, batch_size, open_image)


def _check(spec: InpaintSpec, batch_size: int) -> None:
    if not 0 <= spec.row.slot < batch_size:
        raise HoiError(
            f"row {spec.row.prompt!r} has slot {spec.row.slot}, outside a batch of {batch_size}",
            "set the batch size to the one that the row was generated with",
        )
    if not 1 <= spec.steps <= spec.row.steps:
        raise HoiError(
            f"{spec.steps} of {spec.row.steps} denoising steps are to be run",
            "run at least one step, and at most all",
        )


def _inpaint_batch(
    loaded: PromptedPipeline,
    batch: Mapping[int, InpaintSpec],
    batch_size: int,
    open_image: OpenImage,
) -> Iterator[InpaintedImage]:
    import torch

    begin = time.perf_counter()
    first = next(iter(batch.values()))
    call, size = first.row, (first.row.width, first.row.height)
    pictures = {slot: _sized(open_image(one.picture), size) for slot, one in batch.items()}
    masks = {slot: mask_of_size(open_image(one.mask), size) for slot, one in batch.items()}
    places = [batch.get(slot) for slot in range(batch_size)]
    empty = Image.new("RGB", size), Image.new("L", size)
    set_decode_slicing(loaded, *size)
    what = f"a repair of {batch_size} images of {call.width}x{call.height} px"
    with (
        _pipeline(loaded, call.scheduler) as pipe,
        torch.no_grad(),
        naming_out_of_memory(what, f"lower the batch size, or {SMALLER_MODEL}"),
    ):
        found = pipe(
            **prompt_embeddings(
                loaded,
                [one.row.prompt if one else None for one in places],
                [one.row.negative_prompt if one else None for one in places],
                guided=call.guidance_scale > 1,
            ),
            image=[pictures.get(slot, empty[0]) for slot in range(batch_size)],
            mask_image=[masks.get(slot, empty[1]) for slot in range(batch_size)],
            generator=[generator(one.row.seed if one else 0) for one in places],
            strength=_strength(loaded, first.steps, call.steps),
            num_inference_steps=call.steps,
            guidance_scale=call.guidance_scale,
            width=call.width,
            height=call.height,
            output_type="pt" if isinstance(loaded, LoadedSDXL) else "latent",
        ).images
        decoded = found if isinstance(loaded, LoadedSDXL) else _decode_sd3(pipe, found)
    images = tensor_to_images(decoded)
    seconds = (time.perf_counter() - begin) / len(batch)
    for slot, one in batch.items():
        image = images[slot]
        if image is None:
            reason = "not_finite: the model gave NaN or infinity"
            yield InpaintedImage(one, None, reason, seconds)
        else:
            whole = Image.composite(image, pictures[slot], masks[slot])
            yield InpaintedImage(one, whole, None, seconds)


def mask_of_size(mask: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A mask in black and white at `size`."""
    resized = mask.convert("L").resize(size, Image.Resampling.NEAREST)
    return resized.point(lambda value: 255 if value >= 128 else 0)


def _sized(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    picture = picture.convert("RGB")
    return picture if picture.size == size else picture.resize(size, Image.Resampling.LANCZOS)


def _strength(loaded: PromptedPipeline, steps: int, of: int) -> float:
    """The pipelines' `strength` that runs `steps` steps: SDXL's rounds down, SD3's up."""
    if steps == of:
        return 1.0
    return (steps + (0.5 if isinstance(loaded, LoadedSDXL) else -0.5)) / of


@contextmanager
def _pipeline(loaded: PromptedPipeline, scheduler: str) -> Iterator[Any]:
    """The inpainting pipeline on the loaded weights, with a fresh scheduler."""
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        StableDiffusion3InpaintPipeline,
        StableDiffusionXLInpaintPipeline,
    )

    parts = loaded.pipe.components
    if isinstance(loaded, LoadedSDXL):
        activate_lora(loaded, None)
        parts = {**parts, "scheduler": make_scheduler(loaded, scheduler)}
        pipe: Any = StableDiffusionXLInpaintPipeline(**parts, add_watermarker=False)
        channels = SDXL_CHANNELS
    else:
        fresh = FlowMatchEulerDiscreteScheduler.from_config(loaded.pipe.scheduler.config)
        pipe = StableDiffusion3InpaintPipeline(**{**parts, "scheduler": fresh})
        channels = SD3_CHANNELS
    pipe.set_progress_bar_config(disable=True)
    denoiser, own = loaded.denoiser, loaded.denoiser.config.in_channels
    if own != loaded.pipe.vae.config.latent_channels:
        raise HoiError(
            f"model {loaded.ref.source!r} takes {own} channels, its VAE gives "
            f"{loaded.pipe.vae.config.latent_channels}",
            "use a text-to-image model, not one that was trained for inpainting",
        )
    denoiser.register_to_config(in_channels=channels)
    try:
        yield pipe
    finally:
        denoiser.register_to_config(in_channels=own)


def _decode_sd3(pipe: Any, latents: Any) -> Any:
    """Images (n, 3, height, width) in [0, 1]; diffusers' pipeline leaves out the shift here."""
    config = pipe.vae.config
    shifted = latents / config.scaling_factor + config.shift_factor
    decoded = pipe.vae.decode(shifted.to(pipe.vae.dtype), return_dict=False)[0]
    return pipe.image_processor.postprocess(decoded, output_type="pt")
