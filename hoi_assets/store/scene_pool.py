"""Reads a pool of labelled scenes: Parquet tables with the truth, and WebP pictures.

Pools are rendered by `python -m hoi_assets.tinyworld.scenes.pool --out FOLDER`; reading one needs
no renderer.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from PIL import Image

from hoi_assets.errors import HoiError
from hoi_assets.settings import IN_CHECKOUT, restore_remedy

PICTURE_SUFFIX = ".webp"
STORED_TABLE = "scenes.parquet"

# Joints are 21 a hand (wrist, then thumb to little finger, root to tip); joints_3d metres in the
# world (+z up), joints_2d pixels (x right, y down); joint_angles radians, 60 a hand (20 bones x
# flexion, abduction, twist). camera: eye 3, target 3, up 3 (metres), field of view (degrees).
# Areas in pixels. Masks are 1-bit PNG files. The digest is that of the stored picture's pixels.
SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "scene_id": pl.String,
    "split": pl.String,
    "file": pl.String,
    "caption": pl.String,
    "true_caption": pl.String,
    "category": pl.String,
    "object": pl.String,
    "colour": pl.String,
    "material": pl.String,
    "skin_tone": pl.String,
    "side": pl.String,
    "hands": pl.Int32,
    "view": pl.String,
    "light": pl.String,
    "background": pl.String,
    "defects": pl.List(pl.String),
    "lies": pl.List(pl.String),
    "fidelity": pl.Boolean,
    "alignment": pl.Boolean,
    "visible_fingers": pl.List(pl.String),
    "contacts": pl.List(pl.String),
    "contact_mm": pl.Float32,
    "penetration_mm": pl.Float32,
    "joint_angles": pl.List(pl.Float32),
    "joints_3d": pl.List(pl.Float32),
    "joints_2d": pl.List(pl.Float32),
    "camera": pl.List(pl.Float32),
    "hand_area": pl.Int32,
    "object_area": pl.Int32,
    "hand_mask": pl.Binary,
    "object_mask": pl.Binary,
    "seed": pl.Int64,
    "grasp_id": pl.String,
    "digest": pl.String,
}

# Interaction scenes, see `interactions.Item`: prompt is the sentence asked for, caption a true one;
# triples (subject, relation, object) and truth are the prompt's; questions, answers and kinds go
# together; plan (JSON) is what is drawn. gap_mm: from what acts to its target. Pixels per hand, and
# per thing as `things` names them.
INTERACTION_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "scene_id": pl.String,
    "split": pl.String,
    "file": pl.String,
    "scenario": pl.String,
    "pattern": pl.String,
    "prompt": pl.String,
    "caption": pl.String,
    "alignment": pl.Boolean,
    "fault": pl.String,
    "triples": pl.List(pl.List(pl.String)),
    "truth": pl.List(pl.Boolean),
    "questions": pl.List(pl.String),
    "answers": pl.List(pl.Boolean),
    "kinds": pl.List(pl.String),
    "plan": pl.String,
    "light": pl.String,
    "background": pl.String,
    "gap_mm": pl.Float32,
    "camera": pl.List(pl.Float32),
    "hand_pixels": pl.List(pl.Int32),
    "thing_pixels": pl.List(pl.Int32),
    "things": pl.List(pl.String),
    "seed": pl.Int64,
    "digest": pl.String,
}


def read_pool(folder: Path, split: str | None = None) -> pl.DataFrame:
    """All rows of a pool, or of one split, in scene order; columns as in SCHEMA, or for
    interaction scenes, which lie in a folder of their own, as in INTERACTION_SCHEMA.

    Reads the stored table and every finished shard of a world.

    Raises:
        HoiError: when the folder holds no pool, or no row of the split.

    Example:
        >>> read_pool(Path("data/pool"), "instance")  # doctest: +SKIP
    """
    stored = folder / STORED_TABLE
    tables = [stored] if stored.is_file() else []
    tables += sorted(folder.glob(f"{split or '*'}-?????.parquet"))
    if not tables:
        raise HoiError(
            f"no pool of scenes in {folder}" + (f" for split '{split}'" if split else ""),
            f"render it with `python -m hoi_assets.tinyworld.scenes.pool --out {folder}"
            + (f" --split {split}`" if split else "`")
            + ("" if IN_CHECKOUT else f"; or {restore_remedy(str(folder), 'world')}"),
        )
    rows = pl.concat([pl.read_parquet(table) for table in tables])
    if split is not None:
        rows = rows.filter(pl.col("split") == split)
        if rows.is_empty():
            raise HoiError(
                f"no scenes of split '{split}' in {folder}",
                "use a split that this pool holds, or render it with --split",
            )
    return rows


def open_image(folder: Path, row: dict[str, Any]) -> Image.Image:
    """The picture of one row of `read_pool(folder)`, RGB.

    Raises:
        HoiError: when the file is missing or unreadable.
    """
    path = folder / str(row["file"])
    try:
        return Image.open(path).convert("RGB")
    except OSError as error:
        raise HoiError(
            f"picture {path} of scene '{row.get('scene_id')}' cannot be read: {error}",
            f"render the pool anew: python -m hoi_assets.tinyworld.scenes.pool --out {folder}",
        ) from error


def read_mask(png: bytes) -> NDArray[np.bool_]:
    """A stored mask as a boolean array (height, width)."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("1"))
