"""Image-to-image with SDXL: gives a render the generator's look, by VAE or light re-noising.

Judges are trained on renders but score generated images. Re-noised lightly, a render looks
generated and still shows the same, so that its labels stay true.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from PIL import Image

from hoi_assets.engines.diffusion_pipeline import (
    inference,
    prompt_embeddings,
    set_decode_slicing,
    tensor_to_images,
    upcast_vae,
)
from hoi_assets.engines.long_prompts import grouped
from hoi_assets.engines.out_of_memory import in_fitting_parts
from hoi_assets.engines.sdxl.loading import LoadedSDXL
from hoi_assets.engines.sdxl.sampling import activate_lora, temporary_scheduler
from hoi_assets.engines.seeds import generator
from hoi_assets.errors import HoiError
from hoi_assets.settings import Sampling

IMAGE_TO_IMAGE = "image to image"  # kind of work, for `settle_batch_size`


def round_trip(
    loaded: LoadedSDXL, images: Sequence[Image.Image], sampling: Sampling, batch_size: int
) -> Iterator[Image.Image]:
    """Each image encoded (mode of the posterior) and decoded by the VAE, at the sampling size.

    Raises:
        HoiError: the VAE gives NaN or infinity.
    """

    vae = loaded.pipe.vae

    def run(places: list[int | None]) -> list[Image.Image | None]:
        with inference(loaded), upcast_vae(loaded):
            pixels = _pixels(loaded, [images[one] for one in _filled(places)], sampling)
            decoded = vae.decode(vae.encode(pixels).latent_dist.mode()).sample
        return tensor_to_images((decoded / 2 + 0.5).clamp(0, 1))

    set_decode_slicing(loaded, sampling.width, sampling.height)
    for start in range(0, len(images), batch_size):
        batch = range(start, min(start + batch_size, len(images)))
        yield from _in_batch(loaded, batch, run, sampling, batch_size)


def renoise(
    loaded: LoadedSDXL,
    images: Sequence[Image.Image],
    captions: Sequence[str],
    seeds: Sequence[int],
    strength: float,
    sampling: Sampling,
    batch_size: int,
) -> Iterator[Image.Image]:
    """Each image noised to `strength` and denoised by the base model under its caption.

    SDEdit (arXiv 2108.01073), by diffusers' image-to-image pipeline. Deterministic per image,
    caption and seed; batches always hold `batch_size`.

    Args:
        seeds: one per image, for its noise.
        strength: share of the denoising steps that is run, in [0, 1); 0 is the VAE round trip.

    Raises:
        HoiError: the model gives NaN or infinity.
    """
    from diffusers import StableDiffusionXLImg2ImgPipeline

    if not len(images) == len(captions) == len(seeds):
        raise ValueError(f"{len(images)} images, {len(captions)} captions, {len(seeds)} seeds")
    if strength * sampling.num_inference_steps < 1:
        yield from round_trip(loaded, images, sampling, batch_size)
        return
    activate_lora(loaded, None)
    set_decode_slicing(loaded, sampling.width, sampling.height)
    with temporary_scheduler(loaded, sampling.scheduler):
        pipe = StableDiffusionXLImg2ImgPipeline(**loaded.pipe.components, add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    places = grouped(
        range(len(images)), lambda one: loaded.chunks(captions[one], sampling.negative_prompt)
    )
    pictures: dict[int, Image.Image] = {}

    def run(batch: list[int | None]) -> list[Image.Image | None]:
        padded = _filled(batch)
        with inference(loaded):
            decoded = pipe(
                **prompt_embeddings(
                    loaded,
                    [captions[one] for one in padded],
                    [sampling.negative_prompt] * len(padded),
                    guided=sampling.guidance_scale > 1,
                ),
                image=(_pixels(loaded, [images[one] for one in padded], sampling) + 1) / 2,
                strength=strength,
                num_inference_steps=sampling.num_inference_steps,
                guidance_scale=sampling.guidance_scale,
                generator=[generator(seeds[one]) for one in padded],
                output_type="pt",
            ).images
        return tensor_to_images(decoded)

    for batch in (
        some[n : n + batch_size] for some in places for n in range(0, len(some), batch_size)
    ):
        drawn = _in_batch(loaded, batch, run, sampling, batch_size)
        pictures |= zip(batch, drawn, strict=True)
        if len(places) == 1:  # else the pictures of several groups are put in order first
            yield from (pictures.pop(one) for one in batch)
    yield from (pictures[one] for one in sorted(pictures))


def _in_batch(
    loaded: LoadedSDXL,
    batch: Sequence[int],
    run: Callable[[list[int | None]], list[Image.Image | None]],
    sampling: Sampling,
    batch_size: int,
) -> list[Image.Image]:
    """The pictures at the places of a batch, which is filled up to the batch size.

    Raises:
        HoiError: one is not finite, or not even one fits into memory.
    """
    _, parts = in_fitting_parts(
        [*batch, *[None] * (batch_size - len(batch))],
        run,
        loaded.batch_limits,
        (IMAGE_TO_IMAGE, sampling.width, sampling.height),
        f"image of {sampling.width}x{sampling.height} px",
    )
    pictures = [picture for _, part in parts for picture in part][: len(batch)]
    for place, picture in zip(batch, pictures, strict=True):
        if picture is None:
            raise HoiError(
                f"re-noising image {place} gave NaN or infinity",
                "lower the strength, or use dtype float32 for the base model",
            )
    return [picture for picture in pictures if picture is not None]


def _filled(places: Sequence[int | None]) -> list[int]:
    """Empty places, which are at the end, filled by the last one's."""
    last = max(place for place in places if place is not None)
    return [last if place is None else place for place in places]


def _pixels(loaded: LoadedSDXL, images: Sequence[Image.Image], sampling: Sampling) -> Any:
    """A tensor (n, 3, height, width) in [-1, 1] on the model's device."""
    pixels = loaded.pipe.image_processor.preprocess(
        [image.convert("RGB") for image in images], height=sampling.height, width=sampling.width
    )
    return pixels.to(loaded.device, loaded.pipe.vae.dtype)
