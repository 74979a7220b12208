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
from hoi_assets.store.tables import Column, Table

PICTURE_SUFFIX = ".webp"
STORED_TABLE = "scenes.parquet"
TWINS_TABLE = "twins.parquet"

MASKS = ("hand_mask", "object_mask")

SCENES = Table(
    "scenes",
    "one picture of a hand and an object, with its truth",
    (
        Column("scene_id", pl.String, "name of the picture"),
        Column("split", pl.String, "what the picture is for; splits share no seed"),
        Column("file", pl.String, "path of the picture, relative to the pool"),
        Column("caption", pl.String, "caption as published; false where `lies` says so"),
        Column("true_caption", pl.String, "the same wording, true"),
        Column(
            "category", pl.String, "hand pose; null for an object without a hand", nullable=True
        ),
        Column("object", pl.String, "kind of object"),
        Column("colour", pl.String, "its colour"),
        Column("material", pl.String, "its material"),
        Column("skin_tone", pl.String, "null without a hand", nullable=True),
        Column("side", pl.String, "left, right or both; null without a hand", nullable=True),
        Column("hands", pl.Int32, "number of hands"),
        Column("view", pl.String, "front, side or above"),
        Column("light", pl.String, "light rig"),
        Column("background", pl.String, "wall behind the scene"),
        Column("defects", pl.List(pl.String), "defects planted in the picture"),
        Column("lies", pl.List(pl.String), "what is false in the caption"),
        Column("fidelity", pl.Boolean, "whether the picture is free of defects"),
        Column("alignment", pl.Boolean, "whether the caption is true"),
        Column("visible_fingers", pl.List(pl.String), "fingers that show"),
        Column("contacts", pl.List(pl.String), "bones and parts that touch the object"),
        Column(
            "contact_mm",
            pl.Float32,
            "largest distance of a touching part to the object",
            unit="mm",
            nullable=True,
        ),
        Column(
            "penetration_mm",
            pl.Float32,
            "deepest point of the hand inside the object",
            unit="mm",
            nullable=True,
        ),
        Column(
            "joint_angles",
            pl.List(pl.Float32),
            "60 a hand: 20 bones x flexion, abduction, twist",
            unit="rad",
        ),
        Column(
            "joints_3d",
            pl.List(pl.Float32),
            "21 joints a hand (wrist, then thumb to little finger, root to tip) x, y, z; +z up",
            unit="m",
        ),
        Column(
            "joints_2d",
            pl.List(pl.Float32),
            "the joints in the picture, x right and y down",
            unit="px",
        ),
        Column(
            "camera", pl.List(pl.Float32), "eye 3, target 3, up 3 (metres), field of view (degrees)"
        ),
        Column("hand_area", pl.Int32, "area of the hand mask", unit="px"),
        Column("object_area", pl.Int32, "area of the object mask", unit="px"),
        Column("hand_mask", pl.Binary, "where a hand shows, 1-bit PNG"),
        Column("object_mask", pl.Binary, "where the object shows, 1-bit PNG"),
        Column("seed", pl.Int64, "seed of all that no word says"),
        Column("grasp_id", pl.String, "pictures of one solved grasp share it"),
        Column("digest", pl.String, "digest of the stored picture's pixels"),
    ),
    key=("scene_id",),
)

INTERACTION_SCENES = Table(
    "interaction_scenes",
    "one picture of an interaction, with its prompt, components, questions and answers",
    (
        Column("scene_id", pl.String, "name of the picture"),
        Column("split", pl.String, "what the picture is for; splits share no seed"),
        Column("file", pl.String, "path of the picture, relative to the pool"),
        Column("scenario", pl.String, "functional, compositional or multi_subject"),
        Column(
            "pattern", pl.String, "pattern of the plan, see `hoi_assets.grammar.plans.make_plan`"
        ),
        Column(
            "prompt",
            pl.String,
            "sentence that goes with the picture; one component is false where `fault` says so",
        ),
        Column("caption", pl.String, "sentence that is true of the picture"),
        Column("alignment", pl.Boolean, "whether the prompt is true"),
        Column(
            "fault", pl.String, "what makes the prompt false; null where it is true", nullable=True
        ),
        Column(
            "triples",
            pl.List(pl.List(pl.String)),
            "the prompt's components: subject, relation, object",
        ),
        Column("truth", pl.List(pl.Boolean), "whether each component holds"),
        Column("questions", pl.List(pl.String), "questions about the picture"),
        Column("answers", pl.List(pl.Boolean), "their true answers"),
        Column("kinds", pl.List(pl.String), "kind of component that each question is about"),
        Column("plan", pl.String, "what is drawn, as JSON"),
        Column("light", pl.String, "light rig"),
        Column("background", pl.String, "wall behind the scene"),
        Column(
            "gap_mm",
            pl.Float32,
            "from what acts to its target; null where nothing acts",
            unit="mm",
            nullable=True,
        ),
        Column(
            "camera", pl.List(pl.Float32), "eye 3, target 3, up 3 (metres), field of view (degrees)"
        ),
        Column("hand_pixels", pl.List(pl.Int32), "pixels that show each hand", unit="px"),
        Column("thing_pixels", pl.List(pl.Int32), "pixels that show each thing", unit="px"),
        Column("things", pl.List(pl.String), "kinds of the things in `thing_pixels`"),
        Column("seed", pl.Int64, "seed of all that no word says"),
        Column("digest", pl.String, "digest of the stored picture's pixels"),
    ),
    key=("scene_id",),
)

