"""The truth of a picture as numbers: classes of the examiner's labels, and the loss over them."""

from collections.abc import Sequence
from typing import Any

from hoi_assets.grammar.plans import Plan
from hoi_assets.grammar.vocabulary import COLOURS, OBJECTS, RELATIONS, SHAPES, SIDES
from hoi_assets.settings import ROOT
from hoi_assets.taxonomy import category_keys
from hoi_assets.tinyworld.scenes.vocabulary import DEFECTS

NONE = "none"
CLEAN = "clean"
# Kinds of which exactly one label holds, with the column that says which.
KINDS = {"pose": "category", "object": "object", "colour": "colour", "side": "side"}
MIRROR = {"left": "right", "right": "left"}
# What an interaction scene shows: "hold" is "holds" of two hands.
VERBS = tuple(verb for verb in RELATIONS if verb != "hold")
HAND_SIDES = ("left", "right")
MOST_THINGS = 9
NOT_SHOWN = -100


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


def claim_width() -> int:
    """How many of `label_names` a caption can speak of: all but the defects, which come last."""
    return len(label_names()) - len(DEFECTS) - 1


def claim_targets(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Class number (N,) of each kind."""
    import torch

    return {
        kind: torch.tensor([_names(kind).index(row[column] or NONE) for row in rows])
        for kind, column in KINDS.items()
    }


def targets(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Class number (N,) of each kind; `defect` as float (N, defects + 1), clean last."""
    import torch

    found = claim_targets(rows)
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
    defects = functional.binary_cross_entropy_with_logits(
        logits[:, where["defect"]], truth["defect"][chosen].to(logits.device)
    )
    return 4 * defects + claim_loss(logits, {kind: truth[kind][chosen] for kind in KINDS})


def reader(width: int) -> Any:
    """An auxiliary head that reads what picture and text claim from a joint feature."""
    from torch import nn

    return nn.Linear(width, len(label_names()) + claim_width())


def reader_loss(
    logits: Any, truth: dict[str, Any], chosen: Sequence[int], claims: Sequence[dict[str, Any]]
) -> Any:
    """The loss of `reader`: what pictures `chosen` show, and what their texts claim."""
    shown, said = logits.split([len(label_names()), claim_width()], dim=1)
    return truth_loss(shown, truth, chosen) + claim_loss(said, claim_targets(claims))


def claim_loss(logits: Any, claims: dict[str, Any]) -> Any:
    """Cross-entropy of each kind, summed."""
    from torch.nn import functional

    where, logits = spans(), logits.float()
    wanted = {kind: claims[kind].to(logits.device) for kind in KINDS}
    return sum(functional.cross_entropy(logits[:, where[kind]], wanted[kind]) for kind in KINDS)


# --- interaction scenes ---------------------------------------------------------------------------


def plan_widths() -> dict[str, int]:
    """Logits of each kind of truth: which things, each thing's colour, verbs, shape (last: none),
    how many of the first thing, and sides of hands."""
    return {
        "things": len(OBJECTS),
        "colours": len(OBJECTS) * len(COLOURS),
        "verbs": len(VERBS),
        "shape": len(SHAPES) + 1,
        "count": MOST_THINGS + 1,
        "sides": len(HAND_SIDES),
    }


def plan_targets(plans: Sequence[Plan]) -> dict[str, Any]:
    """By kind: things, verbs, sides as float (N, width); colours as class (N, things), NOT_SHOWN
    for a thing that is not there; shape and count as class (N,)."""
    import torch

    shown = [{thing.kind: thing.colour for thing in plan.things if thing.count} for plan in plans]
    verbs = [{relation.verb for relation in plan.relations} for plan in plans]
    sides = [{hand.side for hand in plan.hands} for plan in plans]
    shapes = [plan.shape if plan.verb("thing0") == "form" else None for plan in plans]
    return {
        "things": torch.tensor([[float(kind in there) for kind in OBJECTS] for there in shown]),
        "colours": torch.tensor(
            [
                [COLOURS.index(there[k]) if k in there else NOT_SHOWN for k in OBJECTS]
                for there in shown
            ]
        ),
        "verbs": torch.tensor([[float(verb in done) for verb in VERBS] for done in verbs]),
        "shape": torch.tensor([SHAPES.index(s) if s else len(SHAPES) for s in shapes]),
        "count": torch.tensor([plan.things[0].count for plan in plans]),
        "sides": torch.tensor([[float(side in there) for side in HAND_SIDES] for there in sides]),
    }


def plan_loss(logits: Any, truth: dict[str, Any], chosen: Sequence[int]) -> Any:
    """The loss of what pictures `chosen` show, from logits (B, sum of `plan_widths`)."""
    from torch.nn import functional

    widths = plan_widths()
    read = dict(zip(widths, logits.float().split(list(widths.values()), dim=1), strict=True))
    wanted = {kind: truth[kind][list(chosen)].to(logits.device) for kind in widths}
    found = [
        # A few of many are there: the mean over all would hardly count.
        4 * functional.binary_cross_entropy_with_logits(read[kind], wanted[kind])
        for kind in ("things", "verbs", "sides")
    ]
    found += [functional.cross_entropy(read[kind], wanted[kind]) for kind in ("shape", "count")]
    colours = read["colours"].reshape(-1, len(COLOURS))
    found.append(
        functional.cross_entropy(colours, wanted["colours"].reshape(-1), ignore_index=NOT_SHOWN)
    )
    return sum(found)
