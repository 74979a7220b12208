"""Draws one image again, alone, from its row, and compares the pixels."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hoi_assets.cli.image_trace import BENCHMARK_IN, find_image
from hoi_assets.cli.replay_other import Again, draw_by_other, other_model
from hoi_assets.detailscribe.benchmark_images import benchmark_model
from hoi_assets.detailscribe.image_rows import ENDPOINT, drawn_row
from hoi_assets.engines.image_spec import ImageSpec, Lora
from hoi_assets.errors import HoiError
from hoi_assets.hashing import digest_pixels
from hoi_assets.ppv.round_loras import published_loras
from hoi_assets.settings import ModelRef, Settings
from hoi_assets.store.versions import Store
from hoi_assets.store.weights import model_digest

if TYPE_CHECKING:
    from PIL import Image

LORA_ASSETS = ("category_loras", "finetuned_model")


@dataclass(frozen=True)
class Replay:
    """An image drawn again.

    Attributes:
        image: as drawn now.
        equal: whether its pixels are the recorded ones.
        largest_difference: of a pixel value (0..255) to the stored image; None where that is gone.
        differences: (recorded, now) of each property of the environment that differs, e.g. threads.
    """

    image: "Image.Image"
    equal: bool
    largest_difference: int | None
    differences: dict[str, tuple[Any, Any]]


def replay_image(store: Store, settings: Settings, image_id: str) -> Replay:
    """Draw an image of either pipeline again, alone.

    Raises:
        HoiError: no such image, it was never drawn, it came from an image endpoint, or its model or
            LoRA is not there.
    """
    import numpy as np

    from hoi_assets.engines.image_writing import ENVIRONMENT

    found = find_image(store, image_id)
    row = found.row
    if row["pixels"] is None:
        raise HoiError(
            f"image {image_id} was never drawn: {row['reason'] or 'reason unknown'}",
            "choose another",
        )
    if row.get("method") == ENDPOINT:
        raise HoiError(
            f"image {image_id} is of an image endpoint ({row['why']}) and cannot be drawn again",
            f"it is stored at {store.images.path(row['pixels'])}; replay one of another method",
        )
    of_benchmark = found.published.asset in BENCHMARK_IN
    name = "benchmark" if of_benchmark else "base"
    ref = benchmark_model(settings) if of_benchmark else settings.models.base
    other = other_model(settings, found)
    if other is not None:
        name, ref = other
    base = model_digest(ref)
    if base != row["base_digest"]:
        raise HoiError(
            f"image {image_id} was drawn by model {row['base_digest'][:12]}, but the profile "
            f"names {base[:12]} as models.{name}",
            f"set models.{name} to the model it was drawn by, or check out its weights",
        )
    if other is not None:
        image, reason, now = draw_by_other(store, settings, ref, found)
    else:
        again = _by_sd3 if of_benchmark else _by_sdxl
        image, reason, now = again(store, settings, ref, row)
    if image is None:
        raise HoiError(f"image {image_id} could not be drawn: {reason}", "run it again")
    largest = None
    if not store.images.missing([row["pixels"]]):
        before = np.asarray(store.images.open(row["pixels"]), dtype=np.int16)
        largest = int(np.abs(before - np.asarray(image, dtype=np.int16)).max())
    return Replay(
        image=image,
        equal=digest_pixels(image) == row["pixels"],
        largest_difference=largest,
        differences={
            name: (row[name], now[name]) for name in ENVIRONMENT if row[name] != now[name]
        },
    )


def _by_sdxl(store: Store, settings: Settings, ref: ModelRef, row: dict[str, Any]) -> Again:
    from hoi_assets.engines.device import configure_torch
    from hoi_assets.engines.sdxl.loading import load_sdxl
    from hoi_assets.engines.sdxl.sampling import generate_images

    loaded = load_sdxl(ref, configure_torch(settings))
    again = ImageSpec(
        prompt=row["drawn_prompt"],
        seed=row["seed"],
        slot=row["slot"],
        steps=row["num_inference_steps"],
        guidance_scale=row["guidance_scale"],
        scheduler=row["scheduler"],
        width=row["width"],
        height=row["height"],
        negative_prompt=row["negative_prompt"],
        lora=find_lora(store, row["lora_digest"]) if row["lora_digest"] else None,
    )
    (drawn,) = generate_images(loaded, [again], row["batch_size"])
    return drawn.image, drawn.reason, loaded.environment(row["batch_size"])


def _by_sd3(store: Store, settings: Settings, ref: ModelRef, row: dict[str, Any]) -> Again:
    from hoi_assets.engines.device import configure_torch
    from hoi_assets.engines.sd3.loading import load_sd3
    from hoi_assets.engines.sd3.redenoising import (
        Redenoising,
        generate_initial_images,
        generate_variants,
    )

    loaded = load_sd3(ref, configure_torch(settings))
    again, size = drawn_row(row), row["batch_size"]
    if row["switch_step"] is None:
        (initial,) = generate_initial_images(loaded, [again], size)
        return initial.image, initial.reason, loaded.environment(size)
    one = Redenoising(again, row["corrected_prompt"])
    (variant,) = generate_variants(loaded, [one], size, (row["switch_step"],), row["s_reference"])
    return variant.image, variant.reason, loaded.environment(size)


def find_lora(store: Store, digest: str) -> Lora:
    """The LoRA of a digest, among all versions that are not pruned.

    Raises:
        HoiError: none has that digest.
    """
    for asset in LORA_ASSETS:
        partitions: list[str | None] = [*store.partitions(asset)]
        for partition in partitions or [None]:
            for one in store.history(asset, partition):
                if not one.is_stored():
                    continue
                if digest in (loras := published_loras(one)):
                    return loras[digest]
    raise HoiError(
        f"LoRA {digest[:12]} is in no stored version of {' or '.join(LORA_ASSETS)}",
        "it was pruned; materialise category_loras with the same inputs to train it again",
    )
