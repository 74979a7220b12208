"""COCO annotations of the tiny world's renders, whose truth is known.

Of generated pictures no boxes, masks or joints are known, so there are none here. Files:
    annotations/instances_<split>.json  masks and boxes of hands and objects
    annotations/parts_<split>.json      masks and boxes of palm, fingers, forearm, object (twins)
    annotations/keypoints_<split>.json  21 joints a hand, hidden ones included
    annotations/captions_<split>.json   the true captions
    images/<id>.png
`pycocotools` reads all four.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from hoi_assets.errors import HoiError
from hoi_assets.export import coco_objects as objects
from hoi_assets.export.cards import render
from hoi_assets.export.folder import Draft, Exported, Plan, export
from hoi_assets.export.pairs import export_id
from hoi_assets.hashing import digest_file_cached
from hoi_assets.picture_marks import ALGORITHMIC, encode_marked
from hoi_assets.progress import Log
from hoi_assets.store.scene_pool import (
    STORED_TABLE,
    TWINS_TABLE,
    decode_picture,
    open_image,
    read_mask,
    read_parts,
    read_pool,
)

TOLD = (
    "category",
    "object",
    "colour",
    "material",
    "skin_tone",
    "side",
    "view",
    "light",
    "background",
)
KINDS = ("instances", "parts", "keypoints", "captions")


def export_coco(pool: Path, folder: Path, log: Log = lambda _: None) -> Exported:
    """Export the renders of a pool with their truth to `folder`.

    Raises:
        HoiError: the folder holds no stored pool, or as `folder.export`.

    Example:
        >>> export_coco(Path("data/pool"), Path("coco"))  # doctest: +SKIP
    """
    tables = [pool / name for name in (STORED_TABLE, TWINS_TABLE) if (pool / name).is_file()]
    if not tables:
        raise HoiError(
            f"{pool} holds no pool of rendered scenes",
            "name one with --pool, or render it: "
            "python -m hoi_assets.tinyworld.scenes.pool --out FOLDER",
        )
    made_from = {table.name: digest_file_cached(table) for table in tables}
    splits = sorted({split for table in tables for split in _splits(table)})

    def write(draft: Draft) -> None:
        counts = {}
        for split in splits:
            rows = read_pool(pool, split).sort("scene_id")
            pictures = _twins(rows) if "twin" in rows.columns else _scenes(pool, rows)
            counts[split] = _add_split(draft, split, pictures)
        draft.add_text("README.md", render("coco.md.j2", {"counts": counts}))

    return export(folder, Plan("coco", made_from), write, log)


def _splits(table: Path) -> list[str]:
    return pl.scan_parquet(table).select("split").unique().collect()["split"].to_list()


def _scenes(pool: Path, rows: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """The pictures of a split of scenes, as `_add_split` reads them."""
    for row in rows.iter_rows(named=True):
        hands = row["hands"]
        masks = [objects.Region(objects.OBJECT, read_mask(row["object_mask"]))]
        if hands:
            # One mask for all hands of a picture: with two it is what COCO calls a crowd.
            hand = read_mask(row["hand_mask"])
            masks.insert(0, objects.Region(objects.HAND, hand, crowd=hands > 1))
        yield {
            "key": row["digest"],
            "image": open_image(pool, row),
            "caption": row["true_caption"],
            "about": {name: row[name] for name in TOLD} | {"defects": row["defects"]},
            "instances": masks,
            "parts": [],
            "keypoints": objects.hand_joints(row),
        }


def _twins(rows: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """The pictures of a split of twins: the spoilt one, then the clean one."""
    for row in rows.iter_rows(named=True):
        for kind in ("picture", "twin"):
            spoilt = kind == "picture"
            parts = read_parts(row["parts" if spoilt else "twin_parts"])
            yield {
                "key": row["digest" if spoilt else "twin_digest"],
                "image": decode_picture(row[kind]),
                "caption": row["caption"],
                "about": {name: row[name] for name in TOLD}
                | {"defects": [row["defect"]] if spoilt else []},
                "instances": objects.of_parts(parts, row["hands"]),
                "parts": objects.all_parts(parts, row["hands"]),
                "keypoints": [],
            }


def _add_split(draft: Draft, split: str, pictures: Iterator[dict[str, Any]]) -> dict[str, int]:
    """Add a split's pictures and annotations. Returns the number of annotations by kind."""
    images: list[dict[str, Any]] = []
    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for number, one in enumerate(pictures, start=1):
        picture = one["image"]
        name = f"{export_id(one['key'])}.png"
        draft.add_bytes(f"images/{name}", encode_marked(picture, ALGORITHMIC))
        images.append(
            {
                "id": number,
                "file_name": name,
                "width": picture.width,
                "height": picture.height,
                **one["about"],
            }
        )
        of_picture = {
            "instances": map(objects.region_annotation, one["instances"]),
            "parts": map(objects.region_annotation, one["parts"]),
            "keypoints": one["keypoints"],
            "captions": [{"caption": one["caption"]}],
        }
        for kind, own in of_picture.items():
            for annotation in own:
                place = {"id": len(found[kind]) + 1, "image_id": number}
                found[kind].append(place | annotation)
    for kind, annotations in found.items():
        if not annotations:
            continue
        whole = {
            "info": {"description": objects.ABOUT[kind], "split": split},
            "licenses": [objects.LICENCE],
            "images": images,
            "annotations": annotations,
        }
        if objects.CATEGORIES[kind]:  # `pycocotools` looks for an annotation's where there are any
            whole["categories"] = objects.CATEGORIES[kind]
        draft.add_json(f"annotations/{kind}_{split}.json", whole)
    return {"images": len(images)} | {kind: len(rows) for kind, rows in found.items()}
