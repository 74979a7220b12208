"""The pictures a training learns from, with their truth, in memory."""

import json
import random
import re
import zlib
from collections.abc import Mapping, Sequence
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
from hoi_assets.store.scene_pool import (
    MASKS,
    decode_picture,
    open_image,
    read_mask,
    read_parts,
    read_pool,
)
from hoi_assets.tinyworld.scenes.false_captions import false_claims_for, with_false_claim
from hoi_assets.tinyworld.weights.truth import MIRROR
from hoi_assets.tinyworld.weights.words import grip_phrases

SLOTS = ("side", "skin_tone", "colour", "material", "object", "view", "light", "background")
HELD_OUT_IN_TEN = 1
SELECTION_FILE = "scenes.json"
TWIN = "twin"
# Columns that say left or right.
SIDED = ("side", "prompt", "caption", "true_caption", "triples", "questions", "plan")


@dataclass(frozen=True)
class Pictures:
    """Rows of a world and their pixels.

    Attributes:
        rows: as `hoi_assets.store.scene_pool.read_pool` gives them.
        pixels: uint8 tensor (N, 3, H, W).
        grips: grip phrase by category.
        dense: of twins a uint8 tensor (N, 2, H, W): each pixel's part (a number of `PARTS`), and
            whether it is defective (1); else None.
    """

    rows: list[dict[str, Any]]
    pixels: Any
    grips: Mapping[str, str]
    dense: Any = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def are_twins(self) -> bool:
        """Whether they come in pairs, spoilt at 2n and its twin at 2n + 1, with dense truth."""
        return self.dense is not None

    def take(self, indices: Sequence[int]) -> "Pictures":
        """The pictures at `indices`."""
        chosen = list(indices)
        dense = None if self.dense is None else self.dense[chosen]
        return Pictures([self.rows[i] for i in chosen], self.pixels[chosen], self.grips, dense)

    def to(self, device: str) -> "Pictures":
        """The same pictures with their tensors on `device`."""
        dense = None if self.dense is None else self.dense.to(device)
        return Pictures(self.rows, self.pixels.to(device), self.grips, dense)

    def joined(self, other: "Pictures") -> "Pictures":
        """These and `other`; both with dense truth, or both without."""
        import torch

        rows, pixels = self.rows + other.rows, torch.cat([self.pixels, other.pixels])
        dense = None if self.dense is None else torch.cat([self.dense, other.dense])
        return Pictures(rows, pixels, self.grips, dense)

    def shown_as(self, pixels: Any) -> "Pictures":
        """The same rows with other pixels."""
        return Pictures(self.rows, pixels, self.grips, self.dense)

    def mirrored(self) -> "Pictures":
        """The pictures seen in a mirror: left hands become right ones, in truth and in words."""
        rows = [
            row | {name: _in_a_mirror(row[name]) for name in SIDED if name in row}
            for row in self.rows
        ]
        dense = None if self.dense is None else self.dense.flip(-1)
        return Pictures(rows, self.pixels.flip(-1), self.grips, dense)

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

    rows = selected_rows(world, split, selection)
    if TWIN in rows.columns:
        return read_twins(rows[:limit])
    listed = rows.drop(MASKS, strict=False).to_dicts()[:limit]
    with ThreadPoolExecutor(2) as pool:
        arrays = list(pool.map(lambda row: np.asarray(open_image(world, row)), listed))
    pixels = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()
    return Pictures(listed, pixels, grip_phrases())


def read_twins(pairs: pl.DataFrame) -> Pictures:
    """Pictures of rows of a split of twins, with dense truth: the spoilt picture of pair n at 2n,
    its twin at 2n + 1."""
    import torch

    rows: list[dict[str, Any]] = []
    pixels, dense = [], []
    for pair in pairs.iter_rows(named=True):
        truth = {name: pair[name] for name in (*SLOTS, "category", "grasp_id", "scene_id")}
        for shown, parts, key, defects in (
            ("picture", "parts", "digest", [pair["defect"]]),
            (TWIN, "twin_parts", "twin_digest", []),
        ):
            rows.append(truth | {"digest": pair[key], "defects": defects, "fidelity": not defects})
            pixels.append(np.asarray(decode_picture(pair[shown])))
            labels = read_parts(pair[parts])
            spoilt = read_mask(pair["defect_map"]) if defects else np.zeros_like(labels)
            dense.append(np.stack([labels, spoilt]))
    return Pictures(
        rows,
        torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous(),
        grip_phrases(),
        torch.from_numpy(np.stack(dense)),
    )


def selected_rows(world: Path, split: str, selection: Path | None) -> pl.DataFrame:
    """Rows of a split; where there is a `selection`, those that it remembers."""
    rows = read_pool(world, split).sort("scene_id")
    if selection is None:
        return rows
    path = selection / SELECTION_FILE
    if path.is_file():
        chosen = json.loads(path.read_text(encoding="utf-8"))
        return rows.filter(pl.col("scene_id").is_in(chosen))
    selection.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows["scene_id"].to_list()), encoding="utf-8")
    return rows


def as_float(pixels: Any) -> Any:
    """uint8 pixels as float32 in -1..1."""
    return pixels.float() / 127.5 - 1


def as_bytes(pixels: Any) -> Any:
    """Pixels in -1..1 as uint8."""
    return ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().byte()


def as_images(pixels: Any) -> list[Image.Image]:
    """uint8 pixels (N, 3, H, W) as PIL pictures."""
    return [Image.fromarray(array) for array in pixels.permute(0, 2, 3, 1).cpu().numpy()]


def draw_indices(count: int, size: int, generator: Any) -> list[int]:
    """`size` numbers below `count`, with repeats."""
    import torch

    return torch.randint(count, (size,), generator=generator).tolist()


def jitter(pixels: Any, generator: Any, shift: int = 6) -> Any:
    """Pixels (-1..1) moved by up to `shift` px and changed a little in brightness and contrast."""
    moves = draw_moves(len(pixels), generator, shift)
    return brightened(moved(pixels, moves, shift), generator)


def draw_moves(count: int, generator: Any, shift: int = 6) -> list[list[int]]:
    """For each of `count` pictures how far `moved` moves it up and left, 0 to 2 * `shift`."""
    import torch

    return torch.randint(2 * shift + 1, (count, 2), generator=generator).tolist()


def moved(pixels: Any, moves: list[list[int]], shift: int = 6) -> Any:
    """Pictures (N, C, H, W) moved, their edges continued."""
    import torch
    from torch.nn import functional

    size = pixels.shape[-1]
    padded = functional.pad(pixels, (shift,) * 4, mode="replicate")
    return torch.stack(
        [p[:, y : y + size, x : x + size] for p, (y, x) in zip(padded, moves, strict=True)]
    )


def brightened(pixels: Any, generator: Any) -> Any:
    """Pixels (-1..1) changed a little in brightness and contrast."""
    import torch

    gain = 1 + 0.15 * (2 * torch.rand(len(pixels), 1, 1, 1, generator=generator) - 1)
    offset = 0.1 * (2 * torch.rand(len(pixels), 1, 1, 1, generator=generator) - 1)
    return (pixels * gain.to(pixels.device) + offset.to(pixels.device)).clamp(-1, 1)
