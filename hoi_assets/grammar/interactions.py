"""Interactions of the tiny world: what a picture is planned to show, how it is said, and asked.

A `Plan` is the truth of one picture. Its sentence is a chain of clauses, one per component
(subject, relation, object), so it is read back without loss:
`parse(sentence(plan)) == triples(plan)`. A thing is named in full where it is mentioned first
("a red spoon"), then by "the" ("the spoon").

`python -m hoi_assets.grammar.interactions --out data/interacting` writes the built-in benchmark.
"""

import argparse
import hashlib
import json
import random
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from hoi_assets.errors import HoiError
from hoi_assets.grammar.captions import agree
from hoi_assets.grammar.vocabulary import (
    BACKGROUNDS,
    COLOURS,
    COUNTS,
    LIGHTS,
    MATERIALS,
    OBJECTS,
    RELATIONS,
    SHAPES,
    SKIN_TONES,
)

SCENARIOS = ("functional", "compositional", "multi_subject")
MAX_WORDS = 30
BENCHMARK_PROMPTS = 44  # per scenario
RESERVED_SHARE = 8  # one sentence in so many belongs to the benchmark, and to no training stream
SETTING_SHARE = 0.4  # of sentences that say light and background as well
FAULTS = (
    "wrong_object",
    "wrong_colour",
    "wrong_count",
    "wrong_side",
    "wrong_relation",
    "broken",
    "missing",
)

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


# --- plans ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Triple:
    """A component of a sentence: two phrases and what relates them."""

    subject: str
    relation: str
    object: str


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
        seed: of all that no word says, and of the sentence's wording.
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


# --- saying ---------------------------------------------------------------------------------------


def sentence(plan: Plan) -> str:
    """The plan in one sentence of at most 30 words.

    >>> plan = make_plan("functional", 1)
    >>> parse(sentence(plan)) == triples(plan)
    True
    """
    rng = random.Random(f"say:{plan.seed}")
    said = ""
    before: Relation | None = None
    for relation, triple in zip(plan.relations, triples(plan), strict=True):
        clause = f"{triple.subject} {triple.relation} {triple.object}"
        chance = rng.random()
        if before is None:
            said = clause
        elif before.object == relation.subject and chance < 0.5:
            said += f" that {triple.relation} {triple.object}"
        elif relation.subject.startswith("hand") and chance < 0.5:
            said += f", while {clause}"
        else:
            said += f", and {clause}"
        before = relation
    return ", ".join([said, plan.light, plan.background]) if plan.setting else said


def triples(plan: Plan) -> tuple[Triple, ...]:
    """The components of the plan's sentence, in order."""
    told = []
    known: set[str] = set()
    for relation in plan.relations:
        subject, object_ = (
            noun_of(plan, ref).phrase(ref in known) for ref in (relation.subject, relation.object)
        )
        known |= {relation.subject, relation.object}
        verb = "hold" if relation.subject == "hands" else relation.verb
        told.append(Triple(subject, verb, object_))
    return tuple(told)


@dataclass(frozen=True)
class Noun:
    """What a phrase names. adjective: colour or side, None unsaid; count: None for "the"."""

    head: str
    adjective: str | None
    count: int | None

    def phrase(self, known: bool = False) -> str:
        """In words; `known` things are named by "the".

        >>> Noun("box", "red", 3).phrase(), Noun("box", "red", 1).phrase(known=True)
        ('three red boxes', 'the box')
        """
        if known:
            return f"the {self.head}"
        if self.count is not None and self.count > 1:
            words = [_WORDS[self.count], self.adjective, _plural(self.head)]
        else:
            words = ["an" if self.adjective == "orange" else "a", self.adjective, self.head]
        return " ".join(word for word in words if word)


_WORDS = {number: word for word, number in COUNTS.items()}


def noun_of(plan: Plan, ref: str) -> Noun:
    """What a relation's `subject` or `object` stands for."""
    if ref == "hands":
        return Noun("hand", None, 2)
    if ref == "shape":
        return Noun(str(plan.shape), None, 1)
    if ref.startswith("hand"):
        return Noun("hand", plan.hands[int(ref[-1])].side, 1)
    thing = plan.things[int(ref[-1])]
    return Noun(thing.kind, thing.colour, thing.count)


def _plural(head: str) -> str:
    return head + ("es" if head.endswith("x") else "s")


# --- reading --------------------------------------------------------------------------------------

_HEADS = (*OBJECTS, "hand", *SHAPES)
_SINGULAR = {_plural(head): head for head in _HEADS}
_ADJECTIVES = (*COLOURS, "left", "right")
_JOINER = re.compile(r", and |, while ")


