"""Draws only what was never drawn: every image is found again by its key."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hoi_assets.diffusion.sampling import Draw, image_key
from hoi_assets.progress import Say, track
from hoi_assets.settings import Settings
from hoi_assets.store.versions import Store

KIND = "image"
ENVIRONMENT = ("batch_size", "dtype", "device", "threads", "cpu_capability")


@dataclass(frozen=True)
class Known:
    """One row's image, as it was drawn first.

    Attributes:
        image_id: first 16 hex digits of the image's key.
        base_digest: hash of the base model.
        pixels: digest of the pixels; None where drawing failed.
        pixel_std: standard deviation of the pixel values (0..255); about 0 is a blank picture.
        environment: batch size, dtype, device, threads, CPU capability, and the slot.
        reason: why there is no image.
    """

    row: Draw
    image_id: str
    base_digest: str
    pixels: str | None
    pixel_std: float | None
    environment: dict[str, Any]
    reason: str | None

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
            "slot": self.environment["slot"],
            **{name: self.environment[name] for name in ENVIRONMENT},
            "pixels": self.pixels,
            "pixel_std": self.pixel_std,
            "status": "accepted" if self.pixels else "failed",
            "reason": self.reason,
        }


def image_id(row: Draw, base_digest: str) -> str:
    """The name of an image in tables: 16 hex digits of its key."""
    return image_key(row, base_digest)[:16]


def draw_known(
    store: Store, settings: Settings, rows: Sequence[Draw], label: str, say: Say
) -> list[Known]:
    """The images of `rows`, in order; those never made (or lost on disk) are drawn now.

    Each batch is kept as soon as it is finished, so a killed run goes on where it stopped. Rows
    that failed are tried again. The model is loaded only when something is to be drawn.
    """
    from hoi_assets.diffusion.loading import model_digest

    base = model_digest(settings.models.base)
    keys = [image_key(row, base) for row in rows]
    made = store.ledger.made(KIND, keys)
    lost = set(store.images.missing(value["pixels"] for value in made.values()))
    todo = {
        key: row
        for key, row in zip(keys, rows, strict=True)
        if key not in made or made[key]["pixels"] in lost
    }
    failed: dict[str, str] = {}
    if todo:
        fresh, failed = _draw(store, settings, todo, label, say)
        made |= fresh
    else:
        say(f"{label}: all {len(rows)} found, none drawn")
    return [
        Known(
            row=row,
            image_id=key[:16],
            base_digest=base,
            pixels=made[key]["pixels"] if key not in failed else None,
            pixel_std=made[key]["pixel_std"] if key not in failed else None,
            environment=made[key]["environment"] if key not in failed else _nowhere(row),
            reason=failed.get(key),
        )
        for key, row in zip(keys, rows, strict=True)
    ]


def _nowhere(row: Draw) -> dict[str, Any]:
    return {"slot": row.slot, **dict.fromkeys(ENVIRONMENT)}


def _draw(
    store: Store, settings: Settings, todo: dict[str, Draw], label: str, say: Say
) -> tuple[dict[str, Any], dict[str, str]]:
    import numpy as np

    from hoi_assets.diffusion.loading import configure, load_sdxl
    from hoi_assets.diffusion.sampling import draw, environment

    loaded = load_sdxl(settings.models.base, configure(settings))
    batch_size = settings.sampling.batch_size
    facts = {name: environment(loaded, batch_size)[name] for name in ENVIRONMENT}
    fresh: dict[str, Any] = {}
    failed: dict[str, str] = {}
    batch: dict[str, Any] = {}
    drawn = draw(loaded, todo.values(), batch_size)
    for one in track(drawn, label, total=len(todo), say=say):
        key = image_key(one.row, loaded.digest)
        if one.image is None:
            failed[key] = one.reason or "not drawn"
            continue
        batch[key] = {
            "pixels": store.images.put(one.image),
            "pixel_std": round(float(np.asarray(one.image).std()), 3),
            "environment": {"slot": one.row.slot, **facts},
        }
        if len(batch) >= batch_size:
            fresh |= store.ledger.make(KIND, batch)
            batch = {}
    fresh |= store.ledger.make(KIND, batch)
    lost = set(store.images.missing(value["pixels"] for value in fresh.values()))
    for key, value in fresh.items():
        if value["pixels"] in lost:
            failed[key] = (
                "lost: its file is gone and this machine draws other pixels than those recorded"
            )
    return fresh, failed
