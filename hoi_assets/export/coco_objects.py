"""Objects of a picture as COCO annotations: masks, boxes, joints."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hoi_assets.store.scene_pool import read_mask

HAND, OBJECT = 1, 2
# Labels of the pool's part masks.
PARTS = {
    1: "palm",
    2: "thumb",
    3: "index",
    4: "middle",
    5: "ring",
    6: "little",
    7: "forearm",
    8: "object",
}
OBJECT_PART, FOREARM_PART = 8, 7
FINGERS = ("thumb", "index", "middle", "ring", "little")
JOINTS_PER_FINGER = 4
JOINTS = ("wrist", *(f"{finger}_{place}" for finger in FINGERS for place in range(1, 5)))
SKELETON = [
    [1 if place == 0 else 1 + finger * JOINTS_PER_FINGER + place,
     2 + finger * JOINTS_PER_FINGER + place]
    for finger in range(len(FINGERS))
    for place in range(JOINTS_PER_FINGER)
]  # fmt: skip
OUTSIDE, HIDDEN, VISIBLE = 0, 1, 2

_HAND_AND_OBJECT = [{"id": HAND, "name": "hand"}, {"id": OBJECT, "name": "object"}]
CATEGORIES: dict[str, list[dict[str, Any]]] = {
    "instances": _HAND_AND_OBJECT,
    "parts": [
        {
            "id": label,
            "name": name,
            "supercategory": "object" if label == OBJECT_PART else "hand",
        }
        for label, name in PARTS.items()
    ],
    "keypoints": [{"id": HAND, "name": "hand", "keypoints": list(JOINTS), "skeleton": SKELETON}],
    "captions": [],
}
ABOUT = {
    "instances": "Masks and boxes of hands (palm, fingers, and the forearm that shows) and of "
    "objects. Two hands of a picture share one mask, marked as a crowd.",
    "parts": "Masks and boxes of the hand's parts and of the object. Parts of two hands share "
    "one mask, marked as a crowd.",
    "keypoints": "21 joints a hand. The box is the joints' extent inside the picture, not the "
    "hand's. Visibility 2: the joint lies where a hand shows and its finger shows in the picture; "
    "1: labelled, and hidden or unsure; 0: outside the picture.",
    "captions": "True captions.",
}
LICENCE = {"id": 1, "name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"}


@dataclass(frozen=True)
class Region:
    """A mask (height, width) of a category; `crowd`: it covers several objects."""

    category: int
    mask: NDArray[np.bool_]
    crowd: bool = False


def of_parts(parts: NDArray[np.uint8], hands: int) -> list[Region]:
    """Hand and object of a picture of part labels; what does not show is left out."""
    hand = (parts > 0) & (parts != OBJECT_PART)
    found = [Region(HAND, hand, hands > 1), Region(OBJECT, parts == OBJECT_PART)]
    return [region for region in found if region.mask.any()]


def all_parts(parts: NDArray[np.uint8], hands: int) -> list[Region]:
    """Each part that shows; of two hands, both hands' together."""
    return [
        Region(label, parts == label, hands > 1 and label != OBJECT_PART)
        for label in PARTS
        if (parts == label).any()
    ]


def region_annotation(region: Region) -> dict[str, Any]:
    """Segmentation (uncompressed RLE), area in pixels and box x, y, width, height."""
    rows, columns = np.nonzero(region.mask)
    left, top = int(columns.min()), int(rows.min())
    return {
        "category_id": region.category,
        "segmentation": run_lengths(region.mask),
        "area": int(region.mask.sum()),
        "bbox": [left, top, int(columns.max()) - left + 1, int(rows.max()) - top + 1],
        "iscrowd": int(region.crowd),
    }


def run_lengths(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """COCO's uncompressed run lengths: column by column, zeros first.

    Example:
        >>> run_lengths(np.array([[0, 1], [1, 1]], dtype=bool))
        {'size': [2, 2], 'counts': [1, 3]}
    """
    flat = mask.ravel(order="F").astype(np.int8)
    ends = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *ends, flat.size]).tolist()
    return {
        "size": [int(side) for side in mask.shape],
        "counts": [0, *counts] if flat[0] else counts,
    }


def hand_joints(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The joints of each hand of a row of `SCENES` as COCO keypoints, in pixels from the picture's
    upper left corner."""
    if not row["hands"]:
        return []
    mask = read_mask(row["hand_mask"])
    points = np.asarray(row["joints_2d"], dtype=float).reshape(-1, len(JOINTS), 2)
    return [_joints(hand, mask, row) for hand in points]


def _joints(
    points: NDArray[np.float64], mask: NDArray[np.bool_], row: Mapping[str, Any]
) -> dict[str, Any]:
    height, width = mask.shape
    keypoints: list[float | int] = []
    inside = []
    for name, (x, y) in zip(JOINTS, points, strict=True):
        if not (0 <= x < width and 0 <= y < height):
            keypoints += [0, 0, OUTSIDE]
            continue
        inside.append((x, y))
        finger = name.split("_")[0]
        shows = finger == "wrist" or finger in row["visible_fingers"]
        seen = bool(mask[int(y), int(x)]) and shows
        keypoints += [round(float(x), 2), round(float(y), 2), VISIBLE if seen else HIDDEN]
    low, high = (np.min(inside, axis=0), np.max(inside, axis=0)) if inside else ([0, 0], [0, 0])
    box = [round(float(value), 2) for value in (*low, high[0] - low[0], high[1] - low[1])]
    return {
        "category_id": HAND,
        "keypoints": keypoints,
        "num_keypoints": len(inside),
        "bbox": box,
        "area": round(box[2] * box[3], 2),
        "segmentation": [],
        "iscrowd": 0,
        "side": row["side"] if row["side"] in ("left", "right") else None,
    }