TWIN_SCENES = Table(
    "twins",
    "a spoilt picture and its twin: the same scene, camera and light, not spoilt",
    (
        Column("scene_id", pl.String, "name of the pair"),
        Column("split", pl.String, "what the pair is for; splits share no seed"),
        Column("defect", pl.String, "kind of defect in the spoilt picture"),
        Column("caption", pl.String, "caption that is true of both pictures but for the defect"),
        Column("false_caption", pl.String, "the same wording with one false claim"),
        Column("lie", pl.String, "kind of that claim"),
        Column("category", pl.String, "hand pose"),
        Column("object", pl.String, "kind of object"),
        Column("colour", pl.String, "its colour"),
        Column("material", pl.String, "its material"),
        Column("skin_tone", pl.String, "skin tone"),
        Column("side", pl.String, "left, right or both"),
        Column("hands", pl.Int32, "number of hands"),
        Column("view", pl.String, "front, side or above"),
        Column("light", pl.String, "light rig"),
        Column("background", pl.String, "wall behind the scene"),
        Column("hand_area", pl.Int32, "area of the twin's hand mask", unit="px"),
        Column("defect_area", pl.Int32, "pixels of hand or object in the defect map", unit="px"),
        Column(
            "camera", pl.List(pl.Float32), "eye 3, target 3, up 3 (metres), field of view (degrees)"
        ),
        Column("picture", pl.Binary, "the spoilt picture, WebP"),
        Column("twin", pl.Binary, "the twin, WebP"),
        Column("defect_map", pl.Binary, "where the twins' renders differ, 1-bit PNG"),
        Column(
            "parts",
            pl.Binary,
            "the spoilt picture's part labels, 8-bit PNG: 0 background, 1 palm, 2 to 6 thumb to "
            "little finger, 7 forearm, 8 object",
        ),
        Column("twin_parts", pl.Binary, "the twin's part labels, like `parts`"),
        Column("seed", pl.Int64, "seed of all that no word says"),
        Column("grasp_id", pl.String, "pairs of one solved grasp share it"),
        Column("digest", pl.String, "digest of the spoilt picture's pixels, as stored"),
        Column("twin_digest", pl.String, "digest of the twin's pixels, as stored"),
    ),
    key=("scene_id",),
)


def read_pool(folder: Path, split: str | None = None) -> pl.DataFrame:
    """All rows of a pool, or of one split, in scene order; columns as in SCENES, or for
    interaction scenes, which lie in a folder of their own, as in INTERACTION_SCENES.

    Reads the stored tables and every finished shard of a world. Rows of twins, as in TWIN_SCENES,
    are read where `split` names one of theirs.

    Raises:
        HoiError: when the folder holds no pool, or no row of the split.

    Example:
        >>> read_pool(Path("data/pool"), "instance")  # doctest: +SKIP
    """
    names = (STORED_TABLE,) if split is None else (STORED_TABLE, TWINS_TABLE)
    tables = [folder / name for name in names if (folder / name).is_file()]
    tables += sorted(folder.glob(f"{split or '*'}-?????.parquet"))
    if not tables:
        raise HoiError(
            f"no pool of scenes in {folder}" + (f" for split '{split}'" if split else ""),
            f"render it with `python -m hoi_assets.tinyworld.scenes.pool --out {folder}"
            + (f" --split {split}`" if split else "`")
            + ("" if IN_CHECKOUT else f"; or {restore_remedy(str(folder), 'world')}"),
        )
    read = [pl.read_parquet(table) for table in tables]
    if split is None:
        return pl.concat(read)
    found = [rows for rows in (one.filter(pl.col("split") == split) for one in read) if len(rows)]
    if not found:
        raise HoiError(
            f"no scenes of split '{split}' in {folder}",
            "use a split that this pool holds, or render it with --split",
        )
    return pl.concat(found)


def open_image(folder: Path, row: dict[str, Any]) -> Image.Image:
    """The picture of one row of `read_pool(folder)`, RGB; a packed row holds it itself.

    Raises:
        HoiError: when the file is missing or unreadable.
    """
    if row.get("picture") is not None:
        return decode_picture(row["picture"])
    path = folder / str(row["file"])
    try:
        return Image.open(path).convert("RGB")
    except OSError as error:
        raise HoiError(
            f"picture {path} of scene '{row.get('scene_id')}' cannot be read: {error}",
            f"render the pool anew: python -m hoi_assets.tinyworld.scenes.pool --out {folder}",
        ) from error


def decode_picture(picture: bytes) -> Image.Image:
    """A picture that a row holds, RGB.

    Raises:
        HoiError: when the bytes are no picture.
    """
    try:
        return Image.open(io.BytesIO(picture)).convert("RGB")
    except OSError as error:
        raise HoiError(f"a picture of a pool cannot be read: {error}", "Render it anew.") from error


def read_parts(png: bytes) -> NDArray[np.uint8]:
    """Stored part labels as an array (height, width)."""
    return np.asarray(Image.open(io.BytesIO(png)))


def read_mask(png: bytes) -> NDArray[np.bool_]:
    """A stored mask as a boolean array (height, width)."""
    return np.asarray(decode_mask(png))


def decode_mask(png: bytes) -> Image.Image:
    """A stored mask as a picture, black and white."""
    return Image.open(io.BytesIO(png)).convert("1")
