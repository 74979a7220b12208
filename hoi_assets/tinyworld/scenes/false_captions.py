"""False captions: slots in which exactly one claim about the picture is wrong, on purpose.

Published tables call such a claim a lie (column `lies`).
"""

import random
from collections.abc import Sequence
from typing import Any

from hoi_assets.errors import HoiError
from hoi_assets.grammar.captions import Slots
from hoi_assets.grammar.vocabulary import COLOURS, OBJECTS

FALSE_CLAIMS = ("wrong_object", "wrong_colour", "wrong_count", "wrong_side", "wrong_pose")
# Too alike to call the wrong name a false claim.
LOOK_ALIKES = ({"ball", "bead"}, {"pen", "brush"}, {"card", "phone"})


def false_claims_for(slots: Slots) -> tuple[str, ...]:
    """Kinds of false claim that fit `slots`: some need a hand, or a hand with a side."""
    if not slots.get("side"):
        return ("wrong_object", "wrong_colour")
    if slots["side"] == "both":
        return tuple(kind for kind in FALSE_CLAIMS if kind != "wrong_side")
    return FALSE_CLAIMS


def with_false_claim(
    slots: Slots, kind: str, rng: random.Random, grips: Sequence[str] | None = None
) -> dict[str, Any]:
    """Slots that differ from `slots` by exactly one false claim.

    Args:
        kind: one of `false_claims_for(slots)`.
        grips: the grip phrases of all categories; needed for wrong_pose.

    Raises:
        HoiError: when the kind is unknown or does not apply to these slots.
    """
    if kind not in false_claims_for(slots):
        raise HoiError(
            f"no false claim '{kind}' can be made about a picture with side {slots.get('side')!r}",
            f"Choose one of: {', '.join(false_claims_for(slots))}.",
        )
    claimed = dict(slots)
    if kind == "wrong_object":
        alike = set().union(*(pair for pair in LOOK_ALIKES if slots["object"] in pair))
        claimed["object"] = rng.choice(
            [name for name in OBJECTS if name != slots["object"] and name not in alike]
        )
    elif kind == "wrong_colour":
        claimed["colour"] = _other(COLOURS, slots["colour"], rng)
    elif kind == "wrong_count":
        claimed["side"] = rng.choice(("left", "right")) if slots["side"] == "both" else "both"
    elif kind == "wrong_side":
        claimed["side"] = "left" if slots["side"] == "right" else "right"
    else:
        if not grips:
            raise HoiError(
                "the false claim 'wrong_pose' needs the grip phrases of other categories",
                "Pass grips=[category.grip_phrase for every category].",
            )
        claimed["grip"] = _other(grips, slots["grip"], rng)
    return claimed


def _other(words: Sequence[str], word: str, rng: random.Random) -> str:
    return rng.choice([other for other in words if other != word])