@lru_cache(maxsize=1)
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """Noun phrase, clause, and the rest of a clause after "that"."""
    adjective = f"(?:(?:{'|'.join(_ADJECTIVES)}) )?"
    one = f"(?:an?|the) {adjective}(?:{'|'.join(_HEADS)})"
    many = f"(?:{'|'.join(COUNTS)}) {adjective}(?:{'|'.join(_SINGULAR)})"
    noun = f"(?:{one}|{many})"
    relation = "|".join(sorted(RELATIONS, key=len, reverse=True))
    rest = f"(?P<relation>{relation}) (?P<object>{noun})"
    return (
        re.compile(f"(?P<article>\\w+) (?P<adjective>{adjective})(?P<head>\\w+)"),
        re.compile(f"(?P<subject>{noun}) {rest}"),
        re.compile(rest),
    )


def parse(prompt: str) -> tuple[Triple, ...] | None:
    """The components of a sentence of this grammar; None for any other text.

    >>> parse("a right hand holds a red spoon that stirs in a blue bowl, soft light")[1]
    Triple(subject='the spoon', relation='stirs in', object='a blue bowl')
    """
    _, clause, rest = _patterns()
    text = " ".join(prompt.lower().split()).removesuffix(".")
    pieces = text.split(", ")
    while pieces and pieces[-1] in (*LIGHTS, *BACKGROUNDS):
        pieces.pop()
    found: list[Triple] = []
    for part in _JOINER.split(", ".join(pieces)):
        first, *further = part.split(" that ")
        match = clause.fullmatch(first)
        if match is None:
            return None
        found.append(Triple(**match.groupdict()))
        for piece in further:
            match, noun = rest.fullmatch(piece), read_noun(found[-1].object)
            if match is None or noun is None:
                return None
            found.append(Triple(f"the {noun.head}", match["relation"], match["object"]))
    return tuple(found)


def read_noun(phrase: str) -> Noun | None:
    """What a phrase of this grammar names; None for any other text.

    >>> read_noun("six red balls")
    Noun(head='ball', adjective='red', count=6)
    """
    match = _patterns()[0].fullmatch(phrase)
    if match is None:
        return None
    article, adjective = match["article"], match["adjective"].strip() or None
    head = match["head"]
    if article in COUNTS:
        return Noun(_SINGULAR[head], adjective, COUNTS[article]) if head in _SINGULAR else None
    if article not in ("a", "an", "the") or head not in _HEADS:
        return None
    return Noun(head, adjective, None if article == "the" else 1)


def question(triple: Triple) -> str:
    """Ask whether a component holds; "yes" is the answer when it does.

    >>> question(Triple("the spoon", "stirs in", "a blue bowl"))
    'does the spoon stir in a blue bowl?'
    >>> question(Triple("the ring", "is beside", "a mug"))
    'is the ring beside a mug?'
    """
    verb, _, rest = triple.relation.partition(" ")
    if verb in ("is", "are"):
        words = [verb, triple.subject, rest, triple.object]
    else:
        noun = read_noun(triple.subject)
        many = noun is not None and noun.count is not None and noun.count > 1
        words = ["do" if many else "does", triple.subject, agree(triple.relation, plural=True),
                 triple.object]  # fmt: skip
    return " ".join(word for word in words if word) + "?"


# --- truth ----------------------------------------------------------------------------------------

_SYMMETRIC = ("is beside",)
_KINDS = {"form": "shape", "hold": "holding", "holds": "holding"} | dict.fromkeys(
    ("is beside", "is in", "is in front of", "is on", "surrounds"), "place"
)


def component_kind(triple: Triple) -> str:
    """holding | action | shape | place."""
    return _KINDS.get(triple.relation, "action")


def holds(triple: Triple, plan: Plan) -> bool:
    """Whether a component of any sentence of this grammar is true of the plan's picture.

    What a phrase leaves unsaid is free: "the spoon" is a spoon of any colour.

    Raises:
        HoiError: for a phrase or relation that is not of this grammar.
    """
    subject, object_ = read_noun(triple.subject), read_noun(triple.object)
    if subject is None or object_ is None or triple.relation not in RELATIONS:
        raise HoiError(
            f"'{triple.subject} {triple.relation} {triple.object}' is not of the scenes' grammar",
            "Ask about components that parse() gave.",
        )
    verb = "holds" if triple.relation == "hold" else triple.relation
    for relation in plan.relations:
        if relation.verb != verb:
            continue
        shown = noun_of(plan, relation.subject), noun_of(plan, relation.object)
        if _fits(subject, shown[0]) and _fits(object_, shown[1]):
            return True
        if verb in _SYMMETRIC and _fits(subject, shown[1]) and _fits(object_, shown[0]):
            return True
    return False


def _fits(asked: Noun, shown: Noun) -> bool:
    return (
        asked.head == shown.head
        and asked.adjective in (None, shown.adjective)
        and asked.count in (None, shown.count)
    )


