"""Pictures labelled by people, as the verifier is trained on them: a folder with `labels.csv`.

Columns: file, prompt, fidelity and alignment (0 or 1); optionally category, and for a picture
without fidelity defect, the kind of its worst fault, with defect_x and defect_y, where it is
(shares of width and height). `hoi rate labels` writes such a folder.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from hoi_assets.engines.seeds import seed_of
from hoi_assets.errors import HoiError
from hoi_assets.hashing import digest
from hoi_assets.picture_files import open_picture
from hoi_assets.store.versions import Store
from hoi_assets.text import text_problem

if TYPE_CHECKING:
    from PIL import Image

# What `shown_as` says of such a picture.
LABELLED = "labelled"
# Radius of the disc that a click stands for, as a share of the picture's width; the rating page
# draws the same one.
MARK_RADIUS = 0.08


def labelled_by_people(store: Store, path: Path, seed: int) -> Iterator[dict[str, Any]]:
    """Rows of `VERIFIER_PAIR_ROWS`; splits are drawn by picture, so that none is in two.

    Args:
        path: of labels.csv.
        seed: of the splits, 70/15/15.

    Raises:
        HoiError: the file cannot be read, lacks a column, or names an unreadable picture.
    """
    for line, row in enumerate(_read(path).iter_rows(named=True), start=2):
        where = f"{path} line {line}"
        for name in ("file", "prompt"):
            text = str(row[name] or "").strip()
            problem = text_problem(text) if text else "is empty"
            if problem:
                raise HoiError(f"{where}: {name}: {problem}", "correct that line")
        if row["fidelity"] not in (0, 1) or row["alignment"] not in (0, 1):
            raise HoiError(f"{where}: labels must be 0 or 1", "correct that line")
        picture = path.parent / row["file"]
        try:
            opened = open_picture(picture)
        except ValueError as error:
            raise HoiError(
                f"{where}: {picture} is unreadable: {error}",
                "replace the picture or delete the line",
            ) from error
        pixels = store.images.put(opened)
        kind, spot = _defect(row, where)
        part = seed_of("people", seed, pixels) % 100
        yield {
            "pair_id": digest([pixels, row["prompt"]])[:16],
            "split": "train" if part < 70 else "validation" if part < 85 else "test",
            "pixels": pixels,
            "prompt": row["prompt"],
            "category": row.get("category"),
            "fidelity": bool(row["fidelity"]),
            "alignment": bool(row["alignment"]),
            "defects": [kind] if kind else [],
            "defect_map": store.images.put(_map(opened.size, spot)) if spot else None,
            "lies": [],
            "shown_as": LABELLED,
            "scene_id": pixels[:16],
            "grasp_id": pixels[:16],
            "seen": True,
        }


def _read(path: Path) -> pl.DataFrame:
    numbers = dict.fromkeys(("fidelity", "alignment"), pl.Int8)
    places = dict.fromkeys(("defect_x", "defect_y"), pl.Float64)
    try:
        table = pl.read_csv(path, schema_overrides={**numbers, **places, "defect": pl.String})
    except pl.exceptions.PolarsError as error:
        raise HoiError(
            f"{path}: {error}",
            "give a CSV with the columns file, prompt, fidelity and alignment (0 or 1)",
        ) from error
    missing = {"file", "prompt", "fidelity", "alignment"} - set(table.columns)
    if missing:
        raise HoiError(
            f"{path} lacks the column(s) {', '.join(sorted(missing))}",
            "give file, prompt, fidelity and alignment (0 or 1)",
        )
    # polars renames a column that comes twice.
    twice = [name for name in table.columns if re.fullmatch(r".+_duplicated_\d+", name)]
    if twice:
        raise HoiError(
            f"{path} names a column twice: {twice[0].rpartition('_dup')[0]}", "delete one"
        )
    return table


def _defect(row: Mapping[str, Any], where: str) -> tuple[str | None, tuple[float, float] | None]:
    """Kind and place of the picture's fault, as far as they are known."""
    kind = (row.get("defect") or "").strip() or None
    x, y = row.get("defect_x"), row.get("defect_y")
    if kind and (problem := text_problem(kind)):
        raise HoiError(f"{where}: defect: {problem}", "correct that line")
    if row["fidelity"] and (kind or x is not None or y is not None):
        raise HoiError(
            f"{where}: a picture with fidelity 1 has a defect",
            "set fidelity to 0, or leave defect, defect_x and defect_y empty",
        )
    if x is None and y is None:
        return kind, None
    if x is None or y is None or not (0 <= x <= 1 and 0 <= y <= 1):
        raise HoiError(
            f"{where}: defect_x and defect_y must both be from 0 to 1, or both empty",
            "give shares of the picture's width and height",
        )
    return kind, (x, y)


def _map(size: tuple[int, int], spot: tuple[float, float]) -> "Image.Image":
    """A picture that is white round the spot."""
    from PIL import Image, ImageDraw

    width, height = size
    x, y, radius = spot[0] * width, spot[1] * height, MARK_RADIUS * width
    drawn = Image.new("1", size)
    ImageDraw.Draw(drawn).ellipse((x - radius, y - radius, x + radius, y + radius), fill=1)
    return drawn
