"""Contact sheets of a rendered pool."""

from pathlib import Path

import polars as pl
from PIL import Image

from hoi_assets.store.scene_pool import PICTURE_SUFFIX, open_image, read_pool

SHEET_COLUMNS, SHEET_ROWS = 8, 3


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