# --- faults ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spoilt:
    """A plan whose picture belies a sentence: what is drawn, which fault it is, and the truth of
    each component of the sentence, exactly one of which is False."""

    plan: Plan
    fault: str
    truth: tuple[bool, ...]


def spoil(plan: Plan, seed: int) -> Spoilt:
    """A plan like `plan` in whose picture exactly one component of `sentence(plan)` is false.

    Components take their turn evenly, and so do the faults that belie a component.
    """
    told = triples(plan)
    by_component: dict[int, dict[str, list[Spoilt]]] = {}
    for fault, other in _faults(plan):
        truth = tuple(holds(triple, other) for triple in told)
        if truth.count(False) == 1:
            by_fault = by_component.setdefault(truth.index(False), {})
            by_fault.setdefault(fault, []).append(Spoilt(other, fault, truth))
    rng = random.Random(f"spoil:{plan.seed}:{seed}")
    by_fault = by_component[rng.choice(sorted(by_component))]
    return rng.choice(by_fault[rng.choice(sorted(by_fault))])


def _faults(plan: Plan) -> Iterator[tuple[str, Plan]]:
    """Every plan one step away, with the kind of step."""
    used = {thing.colour for thing in plan.things}
    kinds = {thing.kind for thing in plan.things}
    for place, thing in enumerate(plan.things):
        for colour in COLOURS:
            if colour not in used:
                yield "wrong_colour", _with_thing(plan, place, replace(thing, colour=colour))
        for kind in _other_kinds(plan, place):
            if kind not in kinds:
                yield "wrong_object", _with_thing(plan, place, replace(thing, kind=kind))
    if plan.pattern == "form":
        for count in FORMS[str(plan.shape)][1]:
            if count != plan.things[0].count:
                thing = replace(plan.things[0], count=count)
                yield "wrong_count", _with_thing(plan, 0, thing)
        for verb in BESIDE_FORM[str(plan.shape)]:
            if verb != plan.verb("shape"):
                yield "wrong_relation", _with_verb(plan, 1, verb)
    if plan.pattern == "place":
        yield "wrong_relation", _with_verb(plan, 0, "is beside")
    if len(plan.hands) == 1:
        hand = plan.hands[0]
        other = "left" if hand.side == "right" else "right"
        yield "wrong_side", replace(plan, hands=(replace(hand, side=other),))
    for number in _BREAKABLE[plan.pattern]:
        kept = plan.relations[:number] + plan.relations[number + 1 :]
        yield "broken", replace(plan, relations=kept)
    for place in _OPTIONAL[plan.pattern]:
        kept = tuple(
            each for each in plan.relations if f"thing{place}" not in (each.subject, each.object)
        )
        gone = _with_thing(plan, place, replace(plan.things[place], count=0))
        yield "missing", replace(gone, relations=kept)


# Relations that a picture can do without (the tool beside its target, the target on the table), and
# things it can leave out, each with what holds it.
_BREAKABLE: dict[str, tuple[int, ...]] = {
    "use": (1,), "form": (), "place": (), "hold_use": (0, 2), "together": (), "each": (),
    "offer": (0, 1),
}  # fmt: skip
_OPTIONAL: dict[str, tuple[int, ...]] = {
    "use": (1,), "form": (1,), "place": (0, 2), "hold_use": (), "together": (1,), "each": (0, 1),
    "offer": (),
}  # fmt: skip


def _other_kinds(plan: Plan, place: int) -> tuple[str, ...]:
    """What could stand in a thing's place and leave the sentence one of this grammar."""
    kinds = [thing.kind for thing in plan.things]
    if plan.pattern == "use" and place == 1:
        return USES[kinds[0]][1]
    if plan.pattern == "form":
        return FORMS[str(plan.shape)][0] if place == 0 else PARTNERS
    if plan.pattern == "place":
        return (PLACES[kinds[1]][1], (), PARTNERS)[place]
    if plan.pattern == "together" and place == 1:
        return PLACES[kinds[0]][1]
    return HANDLED if plan.pattern == "each" else ()


def _with_thing(plan: Plan, place: int, thing: Thing) -> Plan:
    return replace(plan, things=(*plan.things[:place], thing, *plan.things[place + 1 :]))


def _with_verb(plan: Plan, number: int, verb: str) -> Plan:
    changed = replace(plan.relations[number], verb=verb)
    kept = plan.relations
    return replace(plan, relations=(*kept[:number], changed, *kept[number + 1 :]))


# --- streams --------------------------------------------------------------------------------------

# No two splits share a picture; none shows a sentence of the benchmark.
SPLITS = ("interactions", "interactions_judge", "interactions_examiner", "interactions_test")


