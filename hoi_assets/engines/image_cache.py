"""Generates only images that are not in the store: every image is found by its key."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, TypeVar

from hoi_assets.engines.batch_map import Compute, map_batches
from hoi_assets.engines.batch_sizes import recorded_at_once
from hoi_assets.engines.drawing import lora_folders, noting_limits, with_batch_size, work_of
from hoi_assets.engines.image_spec import ImageSpec, batches_of_rows, image_key
from hoi_assets.engines.image_writing import (
    DEVIATION_KIND,
    ENVIRONMENT,
    KIND,
    SECONDS_KIND,
    ImageWriter,
    NewImage,
)
from hoi_assets.engines.text_tokens import (
    TokenCount,
    cached_token_counts,
    encoder_values,
    log_cut,
)
from hoi_assets.progress import Log, track
from hoi_assets.settings import Settings
from hoi_assets.store.versions import Store
from hoi_assets.taxonomy import ID_LENGTH


@dataclass(frozen=True)
class StoredImage:
    """An image as the ledger records it.

    Attributes:
        pixels: digest of the pixels; None where generating it failed.
        pixel_std: largest standard deviation of a colour channel (0..255); about 0 is a blank
            image.
        environment: batch size, dtype, device, threads, CPU capability, and the slot.
        reason: why there is no image.
    """

    pixels: str | None
    pixel_std: float | None
    environment: dict[str, Any]
    reason: str | None = None


@dataclass(frozen=True)
class CachedImage:
    """A row's image, as it was first generated.

    Attributes:
        image_id: first 16 hex digits of the image's key.
        base_digest: hash of the base model.
    """

    row: ImageSpec
    image_id: str
    base_digest: str
    stored: StoredImage

    @property
    def pixels(self) -> str | None:
        """Digest of the pixels; None where generating the image failed."""
        return self.stored.pixels

    def as_record(self) -> dict[str, Any]:
        """The columns of a table row; `hoi replay` generates the image again from them."""
        return {
            "image_id": self.image_id,
            "drawn_prompt": self.row.prompt,
            "negative_prompt": self.row.negative_prompt,
            "seed": self.row.seed,
            "num_inference_steps": self.row.steps,
            "guidance_scale": self.row.guidance_scale,
            "scheduler": self.row.scheduler,
            "width": self.row.width,
            "height": self.row.height,
            "lora_digest": self.row.lora.digest if self.row.lora else None,
            "base_digest": self.base_digest,
            "slot": self.stored.environment["slot"],
            **{name: self.stored.environment[name] for name in ENVIRONMENT},
            "pixels": self.stored.pixels,
            "pixel_std": self.stored.pixel_std,
            "status": "accepted" if self.stored.pixels else "failed",
            "reason": self.stored.reason,
        }


def count_prompts(
    store: Store, settings: Settings, prompts: Iterable[str], label: str, log: Log
) -> dict[str, dict[str, TokenCount]]:
    """What the base model's text encoders read of each prompt; cut ones are logged.

    Raises:
        HoiError: a tokenizer of the base model cannot be read.
    """
    from hoi_assets.engines.sdxl.loading import sdxl_text_reader

    counts = cached_token_counts(store, sdxl_text_reader(settings.models.base), prompts)
    log_cut(label, counts, log)
    return counts


def prompt_columns(
    store: Store, settings: Settings, images: Sequence[CachedImage], label: str, log: Log
) -> list[dict[str, Any]]:
    """For each SDXL image the columns `sdxl.loading.PROMPT_COLUMNS`.

    Raises:
        HoiError: as `count_prompts`.
    """
    from hoi_assets.engines.sdxl.loading import TEXT_ENCODERS

    counts = count_prompts(store, settings, [one.row.prompt for one in images], label, log)
    negatives = [one.row.negative_prompt for one in images if one.row.negative_prompt]
    count_prompts(store, settings, negatives, f"negative {label}", log)
    return [encoder_values(counts[one.row.prompt], TEXT_ENCODERS) for one in images]


def image_id(row: ImageSpec, base_digest: str) -> str:
    """The id of an image in tables: 16 hex digits of its key."""
    return image_key(row, base_digest)[:ID_LENGTH]


def generation_seconds(store: Store, image_ids: Iterable[str]) -> dict[str, float]:
    """Wall time in seconds of first generating each image, by image id, where it was measured."""
    return store.ledger.get(SECONDS_KIND, image_ids)


def get_or_generate_images(
    store: Store, settings: Settings, rows: Sequence[ImageSpec], label: str, log: Log
) -> list[CachedImage]:
    """The SDXL images of `rows`, in order; those that the store lacks are generated now.

    The model is loaded only if an image is missing.
    """
    from hoi_assets.store.weights import model_digest

    base = model_digest(settings.models.base)
    wanted = settings.sampling.batch_size
    keys = [image_key(row, base) for row in rows]

    def generate(todo: Sequence[ImageSpec]) -> Iterator[NewImage]:
        from hoi_assets.engines.pipeline_files import chunk_counter
        from hoi_assets.engines.sdxl.drawing import SDXLDrawing

        ref, first = settings.models.base, todo[0]
        drawing = with_batch_size(
            SDXLDrawing(
                compute=Compute.of(settings), folders=lora_folders(todo), ref=ref, digest=base
            ),
            store.home,
            wanted,
            first,
            log,
        )
        batches = batches_of_rows(todo, drawing.batch_size, chunk_counter(ref))
        images = map_batches(drawing, list(batches), lambda batch: batch)
        yield from noting_limits(images, drawing, store.home, work_of(first))

    stored = get_or_generate(
        store,
        dict(zip(keys, rows, strict=True)),
        generate,
        recorded_at_once(wanted),
        label,
        log,
        len(rows),
    )
    return [
        CachedImage(row=row, image_id=key[:ID_LENGTH], base_digest=base, stored=stored[key])
        for key, row in zip(keys, rows, strict=True)
    ]


Wanted = TypeVar("Wanted")


def get_or_generate(
    store: Store,
    wanted: Mapping[str, Wanted],
    generate: Callable[[Sequence[Wanted]], Iterator[NewImage]],
    save_every: int,
    label: str,
    log: Log,
    rows: int | None = None,
) -> dict[str, StoredImage]:
    """Images by key; those that the store lacks are generated now.

    Finished images are stored while the next ones are drawn, and recorded `save_every` at a time,
    so that a killed run resumes where it stopped. Images that failed are tried again.

    Args:
        wanted: by the hash of all that determines the image.
        generate: generates the missing images; called only if there are any.
        rows: number of rows that need them, for the message.
    """
    made = store.ledger.get(KIND, wanted)
    lost = set(store.images.missing(value["pixels"] for value in made.values()))
    todo = [one for key, one in wanted.items() if key not in made or made[key]["pixels"] in lost]
    failed: dict[str, StoredImage] = {}
    if todo:
        fresh, failed = _store_all(store, generate(todo), len(todo), save_every, label, log)
        made |= fresh
    else:
        log(f"{label}: all {rows or len(wanted)} found in the cache")
    drawn = {key: made[key] for key in wanted if key not in failed}
    deviations = _channel_deviations(store, {value["pixels"] for value in drawn.values()})
    images = {
        key: StoredImage(value["pixels"], deviations[value["pixels"]], value["environment"])
        for key, value in drawn.items()
    }
    return {key: failed[key] if key in failed else images[key] for key in wanted}


def _channel_deviations(store: Store, digests: Set[str]) -> dict[str, float]:
    """Largest standard deviation of a colour channel (0..255) of stored images, by digest."""
    from hoi_assets.pictures import channel_deviation

    known: dict[str, float] = store.ledger.get(DEVIATION_KIND, digests)
    todo = sorted(digests - known.keys())
    if not todo:
        return known
    fresh = {digest: channel_deviation(store.images.open(digest)) for digest in todo}
    return known | store.ledger.put(DEVIATION_KIND, fresh)


def _store_all(
    store: Store, images: Iterator[NewImage], total: int, save_every: int, label: str, log: Log
) -> tuple[dict[str, Any], dict[str, StoredImage]]:
    failed: dict[str, StoredImage] = {}
    with ImageWriter(store, save_every) as writer:
        for one in track(images, label, total=total, log=log):
            if one.image is None:
                failed[one.key] = _failed_image(one.slot, one.reason or "not drawn")
            else:
                writer.add(one)
    fresh = writer.recorded
    lost = set(store.images.missing(value["pixels"] for value in fresh.values()))
    for key, value in fresh.items():
        if value["pixels"] in lost:
            failed[key] = _failed_image(
                value["environment"]["slot"],
                "lost: its file is gone and this machine draws other pixels than those recorded",
            )
    return fresh, failed


def _failed_image(slot: int, reason: str) -> StoredImage:
    return StoredImage(None, None, {"slot": slot, **dict.fromkeys(ENVIRONMENT)}, reason)
