"""Plans of interaction pictures: which hands and things a picture shows, and what relates them.

A `Plan` is the truth of one picture; `sentences` puts it into words, `questions` asks about it,
`faults` changes it so that one component of its sentence becomes false.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from hoi_assets.errors import HoiError
from hoi_assets.grammar.vocabulary import (
    BACKGROUNDS,
    COLOURS,
    LIGHTS,
    MATERIALS,
    SHAPES,
    SKIN_TONES,
)

SCENARIOS = ("functional", "compositional", "multi_subject")
SETTING_SHARE = 0.4  # of sentences that say light and background as well
# A tool, what it does, and to what.
USES: dict[str, tuple[str, tuple[str, ...]]] = {
    "bottle": ("pours into", ("bowl", "mug")),
    "brush": ("paints", ("box", "plate")),
    "key": ("opens", ("box",)),
    "pen": ("writes on", ("book", "card")),
    "spoon": ("stirs in", ("bowl", "mug")),
    "stick": ("taps", ("bell", "can")),
}
# The same with the target held in the other hand.
HELD_USES: dict[str, tuple[str, ...]] = {
    "bottle": ("bowl", "mug"),
    "brush": ("plate",),
    "pen": ("book", "card"),
    "spoon": ("bowl", "mug"),
    "stick": ("can",),
}
# A shape, what forms it, and how many of them.
FORMS: dict[str, tuple[tuple[str, ...], tuple[int, ...]]] = {
    "ring": (("apple", "ball", "bell", "can", "egg"), (5, 6, 7, 8)),
    "row": (("apple", "ball", "bell", "can", "egg", "mug"), (3, 4, 5, 6)),
    "zigzag": (("apple", "ball", "box", "can", "egg"), (5, 6, 7)),
    "cross": (("apple", "ball", "can", "egg"), (5, 9)),
    "triangle": (("apple", "ball", "box", "can", "egg"), (3, 6)),
    "tower": (("book", "box", "can"), (2, 3, 4)),
}
BESIDE_FORM = {
    shape: ("surrounds", "is beside") if shape == "ring" else ("is beside", "is in front of")
    for shape in SHAPES
}
PARTNERS = ("apple", "ball", "bell", "bottle", "bowl", "bucket", "can", "mug")
# What lies on or in what.
PLACES: dict[str, tuple[str, tuple[str, ...]]] = {
    "book": ("is on", ("apple", "ball", "bell", "can", "egg", "mug")),
    "bowl": ("is in", ("apple", "ball", "egg")),
    "box": ("is on", ("apple", "ball", "bell", "can", "egg", "mug")),
}
HANDLED = ("apple", "ball", "bottle", "bowl", "can", "egg", "mug", "plate")
# What is held out on the palm, and what the other hand's finger does.
OFFERS: dict[str, str] = {
    "ball": "points at",
    "book": "points at",
    "bowl": "points at",
    "card": "points at",
    "phone": "presses",
    "plate": "points at",
}


@dataclass(frozen=True)
class Thing:
    """`count` things of one kind, colour and material; none is shown when count is 0."""

    kind: str
    colour: str
    material: str
    count: int = 1


@dataclass(frozen=True)
class Hand:
    """A hand: side left or right, and skin tone."""

    side: str
    skin_tone: str


@dataclass(frozen=True)
class Relation:
    """What the picture shows. subject, object: `hand0`, `hand1`, `hands`, `thing0` .., `shape`."""

    subject: str
    verb: str
    object: str


@dataclass(frozen=True)
class Plan:
    """What one picture shows; plain values, all that drawing needs.

    Attributes:
        pattern: use | form | place | hold_use | together | each | offer, see `make_plan`.
        things: in the places that the pattern gives them.
        shape: what thing0 form, in the pattern form; else None.
        relations: those that hold, in the order they are said.
        setting: whether the sentence says light and background.
        seed: of all that the sentence leaves open, and of its form.
    """

    scenario: str
    pattern: str
    hands: tuple[Hand, ...]
    things: tuple[Thing, ...]
    shape: str | None
    relations: tuple[Relation, ...]
    light: str
    background: str
    setting: bool
    seed: int

    def verb(self, subject: str) -> str | None:
        """What `subject` does; None where it does nothing."""
        return next((each.verb for each in self.relations if each.subject == subject), None)

    def holder(self, thing: str) -> str | None:
        """`hand0`, `hand1` or `hands`, whichever holds the thing; None where none does."""
        held = (each for each in self.relations if each.verb == "holds" and each.object == thing)
        return next((each.subject for each in held), None)

    def as_json(self) -> str:
        """The plan as one JSON object; `plan_from_json` reads it."""
        return json.dumps(asdict(self), sort_keys=True)


def plan_from_json(text: str) -> Plan:
    """Read what `Plan.as_json` wrote."""
    raw = json.loads(text)
    return Plan(
        **raw
        | {
            "hands": tuple(Hand(**each) for each in raw["hands"]),
            "things": tuple(Thing(**each) for each in raw["things"]),
            "relations": tuple(Relation(**each) for each in raw["relations"]),
        }
    )


def make_plan(scenario: str, seed: int) -> Plan:
    """Plan a picture; equal arguments give equal plans.

    functional: a hand uses thing0 on thing1 (use). compositional: thing0 form a shape near thing1
    (form), or thing0 is on or in thing1, which is beside thing2 (place). multi_subject: one hand
    uses thing0 on thing1, which the other hand holds (hold_use); two hands hold thing0, thing1 is
    on or in it (together); each hand holds a thing (each); one hand holds thing0 on its palm and
    the other points at it or presses it (offer).

    Raises:
        HoiError: for an unknown scenario.
    """
    if scenario not in SCENARIOS:
        raise HoiError(f"no scenario '{scenario}'", f"Choose one of: {', '.join(SCENARIOS)}.")
    rng = random.Random(f"{scenario}:{seed}")
    if scenario == "functional":
        return _use(rng)
    if scenario == "compositional":
        return rng.choices((_form, _place), weights=(3, 1))[0](rng)
    return rng.choices((_hold_use, _together, _each, _offer), weights=(4, 2, 2, 2))[0](rng)


def _use(rng: random.Random) -> Plan:
    tool = rng.choice(tuple(USES))
    verb, targets = USES[tool]
    relations = (Relation("hand0", "holds", "thing0"), Relation("thing0", verb, "thing1"))
    kinds = (tool, rng.choice(targets))
    return _plan(rng, "functional", "use", _hands(rng, 1), kinds, relations)


def _form(rng: random.Random) -> Plan:
    shape = rng.choice(SHAPES)
    kinds, counts = FORMS[shape]
    kind = rng.choice(kinds)
    partner = rng.choice([other for other in PARTNERS if other != kind])
    relations = (
        Relation("thing0", "form", "shape"),
        Relation("shape", rng.choice(BESIDE_FORM[shape]), "thing1"),
    )
    return _plan(rng, "compositional", "form", (), (kind, partner), relations, shape,
                 rng.choice(counts))  # fmt: skip


def _place(rng: random.Random) -> Plan:
    under = rng.choice(tuple(PLACES))
    verb, tops = PLACES[under]
    top = rng.choice(tops)
    partner = rng.choice([other for other in PARTNERS if other not in (top, under)])
    relations = (Relation("thing0", verb, "thing1"), Relation("thing1", "is beside", "thing2"))
    return _plan(rng, "compositional", "place", (), (top, under, partner), relations)


def _hold_use(rng: random.Random) -> Plan:
    tool = rng.choice(tuple(HELD_USES))
    relations = (
        Relation("hand0", "holds", "thing1"),
        Relation("hand1", "holds", "thing0"),
        Relation("thing0", USES[tool][0], "thing1"),
    )
    kinds = (tool, rng.choice(HELD_USES[tool]))
    return _plan(rng, "multi_subject", "hold_use", _hands(rng, 2), kinds, relations)


def _together(rng: random.Random) -> Plan:
    under = rng.choice(("bowl", "box"))
    verb, tops = PLACES[under]
    relations = (Relation("hands", "holds", "thing0"), Relation("thing1", verb, "thing0"))
    kinds = (under, rng.choice(tops))
    return _plan(rng, "multi_subject", "together", _hands(rng, 2), kinds, relations)


def _each(rng: random.Random) -> Plan:
    relations = (Relation("hand0", "holds", "thing0"), Relation("hand1", "holds", "thing1"))
    kinds = tuple(rng.sample(HANDLED, 2))
    return _plan(rng, "multi_subject", "each", _hands(rng, 2), kinds, relations)


def _offer(rng: random.Random) -> Plan:
    kind = rng.choice(tuple(OFFERS))
    relations = (Relation("hand0", "holds", "thing0"), Relation("hand1", OFFERS[kind], "thing0"))
    return _plan(rng, "multi_subject", "offer", _hands(rng, 2), (kind,), relations)


def _hands(rng: random.Random, count: int) -> tuple[Hand, ...]:
    sides = rng.sample(("left", "right"), 2)
    tone = rng.choice(SKIN_TONES)
    return tuple(Hand(side, tone) for side in sides[:count])


def _plan(
    rng: random.Random,
    scenario: str,
    pattern: str,
    hands: tuple[Hand, ...],
    kinds: Sequence[str],
    relations: tuple[Relation, ...],
    shape: str | None = None,
    count: int = 1,
) -> Plan:
    colours = rng.sample(COLOURS, len(kinds))
    things = tuple(
        Thing(kind, colour, rng.choice(MATERIALS), 1 if place else count)
        for place, (kind, colour) in enumerate(zip(kinds, colours, strict=True))
    )
    # White things would be lost before a white wall.
    walls = [wall for wall in BACKGROUNDS if wall != "white wall" or "white" not in colours]
    return Plan(
        scenario, pattern, hands, things, shape, relations, rng.choice(LIGHTS), rng.choice(walls),
        rng.random() < SETTING_SHARE, rng.randrange(2**31),
    )  # fmt: skip
