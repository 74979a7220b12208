"""Sentences about interactions: written from plans, and read back without loss.

A sentence is a chain of clauses, one per component (subject, relation, object):
`parse(sentence(plan)) == triples(plan)`. A thing is named in full where it is mentioned first
("a red spoon"), then by "the" ("the spoon").
"""

import random
import re
from dataclasses import dataclass
from functools import lru_cache

from hoi_assets.grammar.plans import Plan, Relation
from hoi_assets.grammar.vocabulary import (
    BACKGROUNDS,
    COLOURS,
    COUNTS,
    LIGHTS,
    OBJECTS,
    RELATIONS,
    SHAPES,
)


@dataclass(frozen=True)
class Triple:
    """A component of a sentence: two phrases and what relates them."""

    subject: str
    relation: str
    object: str


def sentence(plan: Plan) -> str:
    """The plan in one sentence of at most 30 words.

    >>> from hoi_assets.grammar.plans import make_plan
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
    found = []
    known: set[str] = set()
    for relation in plan.relations:
        subject, object_ = (
            noun_of(plan, ref).phrase(ref in known) for ref in (relation.subject, relation.object)
        )
        known |= {relation.subject, relation.object}
        verb = "hold" if relation.subject == "hands" else relation.verb
        found.append(Triple(subject, verb, object_))
    return tuple(found)


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
