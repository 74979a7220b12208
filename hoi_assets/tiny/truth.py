"""The truth of a picture as numbers: classes of the examiner's labels, and the loss over them."""

from collections.abc import Sequence
from typing import Any

from hoi_assets.scenes.vocabulary import COLOURS, DEFECTS, OBJECTS, SIDES
from hoi_assets.settings import ROOT
from hoi_assets.taxonomy import category_keys

NONE = "none"
CLEAN = "clean"
# Kinds of which exactly one label holds, with the column that says which.
KINDS = {"pose": "category", "object": "object", "colour": "colour", "side": "side"}
MIRROR = {"left": "right", "right": "left"}


def label_names() -> tuple[str, ...]:
    """The logits' names in order; `pose:none` and `side:none` stand for pictures without a hand."""
    return (
        *(f"{kind}:{name}" for kind in KINDS for name in _names(kind)),
        *(f"defect:{name}" for name in DEFECTS),
        CLEAN,
    )


def _names(kind: str) -> tuple[str, ...]:
    return {
        "pose": (*category_keys(ROOT / "data" / "taxonomy"), NONE),
        "object": OBJECTS,
        "colour": COLOURS,
        "side": (*SIDES, NONE),
    }[kind]


def spans() -> dict[str, slice]:
    """Where each kind's logits lie; `defect` includes `clean`."""
    found, start = {}, 0
    for kind in KINDS:
        width = len(_names(kind))
        found[kind] = slice(start, start + width)
        start += width
    found["defect"] = slice(start, start + len(DEFECTS) + 1)
    return found


def targets(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Class number (N,) of each kind; `defect` as float (N, defects + 1), clean last."""
    import torch

    found = {
        kind: torch.tensor([_names(kind).index(row[column] or NONE) for row in rows])
        for kind, column in KINDS.items()
    }
    found["defect"] = torch.tensor(
        [
            [*(float(name in row["defects"]) for name in DEFECTS), float(not row["defects"])]
            for row in rows
        ]
    )
    return found


def truth_loss(logits: Any, truth: dict[str, Any], chosen: Sequence[int]) -> Any:
    """Cross-entropy of each kind and binary cross-entropy of defects, summed."""
    from torch.nn import functional

    where, logits = spans(), logits.float()
    total = 4 * functional.binary_cross_entropy_with_logits(
        logits[:, where["defect"]], truth["defect"][chosen]
    )
    for kind in KINDS:
        total = total + functional.cross_entropy(logits[:, where[kind]], truth[kind][chosen])
    return total
