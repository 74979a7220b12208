"""What determines one generated image, its cache key, and its place in a batch.

Bits depend on the shape of a batch and, on some CPUs, on the place in it; they do not depend on the
neighbours. So every batch has the same number of places (slots), an image keeps its slot, and its
noise comes from its own seed: it can be generated again alone.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from PIL import Image

from hoi_assets.engines.long_prompts import grouped
from hoi_assets.hashing import digest
from hoi_assets.settings import AUTO, BatchSize

SAMPLING_VERSION = (
    "1"  # part of every image key: raise it when the same specification gives other pixels
)


@dataclass(frozen=True)
class Lora:
    """A LoRA in diffusers' layout: its folder, and the hash that `lora_digest` gives."""

    folder: str
    digest: str


@dataclass(frozen=True)
class ImageSpec:
    """All that determines one image, except the base model and the environment.

    Attributes:
        seed: of the image's own noise, in [0, 2**63).
        slot: place in the batch, in [0, batch size); modulo that where the size is settled later.
        steps: number of denoising steps.
        guidance_scale: classifier-free guidance; off at 1 or less.
        negative_prompt: "" means none.
    """

    prompt: str
    seed: int
    slot: int
    steps: int
    guidance_scale: float
    scheduler: str
    width: int
    height: int
    negative_prompt: str = ""
    lora: Lora | None = None


@dataclass(frozen=True)
class GeneratedImage:
    """An image, or the reason why there is none.

    Attributes:
        batch_size: places of the batch that it was generated in; its own is the row's slot modulo
            that.
    """

    row: ImageSpec
    image: Image.Image | None
    reason: str | None
    batch_size: int


def image_key(row: ImageSpec, base_digest: str) -> str:
    """Hash of all that determines the image of `row`, except slot and environment."""
    fields = asdict(row) | {
        "guidance_scale": float(row.guidance_scale),  # 4 and 4.0 give the same image
        "lora": row.lora.digest if row.lora else None,
    }
    del fields["slot"]
    return digest({"sampling": SAMPLING_VERSION, "base": base_digest, **fields})


def slot_of(position: int, batch_size: BatchSize) -> int:
    """The slot of the row at `position` of its table; where the size is found later, the position.

    >>> slot_of(5, 4), slot_of(5, "auto")
    (1, 5)
    """
    return position if batch_size == AUTO else position % batch_size


def in_batches_of(row: ImageSpec, size: int) -> ImageSpec:
    """`row` with its slot in a batch of `size`."""
    return replace(row, slot=row.slot % size)


def batches_by_slot(rows: Sequence[ImageSpec], batch_size: int) -> Iterator[dict[int, ImageSpec]]:
    """Group rows with the same parameters into batches, by slot.

    Rows of consecutive positions fill whole batches in order; where some are missing, the next row
    of the same slot takes the place.
    """
    groups: dict[tuple[Any, ...], list[ImageSpec]] = {}
    for row in rows:
        call = (row.lora, row.scheduler, row.steps, row.guidance_scale, row.width, row.height)
        groups.setdefault(call, []).append(row)
    for group in groups.values():
        queues: dict[int, deque[ImageSpec]] = {slot: deque() for slot in range(batch_size)}
        for row in group:
            queues[row.slot].append(row)
        while any(queues.values()):
            yield {slot: queue.popleft() for slot, queue in queues.items() if queue}


def batches_of_rows(
    rows: Sequence[ImageSpec], batch_size: int, chunks: Callable[..., int]
) -> Iterator[list[ImageSpec]]:
    """Rows with their slots in batches of that size, batch by batch (`batches_by_slot`).

    Args:
        chunks: in how many chunks the longest of the texts is encoded.
    """
    in_slots = [in_batches_of(row, batch_size) for row in rows]
    for alike in grouped(in_slots, lambda row: chunks(row.prompt, row.negative_prompt)):
        for batch in batches_by_slot(alike, batch_size):
            yield list(batch.values())
