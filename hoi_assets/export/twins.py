"""Twins of the tiny world's pool: a spoilt render, and the same scene not spoilt."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hoi_assets.errors import HoiError
from hoi_assets.export.pairs import export_id
from hoi_assets.hashing import digest_file_cached
from hoi_assets.picture_marks import ALGORITHMIC, encode_marked
from hoi_assets.store.scene_pool import TWINS_TABLE, decode_picture, read_pool

SPLITS = ("judge_train", "judge_val", "judge_test")


def twins_digest(pool: Path) -> str | None:
    """Digest of a pool's twins; None where it has none."""
    table = pool / TWINS_TABLE
    return digest_file_cached(table) if table.is_file() else None


def twin_triples(pool: Path, split: str) -> Iterator[dict[str, Any]]:
    """The twins of a split as triples: `id`, `source`, `text`, `critique`, `corrected_text`, and
    the pictures `flawed` and `accepted` as marked PNG files. Empty where the pool lacks the split.
    """
    try:
        rows = read_pool(pool, split).sort("scene_id")
    except HoiError:
        return
    for row in rows.iter_rows(named=True):
        share = row["defect_area"] / row["hand_area"] if row["hand_area"] else None
        finding = {"defect": row["defect"], "box": map_box(row["defect_map"]), "share": share}
        yield {
            "id": export_id(f"twin {row['digest']}"),
            "source": "twins",
            "text": row["caption"],
            "critique": json.dumps([finding]),
            "corrected_text": None,
            "flawed": encode_marked(decode_picture(row["picture"]), ALGORITHMIC),
            "accepted": encode_marked(decode_picture(row["twin"]), ALGORITHMIC),
        }


def map_box(png: bytes) -> list[int] | None:
    """Where a mask is set: x, y, width, height in pixels; None where it is empty."""
    from PIL import Image

    with Image.open(io.BytesIO(png)) as mask:
        box = mask.convert("L").getbbox()
    return None if box is None else [box[0], box[1], box[2] - box[0], box[3] - box[1]]
