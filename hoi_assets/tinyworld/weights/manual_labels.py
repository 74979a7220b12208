"""Generated pictures with manual labels: what the examiner, trained on renders, is tested on."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from PIL import Image

from hoi_assets.errors import HoiError
from hoi_assets.settings import ROOT
from hoi_assets.statistics import Interval, accuracy

FOLDER = ROOT / "data" / "eye_labels"
TABLE = "labels.csv"
COLUMNS, ROWS, SIDE = 8, 6, 128
PAGE_QUALITY = 95
# Columns of the labels: 1 as the caption says, 0 not, empty where the rater could not tell.
LABELS = {
    "pose": "pose_right",
    "object": "object_right",
    "colour": "colour_right",
    "side": "side_right",
    "defect_free": "defect_free",
}
ASKED = ("category", "object", "colour", "side")


@dataclass(frozen=True)
class Agreement:
    """How far examiner and rater agree on one kind of label.

    Attributes:
        share: of the pictures that both label alike.
        kappa: Cohen's kappa, agreement beyond chance; None when one of them gives one label only.
    """

    share: Interval
    kappa: float | None


def generate_pages(weights: Path, pool: Path, folder: Path, count: int) -> None:
    """Generate pictures of held-out captions with the stored SDXL, and write the pages."""
    from hoi_assets.store.scene_pool import read_pool
    from hoi_assets.tinyworld.weights import sdxl

    rows = read_pool(pool, "judge_test").sort("scene_id").to_dicts()
    rows = rows[:: max(1, len(rows) // count)][:count]
    images = sdxl.generate(sdxl.stored(weights / "sdxl"), [row["true_caption"] for row in rows])
    write_pages(images, rows, folder)


def write_pages(images: list[Image.Image], rows: list[dict[str, Any]], folder: Path) -> None:
    """Write pages of 8 x 6 pictures and a table with a row for each, to be filled in by a rater.

    Args:
        rows: `true_caption` and the columns ASKED of each picture.

    Raises:
        HoiError: the folder holds labels already.
    """
    if (folder / TABLE).exists():
        raise HoiError(
            f"{folder / TABLE} exists", "Remove it to generate and label other pictures."
        )
    folder.mkdir(parents=True, exist_ok=True)
    for first in range(0, len(images), COLUMNS * ROWS):
        page = Image.new("RGB", (COLUMNS * SIDE, ROWS * SIDE))
        for place, image in enumerate(images[first : first + COLUMNS * ROWS]):
            page.paste(image, _corner(place))
        page.save(folder / _page(first), quality=PAGE_QUALITY, method=6)
    lines = [
        {"picture": number, "caption": row["true_caption"]}
        | {name: row[name] for name in ASKED}
        | dict.fromkeys(LABELS.values())
        for number, row in enumerate(rows)
    ]
    pl.DataFrame(lines, infer_schema_length=None).write_csv(folder / TABLE)


def read_pages(folder: Path = FOLDER) -> Iterator[tuple[Image.Image, dict[str, Any]]]:
    """Each picture with its row of the table.

    Raises:
        HoiError: there is no table, or a page of it is missing.
    """
    if not (folder / TABLE).is_file():
        raise HoiError(
            f"no manually labelled pictures in {folder}",
            "Run: python -m hoi_assets.tinyworld.weights pages; then fill in the table.",
        )
    flags = dict.fromkeys(LABELS.values(), pl.Int8)
    for row in pl.read_csv(folder / TABLE, schema_overrides=flags).iter_rows(named=True):
        path = folder / _page(row["picture"])
        try:
            page = Image.open(path).convert("RGB")
        except OSError as error:
            raise HoiError(f"page {path} cannot be read: {error}", "Restore it.") from error
        left, top = _corner(row["picture"] % (COLUMNS * ROWS))
        yield page.crop((left, top, left + SIDE, top + SIDE)), row


def agreement(examiner: Any, folder: Path = FOLDER) -> dict[str, Agreement]:
    """By kind, how often the examiner agrees with the rater, where the rater could tell."""
    from hoi_assets.engines.examiner import agrees, examine

    images, rows = zip(*read_pages(folder), strict=True)
    read = [
        agrees(truth, row) for truth, row in zip(examine(examiner, list(images)), rows, strict=True)
    ]
    found = {}
    for kind, label in LABELS.items():
        both = [
            (found_kinds[kind], bool(row[label]))
            for found_kinds, row in zip(read, rows, strict=True)
            if row[label] is not None and kind in found_kinds
        ]
        examined, seen = [a for a, _ in both], [b for _, b in both]
        found[kind] = Agreement(accuracy(seen, examined), _kappa(seen, examined))
    return found


def _kappa(first: list[bool], second: list[bool]) -> float | None:
    n = len(first)
    if not n:
        return None
    same = sum(a == b for a, b in zip(first, second, strict=True)) / n
    yes_1, yes_2 = sum(first) / n, sum(second) / n
    chance = yes_1 * yes_2 + (1 - yes_1) * (1 - yes_2)
    return None if chance == 1 else (same - chance) / (1 - chance)


def _corner(place: int) -> tuple[int, int]:
    return place % COLUMNS * SIDE, place // COLUMNS * SIDE


def _page(picture: int) -> str:
    return f"page-{picture // (COLUMNS * ROWS) + 1}.webp"