@dataclass(frozen=True)
class Item:
    """One picture of a stream: the sentence told about it, what is drawn, and what is asked.

    Attributes:
        fault: what makes the drawn plan belie the sentence; None where it does not.
        asked: components in which the sentence and its spoilt twin differ, and others, mixed.
    """

    split: str
    index: int
    told: Plan
    drawn: Plan
    fault: str | None
    asked: tuple[Triple, ...]

    @property
    def plans(self) -> tuple[Plan, ...]:
        """What is drawn: one picture."""
        return (self.drawn,)

    def row(self) -> dict[str, Any]:
        """Sentence, components and questions, each with its truth in the drawn picture."""
        told = triples(self.told)
        return {
            "scene_id": f"{self.split}-{self.index:06d}",
            "split": self.split,
            "prompt": sentence(self.told),
            "alignment": self.fault is None,
            "fault": self.fault,
            "triples": [[each.subject, each.relation, each.object] for each in told],
            "truth": [holds(each, self.drawn) for each in told],
            "questions": [question(each) for each in self.asked],
            "answers": [holds(each, self.drawn) for each in self.asked],
            "kinds": [component_kind(each) for each in self.asked],
            "light": self.drawn.light,
            "background": self.drawn.background,
            "seed": self.drawn.seed,
        }


def plan_interactions(split: str, first: int, count: int) -> list[Item]:
    """Pictures `first` to `first + count` of a stream, scenarios in turn.

    Half of the pictures are spoilt. About half of the answers are yes, whatever is asked: a
    question about a spoilt twin's difference is asked of both twins.
    """
    return [_item(split, index) for index in range(first, first + count)]


def _item(split: str, index: int) -> Item:
    rng = random.Random(f"{split}:{index}")
    scenario = SCENARIOS[index % len(SCENARIOS)]
    while True:
        plan = make_plan(scenario, rng.randrange(2**31))
        spoilt = spoil(plan, rng.randrange(2**31))
        if not is_reserved(plan) and not is_reserved(spoilt.plan):
            break
    drawn, fault = rng.choice(((plan, None), (spoilt.plan, spoilt.fault)))
    stranger = _swapped(plan) if len(plan.hands) == 2 and rng.random() < 0.5 else None
    stranger = stranger or make_plan(scenario, rng.randrange(2**31))
    asked = [rng.choice(triples(stranger))]
    for triple in (*triples(plan), *triples(spoilt.plan)):
        # What both twins show would be asked with the answer yes only.
        differs = holds(triple, plan) != holds(triple, spoilt.plan)
        if triple not in asked and (differs or rng.random() < 0.6):
            asked.append(triple)
    rng.shuffle(asked)
    return Item(split, index, plan, drawn, fault, tuple(asked))


def _swapped(plan: Plan) -> Plan:
    """The plan with its two hands in each other's place."""
    return replace(plan, hands=plan.hands[::-1])


# --- the built-in benchmark -----------------------------------------------------------------------


def is_reserved(plan: Plan) -> bool:
    """Whether the plan's components belong to the benchmark: no training picture shows them."""
    told = json.dumps([asdict(triple) for triple in triples(plan)])
    return hashlib.sha256(told.encode("utf-8")).digest()[0] % RESERVED_SHARE == 0


def benchmark(scenario: str, count: int = BENCHMARK_PROMPTS) -> list[Plan]:
    """The plans behind the built-in benchmark's prompts of a scenario; no two are alike."""
    plans: dict[tuple[Triple, ...], Plan] = {}
    seed = 0
    while len(plans) < count:
        plan = replace(make_plan(scenario, seed), setting=False)
        if is_reserved(plan):
            plans.setdefault(triples(plan), plan)
        seed += 1
    return list(plans.values())


def benchmark_row(plan: Plan) -> dict[str, str]:
    """A line of the benchmark's files: `topic` and `prompt`, as the official files have them."""
    heads = [
        noun_of(plan, ref).head
        for relation in plan.relations
        for ref in (relation.subject, relation.object)
    ]
    topic = "-".join(head for head in dict.fromkeys(heads) if head != "hand")
    return {"topic": topic, "prompt": sentence(plan)}


def write_benchmark(out: Path) -> list[Path]:
    """Write `<out>/<scenario>.jsonl` for the three scenarios; returns the paths."""
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for scenario in SCENARIOS:
        lines = [json.dumps(benchmark_row(plan)) + "\n" for plan in benchmark(scenario)]
        path = out / f"{scenario}.jsonl"
        path.write_text("".join(lines), encoding="utf-8")
        paths.append(path)
    return paths


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the built-in benchmark."""
    parser = argparse.ArgumentParser(prog="python -m hoi_assets.grammar.interactions")
    parser.add_argument("--out", type=Path, required=True, help="folder of the benchmark")
    for path in write_benchmark(parser.parse_args(arguments).out):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
