"""Draws only what was never drawn: every image is found again by its key."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from hoi_assets.engines.sdxl.sampling import Draw, image_key
from hoi_assets.progress import Log, track
from hoi_assets.settings import Settings
from hoi_assets.store.versions import Store
from hoi_assets.taxonomy import ID_LENGTH

if TYPE_CHECKING:
    from PIL import Image

KIND = "image"
# Apart from what pictures are: a version holds no clock, or equal inputs would give other hashes.
SECONDS_KIND = "image_seconds"
ENVIRONMENT = ("batch_size", "dtype", "device", "threads", "cpu_capability")


@dataclass(frozen=True)
class Picture:
    """One picture as it was drawn now, or the reason why there is none.

    Attributes:
        key: hash of all that determines it.
        environment: what its bits depend on beside that.
        seconds: wall time that drawing it took; None where nobody measured it.
    """

    key: str
    slot: int
    image: "Image.Image | None"
    reason: str | None
    environment: Mapping[str, Any]
    seconds: float | None = None


@dataclass(frozen=True)
class Kept:
    """One image as the store has it.

    Attributes:
        pixels: digest of the pixels; None where drawing failed.
        pixel_std: standard deviation of the pixel values (0..255); about 0 is a blank picture.
        environment: batch size, dtype, device, threads, CPU capability, and the slot.
        reason: why there is no image.
    """

    pixels: str | None
    pixel_std: float | None
    environment: dict[str, Any]
    reason: str | None = None


@dataclass(frozen=True)
class Known:
    """One row's image, as it was drawn first.

    Attributes:
        image_id: first 16 hex digits of the image's key.
        base_digest: hash of the base model.
    """

    row: Draw
    image_id: str
    base_digest: str
    kept: Kept

    @property
    def pixels(self) -> str | None:
        """Digest of the pixels; None where drawing failed."""
        return self.kept.pixels

    def as_record(self) -> dict[str, Any]:
        """The columns of a table row, by which `hoi replay` draws the image again."""
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
            "slot": self.kept.environment["slot"],
            **{name: self.kept.environment[name] for name in ENVIRONMENT},
            "pixels": self.kept.pixels,
            "pixel_std": self.kept.pixel_std,
            "status": "accepted" if self.kept.pixels else "failed",
            "reason": self.kept.reason,
        }


def image_id(row: Draw, base_digest: str) -> str:
    """The name of an image in tables: 16 hex digits of its key."""
    return image_key(row, base_digest)[:ID_LENGTH]


def seconds_of(store: Store, image_ids: Iterable[str]) -> dict[str, float]:
    """Wall time that drawing each image took, where it was measured when it was drawn first."""
    return store.ledger.get(SECONDS_KIND, image_ids)


def draw_known(
    store: Store, settings: Settings, rows: Sequence[Draw], label: str, log: Log
) -> list[Known]:
    """The SDXL images of `rows`, in order; those never made (or lost on disk) are drawn now.

    The model is loaded only when something is to be drawn.
    """
    from hoi_assets.store.weights import model_digest

    base = model_digest(settings.models.base)
    batch_size = settings.sampling.batch_size
    keys = [image_key(row, base) for row in rows]

    def drawn(todo: Sequence[Draw]) -> Iterator[Picture]:
        from hoi_assets.engines.device import configure_torch
        from hoi_assets.engines.sdxl.loading import load_sdxl
        from hoi_assets.engines.sdxl.sampling import draw

        loaded = load_sdxl(settings.models.base, configure_torch(settings))
        facts = loaded.environment(batch_size)
        for one in draw(loaded, todo, batch_size):
            yield Picture(image_key(one.row, base), one.row.slot, one.image, one.reason, facts)

    kept = found_or_drawn(
        store, dict(zip(keys, rows, strict=True)), drawn, batch_size, label, log, len(rows)
    )
    return [
        Known(row=row, image_id=key[:ID_LENGTH], base_digest=base, kept=kept[key])
        for key, row in zip(keys, rows, strict=True)
    ]


Asked = TypeVar("Asked")


def found_or_drawn(
    store: Store,
    wanted: Mapping[str, Asked],
    draw: Callable[[Sequence[Asked]], Iterator[Picture]],
    keep_every: int,
    label: str,
    log: Log,
    rows: int | None = None,
) -> dict[str, Kept]:
    """Images by key; those never made (or lost on disk) are drawn now.

    What is finished is kept at once, `keep_every` pictures at a time, so a killed run goes on where
    it stopped. Pictures that failed are tried again.

    Args:
        wanted: by the hash of all that determines the picture.
        draw: draws what is missing; called only where something is.
        rows: how many ask for them, for the message.
    """
    made = store.ledger.get(KIND, wanted)
    lost = set(store.images.missing(value["pixels"] for value in made.values()))
    todo = [
        asked for key, asked in wanted.items() if key not in made or made[key]["pixels"] in lost
    ]
    failed: dict[str, Kept] = {}
    if todo:
        fresh, failed = _drawn(store, draw(todo), len(todo), keep_every, label, log)
        made |= fresh
    else:
        log(f"{label}: all {rows or len(wanted)} found, none drawn")
    return {key: failed[key] if key in failed else Kept(**made[key]) for key in wanted}


def _drawn(
    store: Store, pictures: Iterator[Picture], total: int, keep_every: int, label: str, log: Log
) -> tuple[dict[str, Any], dict[str, Kept]]:
    import numpy as np

    fresh: dict[str, Any] = {}
    failed: dict[str, Kept] = {}
    batch: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    for one in track(pictures, label, total=total, log=log):
        if one.image is None:
            failed[one.key] = _nothing(one.slot, one.reason or "not drawn")
            continue
        facts = {name: one.environment[name] for name in ENVIRONMENT}
        if one.seconds is not None:
            seconds[one.key[:ID_LENGTH]] = round(one.seconds, 3)
        batch[one.key] = {
            "pixels": store.images.put(one.image),
            "pixel_std": round(float(np.asarray(one.image).std()), 3),
            "environment": {"slot": one.slot, **facts},
        }
        if len(batch) >= keep_every:
            store.ledger.put(SECONDS_KIND, seconds)
            fresh |= store.ledger.put(KIND, batch)
            batch, seconds = {}, {}
    store.ledger.put(SECONDS_KIND, seconds)
    fresh |= store.ledger.put(KIND, batch)
    lost = set(store.images.missing(value["pixels"] for value in fresh.values()))
    for key, value in fresh.items():
        if value["pixels"] in lost:
            failed[key] = _nothing(
                value["environment"]["slot"],
                "lost: its file is gone and this machine draws other pixels than those recorded",
            )
    return fresh, failed


def _nothing(slot: int, reason: str) -> Kept:
    return Kept(None, None, {"slot": slot, **dict.fromkeys(ENVIRONMENT)}, reason)
