"""Contact sheets of rendered pictures."""

from pathlib import Path

import polars as pl
from PIL import Image

from hoi_assets.store.scene_pool import PICTURE_SUFFIX, decode_picture, open_image, read_pool

SHEET_COLUMNS, SHEET_ROWS = 8, 3
TWIN_COLUMNS, TWIN_ROWS, TWIN_ZOOM = 2, 2, 4
MAX_SHEET_BYTES = 60_000


def contact_sheets(folder: Path, out: Path) -> list[Path]:
    """One sheet of clean pictures per category, `<out>/<category>.webp`, objects and views in turn.

    Returns:
        The sheets' paths; each shows up to 24 pictures and is at most 60 kB.
    """
    out.mkdir(parents=True, exist_ok=True)
    rows = read_pool(folder).filter(
        pl.col("fidelity") & pl.col("alignment") & pl.col("category").is_not_null()
    )
    turn = pl.int_range(pl.len()).over("category", "object", "view")
    rows = rows.with_columns(turn.alias("turn")).sort("turn", "object", "view", "scene_id")
    sheets = []
    for category in sorted(rows["category"].unique()):
        shown = rows.filter(pl.col("category") == category).head(SHEET_COLUMNS * SHEET_ROWS)
        shown = shown.sort("object", "view", "scene_id")
        pictures = [open_image(folder, row) for row in shown.iter_rows(named=True)]
        side = pictures[0].width
        lines = -(-len(pictures) // SHEET_COLUMNS)
        sheet = Image.new("RGB", (SHEET_COLUMNS * side, lines * side), "white")
        for place, picture in enumerate(pictures):
            across, down = place % SHEET_COLUMNS, place // SHEET_COLUMNS
            sheet.paste(picture, (across * side, down * side))
        path = out / f"{category}{PICTURE_SUFFIX}"
        sheet.save(path, "WEBP", quality=80, method=6)
        sheets.append(path)
    return sheets


def twin_sheets(folder: Path, split: str, out: Path) -> list[Path]:
    """One sheet per kind of defect, `<out>/<kind>.webp`: twins on the left of spoilt pictures, four
    times their size, of four hand poses.

    Returns:
        The sheets' paths; each is at most 60 kB.
    """
    out.mkdir(parents=True, exist_ok=True)
    rows = read_pool(folder, split).sort("scene_id")
    sheets = []
    for kind in sorted(rows["defect"].unique()):
        own = rows.filter(pl.col("defect") == kind)
        turn = pl.int_range(pl.len()).over("category")
        shown = own.with_columns(turn.alias("turn")).sort("turn", "scene_id")
        shown = shown.head(TWIN_COLUMNS * TWIN_ROWS)
        pairs = [
            [decode_picture(row[name]) for name in ("twin", "picture")]
            for row in shown.iter_rows(named=True)
        ]
        side = pairs[0][0].width * TWIN_ZOOM
        lines = -(-len(pairs) // TWIN_COLUMNS)
        sheet = Image.new("RGB", (2 * TWIN_COLUMNS * side, lines * side), "white")
        for place, pair in enumerate(pairs):
            for half, picture in enumerate(pair):
                corner = ((2 * (place % TWIN_COLUMNS) + half) * side, place // TWIN_COLUMNS * side)
                sheet.paste(picture.resize((side, side), Image.Resampling.LANCZOS), corner)
        path = out / f"{kind}{PICTURE_SUFFIX}"
        _save_small(sheet, path)
        sheets.append(path)
    return sheets


def _save_small(sheet: Image.Image, path: Path) -> None:
    """Save with the best quality that stays within MAX_SHEET_BYTES."""
    for quality in range(80, 9, -5):
        sheet.save(path, "WEBP", quality=quality, method=6)
        if path.stat().st_size <= MAX_SHEET_BYTES:
            return
