"""The pictures a training learns from, with their truth, in memory."""

import json
import random
import re
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image

from hoi_assets.grammar.captions import caption
from hoi_assets.hashing import digest
from hoi_assets.store.scene_pool import MASKS, open_image, read_pool
from hoi_assets.tinyworld.scenes.false_captions import false_claims_for, with_false_claim
from hoi_assets.tinyworld.weights.truth import MIRROR
from hoi_assets.tinyworld.weights.words import grip_phrases

SLOTS = ("side", "skin_tone", "colour", "material", "object", "view", "light", "background")
HELD_OUT_IN_TEN = 1
SELECTION_FILE = "scenes.json"
# Columns that say left or right.
SIDED = ("side", "prompt", "caption", "true_caption", "triples", "questions", "plan")


@dataclass(frozen=True)
class Pictures:
    """Rows of a world and their pixels.

    Attributes:
        rows: as `hoi_assets.store.scene_pool.read_pool` gives them.
        pixels: uint8 tensor (N, 3, H, W).
        grips: grip phrase by category.
    """

    rows: list[dict[str, Any]]
    pixels: Any
    grips: dict[str, str]

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, indices: Sequence[int]) -> "Pictures":
        """The pictures at `indices`."""
        return Pictures([self.rows[i] for i in indices], self.pixels[list(indices)], self.grips)

    def joined(self, other: "Pictures") -> "Pictures":
        """These and `other`."""
        import torch

        return Pictures(self.rows + other.rows, torch.cat([self.pixels, other.pixels]), self.grips)

    def shown_as(self, pixels: Any) -> "Pictures":
        """The same rows with other pixels."""
        return Pictures(self.rows, pixels, self.grips)

    def mirrored(self) -> "Pictures":
        """The pictures seen in a mirror: left hands become right ones, in truth and in words."""
        rows = [
            row | {name: _in_a_mirror(row[name]) for name in SIDED if name in row}
            for row in self.rows
        ]
        return Pictures(rows, self.pixels.flip(-1), self.grips)

    @cached_property
    def held_out(self) -> list[bool]:
        """Whether each picture belongs to the one grasp or scene in ten that is held out."""
        return [is_held_out(str(row.get("grasp_id") or row["scene_id"])) for row in self.rows]

    def halves(self) -> tuple["Pictures", "Pictures"]:
        """Pictures to learn from, and pictures held out; they share no grasp."""
        held = self.held_out
        return (
            self.take([i for i, out in enumerate(held) if not out]),
            self.take([i for i, out in enumerate(held) if out]),
        )

    def slots(self, index: int) -> dict[str, Any]:
        """The true slots of a picture, as `hoi_assets.grammar.captions` takes them."""
        row = self.rows[index]
        return {name: row[name] for name in SLOTS} | {"grip": self.grips.get(row["category"] or "")}

    def true_caption(self, index: int, seed: int | None) -> str:
        """What the picture shows, in a wording drawn from `seed`."""
        return caption(self.slots(index), seed)

    def false_slots(self, index: int, seed: int, kind: str | None = None) -> dict[str, Any]:
        """Slots with exactly one false claim; `kind` None draws one of those that apply."""
        slots, rng = self.slots(index), random.Random(seed)
        kind = kind or rng.choice(false_claims_for(slots))
        return with_false_claim(slots, kind, rng, list(self.grips.values()))

    def false_caption(self, index: int, seed: int) -> str:
        """A caption with exactly one false claim."""
        return caption(self.false_slots(index, seed), seed)

    @cached_property
    def digest(self) -> str:
        """First 16 hex digits of the hash of the pictures' digests, in order."""
        return digest([row["digest"] for row in self.rows])[:16]


def _in_a_mirror(said: Any) -> Any:
    """A text, or each of a list, with left and right exchanged.

    >>> _in_a_mirror(["a left hand", "holds"])
    ['a right hand', 'holds']
    """
    if said is None:
        return None
    if isinstance(said, list):
        return [_in_a_mirror(each) for each in said]
    return re.sub(r"\b(left|right)\b", lambda found: MIRROR[found[0]], said)


def is_held_out(name: str) -> bool:
    """Whether a grasp or scene is among the tenth that is never learnt from."""
    return zlib.crc32(name.encode()) % 10 < HELD_OUT_IN_TEN


def read_pictures(
    world: Path, split: str, selection: Path | None = None, limit: int | None = None
) -> Pictures:
    """Read a split of a world.

    Args:
        selection: folder that remembers which scenes were there at first, so that a training that
            resumes while the world still grows sees the same ones.

    Raises:
        HoiError: the world or one of its pictures is missing.
    """
    import torch

    rows = read_pool(world, split).sort("scene_id")
    if selection is not None:
        path = selection / SELECTION_FILE
        if path.is_file():
            chosen = json.loads(path.read_text(encoding="utf-8"))
            rows = rows.filter(pl.col("scene_id").is_in(chosen))
        else:
            selection.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(rows["scene_id"].to_list()), encoding="utf-8")
    listed = rows.drop(MASKS, strict=False).to_dicts()[:limit]
    with ThreadPoolExecutor(2) as pool:
        arrays = list(pool.map(lambda row: np.asarray(open_image(world, row)), listed))
    pixels = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()
    return Pictures(listed, pixels, grip_phrases())


def as_float(pixels: Any) -> Any:
    """uint8 pixels as float32 in -1..1."""
    return pixels.float() / 127.5 - 1


def as_bytes(pixels: Any) -> Any:
    """Pixels in -1..1 as uint8."""
    return ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().byte()


def as_images(pixels: Any) -> list[Image.Image]:
    """uint8 pixels (N, 3, H, W) as PIL pictures."""
    return [Image.fromarray(array) for array in pixels.permute(0, 2, 3, 1).numpy()]


def draw_indices(count: int, size: int, generator: Any) -> list[int]:
    """`size` numbers below `count`, with repeats."""
    import torch

    return torch.randint(count, (size,), generator=generator).tolist()


def jitter(pixels: Any, generator: Any, shift: int = 6) -> Any:
    """Pixels (-1..1) moved by up to `shift` px and changed a little in brightness and contrast."""
    import torch
    from torch.nn import functional

    size = pixels.shape[-1]
    padded = functional.pad(pixels, (shift,) * 4, mode="replicate")
    moves = torch.randint(2 * shift + 1, (len(pixels), 2), generator=generator).tolist()
    moved = torch.stack(
        [p[:, y : y + size, x : x + size] for p, (y, x) in zip(padded, moves, strict=True)]
    )
    gain = 1 + 0.15 * (2 * torch.rand(len(pixels), 1, 1, 1, generator=generator) - 1)
    offset = 0.1 * (2 * torch.rand(len(pixels), 1, 1, 1, generator=generator) - 1)
    return (moved * gain + offset).clamp(-1, 1)
