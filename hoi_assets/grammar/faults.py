"""Faulty pictures: plans in which exactly one component of a sentence is false."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from hoi_assets.grammar.plans import (
    BESIDE_FORM,
    FORMS,
    HANDLED,
    PARTNERS,
    PLACES,
    USES,
    Plan,
    Thing,
)
from hoi_assets.grammar.questions import holds
from hoi_assets.grammar.sentences import triples
from hoi_assets.grammar.vocabulary import COLOURS

FAULTS = (
    "wrong_object",
    "wrong_colour",
    "wrong_count",
    "wrong_side",
    "wrong_relation",
    "broken",
    "missing",
)


@dataclass(frozen=True)
class Spoilt:
    """A plan whose picture makes a sentence false: what is drawn, which fault it is, the truth of
    each component of the sentence, exactly one of which is False."""

    plan: Plan
    fault: str
    truth: tuple[bool, ...]


def spoil(plan: Plan, seed: int) -> Spoilt:
    """A plan like `plan` in whose picture exactly one component of `sentence(plan)` is false.

    Components take their turn evenly, and so do the faults that make it false.
    """
    components = triples(plan)
    by_component: dict[int, dict[str, list[Spoilt]]] = {}
    for fault, other in _faults(plan):
        truth = tuple(holds(triple, other) for triple in components)
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
