"""A blind study of twins: can a person see which pictures are spoilt?

`write_study` shows spoilt pictures among clean twins of other pairs and keeps the key apart; the
rater fills in one column; `read_study` counts.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image, ImageDraw

from hoi_assets.errors import HoiError
from hoi_assets.statistics import Interval, share_interval
from hoi_assets.store.scene_pool import decode_picture, read_pool

LABELS, KEY = "labels.csv", "key.csv"
COLUMNS, ROWS, SIDE = 6, 4, 256
PER_KIND = 20
PAGE_QUALITY = 90


@dataclass(frozen=True)
class Seen:
    """How a rater judged pictures.

    Attributes:
        by_kind: share of the spoilt pictures of each kind that were called spoilt.
        spoilt: share of all spoilt pictures that were called spoilt.
        suspected: share of clean twins that were called spoilt.
    """

    by_kind: dict[str, Interval]
    spoilt: Interval
    suspected: Interval

    def as_text(self) -> str:
        """A Markdown table of the shares with their 95% intervals."""
        rows = [*self.by_kind.items(), ("all kinds", self.spoilt), ("clean twins", self.suspected)]
        lines = [
            f"| {name} | {each.value:.2f} | {each.low:.2f} to {each.high:.2f} | {each.n} |"
            for name, each in rows
        ]
        return "\n".join(
            ["| shown | called spoilt | 95% interval | n |", "| --- | --- | --- | --- |", *lines]
        )


def write_study(
    world: Path, split: str, folder: Path, per_kind: int = PER_KIND, seed: int = 0
) -> int:
    """Write pages of numbered pictures, an empty table of labels, and the key.

    Of each kind of defect `per_kind` spoilt pictures are shown, and as many clean twins of other
    pairs; no pair is shown twice.

    Returns:
        How many pictures are shown.

    Raises:
        HoiError: too few pairs of a kind, or the folder holds labels already.
    """
    if (folder / LABELS).exists():
        raise HoiError(f"{folder / LABELS} exists", "Remove it to show other pictures.")
    rng = np.random.default_rng(seed)
    rows = read_pool(world, split).sort("scene_id")
    shown = []
    for kind in sorted(rows["defect"].unique()):
        own = rows.filter(pl.col("defect") == kind)
        if own.height < 2 * per_kind:
            raise HoiError(
                f"{world} has {own.height} pairs of {kind}, {2 * per_kind} are needed",
                f"Render more pairs of split {split}.",
            )
        picked = own[rng.permutation(own.height)[: 2 * per_kind].tolist()]
        for place, row in enumerate(picked.iter_rows(named=True)):
            spoilt = place < per_kind
            picture = decode_picture(row["picture" if spoilt else "twin"])
            shown.append((picture, row["scene_id"], kind if spoilt else None))
    shown = [shown[place] for place in rng.permutation(len(shown))]
    folder.mkdir(parents=True, exist_ok=True)
    for first in range(0, len(shown), COLUMNS * ROWS):
        page = _page([one[0] for one in shown[first : first + COLUMNS * ROWS]], first)
        name = f"page-{first // (COLUMNS * ROWS) + 1:02d}.webp"
        page.save(folder / name, quality=PAGE_QUALITY, method=6)
    numbers = range(len(shown))
    pl.DataFrame({"picture": numbers, "spoilt": [None] * len(shown)}).write_csv(folder / LABELS)
    key = {"picture": numbers, "scene_id": [s[1] for s in shown], "defect": [s[2] for s in shown]}
    pl.DataFrame(key).write_csv(folder / KEY)
    return len(shown)


def read_study(folder: Path) -> Seen:
    """What the rater saw, from the filled table and the key.

    Raises:
        HoiError: a file is missing, or a picture has no label 0 or 1.
    """
    try:
        labels = pl.read_csv(folder / LABELS, schema_overrides={"spoilt": pl.Int8})
        key = pl.read_csv(folder / KEY)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise HoiError(
            f"no study in {folder}: {error}", "Write one, and fill its table."
        ) from error
    rows = key.join(labels, on="picture", how="left")
    open_ones = rows.filter(~pl.col("spoilt").is_in([0, 1]) | pl.col("spoilt").is_null())
    if open_ones.height:
        raise HoiError(
            f"{folder / LABELS}: picture {open_ones['picture'][0]} has no label",
            "Say 1 where the hand, or how it holds, is wrong, else 0.",
        )
    spoilt = rows.filter(pl.col("defect").is_not_null())
    clean = rows.filter(pl.col("defect").is_null())
    return Seen(
        {
            str(kind): _called(own["spoilt"])
            for (kind,), own in sorted(spoilt.group_by("defect"), key=lambda item: str(item[0]))
        },
        _called(spoilt["spoilt"]),
        _called(clean["spoilt"]),
    )


def _called(said: pl.Series) -> Interval:
    """Share of pictures that were called spoilt, with its interval."""
    return share_interval(int(said.sum()), len(said))


def _page(pictures: list[Image.Image], first: int) -> Image.Image:
    page = Image.new("RGB", (COLUMNS * SIDE, ROWS * SIDE), "white")
    pen = ImageDraw.Draw(page)
    for place, picture in enumerate(pictures):
        left, top = place % COLUMNS * SIDE, place // COLUMNS * SIDE
        page.paste(picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS), (left, top))
        pen.rectangle((left, top, left + 34, top + 15), fill="black")
        pen.text((left + 4, top + 2), str(first + place), fill="white")
    return page
