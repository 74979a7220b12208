"""Draws part of an image again: Stable Diffusion 3 and SDXL by diffusers' inpainting pipelines.

They are built from the components of a pipeline that is in memory; nothing is loaded twice. As
everywhere, an image has its own noise and a batch a fixed shape (see `image_spec`). What lies
outside of the mask keeps its pixels.
"""

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from PIL import Image

from hoi_assets.engines.batch_sizes import TRIED_STEPS
from hoi_assets.engines.diffusion_pipeline import (
    PromptedPipeline,
    inference,
    prompt_embeddings,
    set_decode_slicing,
    tensor_to_images,
)
from hoi_assets.engines.image_spec import ImageSpec, batches_by_slot, image_key
from hoi_assets.engines.long_prompts import grouped
from hoi_assets.engines.out_of_memory import in_fitting_parts
from hoi_assets.engines.pipeline_files import read_index
from hoi_assets.engines.sd3.loading import load_sd3
from hoi_assets.engines.sdxl.loading import LoadedSDXL, load_sdxl
from hoi_assets.engines.sdxl.sampling import activate_lora, make_scheduler
from hoi_assets.engines.seeds import generator
from hoi_assets.errors import HoiError
from hoi_assets.hashing import digest
from hoi_assets.settings import ModelRef

INPAINT = "inpaint"  # kind of work, for `settle_batch_size`
NOT_FINITE = "not_finite: the model gave NaN or infinity"
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
    """An image, or the reason why there is none.

    Attributes:
        seconds: its share of the batch's time.
        batch_size: places of the batch that it was drawn in; smaller than asked for where memory
            was short. Its own is the row's slot modulo that.
    """

    spec: InpaintSpec
    image: Image.Image | None
    reason: str | None
    seconds: float
    batch_size: int


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
        alike = grouped(rows, lambda row: loaded.chunks(row.prompt, row.negative_prompt))
        for batch in chain.from_iterable(batches_by_slot(some, batch_size) for some in alike):
            chosen = {slot: waiting[steps, row].popleft() for slot, row in batch.items()}
            yield from _inpaint_batch(loaded, chosen, batch_size, open_image)


def try_repair_batch(
    loaded: PromptedPipeline, spec: InpaintSpec, size: int, open_image: OpenImage
) -> None:
    """Draw a full batch of repairs like `spec`, to see whether it fits (`settle_batch_size`)."""
    row = replace(spec.row, steps=min(spec.row.steps, TRIED_STEPS))
    specs = [replace(spec, row=replace(row, slot=slot), steps=1) for slot in range(size)]
    deque(inpaint_images(loaded, specs, size, open_image), maxlen=0)


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
    begin = time.perf_counter()
    call = next(iter(batch.values())).row
    width, height = call.width, call.height
    set_decode_slicing(loaded, width, height)
    with _pipeline(loaded, call.scheduler) as pipe:
        size, parts = in_fitting_parts(
            [batch.get(slot) for slot in range(batch_size)],
            lambda places: _draw(loaded, pipe, places, open_image),
            loaded.batch_limits,
            (INPAINT, width, height),
            f"repaired image of {width}x{height} px",
        )
    seconds = (time.perf_counter() - begin) / len(batch)
    for start, images in parts:
        for place, image in enumerate(images):
            one = batch.get(start + place)
            if one is not None:
                yield InpaintedImage(one, image, None if image else NOT_FINITE, seconds, size)


def _draw(
    loaded: PromptedPipeline,
    pipe: Any,
    places: Sequence[InpaintSpec | None],
    open_image: OpenImage,
) -> list[Image.Image | None]:
    """The picture at each place with its masked part drawn again; None: empty, or not finite."""
    first = next(one for one in places if one is not None)
    call, size = first.row, (first.row.width, first.row.height)
    pictures = [
        _sized(open_image(one.picture), size) if one else Image.new("RGB", size) for one in places
    ]
    masks = [
        mask_of_size(open_image(one.mask), size) if one else Image.new("L", size) for one in places
    ]
    with inference(loaded):
        found = pipe(
            **prompt_embeddings(
                loaded,
                [one.row.prompt if one else None for one in places],
                [one.row.negative_prompt if one else None for one in places],
                guided=call.guidance_scale > 1,
            ),
            image=pictures,
            mask_image=masks,
            generator=[generator(one.row.seed if one else 0) for one in places],
            strength=_strength(loaded, first.steps, call.steps),
            num_inference_steps=call.steps,
            guidance_scale=call.guidance_scale,
            width=call.width,
            height=call.height,
            output_type="pt" if isinstance(loaded, LoadedSDXL) else "latent",
        ).images
        decoded = found if isinstance(loaded, LoadedSDXL) else _decode_sd3(pipe, found)
    return [
        Image.composite(image, picture, mask) if one and image else None
        for one, image, picture, mask in zip(
            places, tensor_to_images(decoded), pictures, masks, strict=True
        )
    ]


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
