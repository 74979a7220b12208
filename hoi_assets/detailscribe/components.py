"""Components of an interaction: who does what to what, with a question that yes or no answers.

The published flat form, `(a holds b) + (b stirs c)`, has no marks within a part. It is read back by
rule: the relation is, from the second word on, the first

1. relation of the built-in grammar (the longest), common verb in -s or -ing, `is` or `are`, or
   participle before a preposition (`made of`);
2. common verb in its plain form (`paw hold brush`, as published);
3. other word in -s or -ing;

with, outside of the grammar, the prepositions after it and the adverbs in -ly before it. A word in
-s or -ing behind an article, a number or a preposition is taken for a noun. A part without any verb
is kept whole as the subject of `is shown`. So text → components → text keeps the words, and
components of the grammar come back as they were.
"""

import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from hoi_assets.errors import HoiError
from hoi_assets.grammar.vocabulary import RELATIONS
from hoi_assets.llm.prompt_templates import validation_problem

MAX_PHRASE_CHARACTERS = 120
MAX_QUESTION_CHARACTERS = 300
SHOWN = "is shown"
# `<(concept: sawing) = (hand holds saw)>` is how a reply of the published prompt looks.
_HEAD = re.compile(r"\s*<?\s*(?:\(\s*concept\s*:[^()]*\)\s*=)?", re.IGNORECASE)


def word_set(text: str) -> frozenset[str]:
    """A set of words, written as a text."""
    return frozenset(text.split())


PREPOSITIONS = word_set(
    """
    about above across against along among around as at atop before behind below beneath beside
    between beyond by down from in inside into near of off on onto out over past through to toward
    towards under up upon with within
    """
)
ARTICLES_AND_NUMBERS = word_set(
    """
    a an the and her his its their many several some
    one two three four five six seven eight nine ten
    """
)
# Those that are seldom nouns or adjectives.
_VERBS = word_set(
    """
    add balance carry carve catch chase chop create cut dip drag drink eat embrace feed fill fold
    give grasp grip hang hit hold hug jump kick knead lean lie lift look loosen make march mix
    nestle peel perch place play point pour pull push put read rest ride roll run sail scoop sculpt
    sew sharpen sip sit slice spin spray squeeze stand steer stir stroke support surround sweep
    swing take throw tighten toss touch turn use walk wave wear weave whisk wield wipe wrap write
    """
)
_IRREGULAR_PARTICIPLES = word_set("built cut drawn held made spun woven worn written")
_NOUNS_IN_ING = word_set(
    """
    building ceiling clothing evening king lightning morning ring sibling spring string thing wing
    """
)

Place = tuple[int, int]


def _line(text: str, most: int) -> str:
    text = " ".join(text.split())
    if not text:
        raise ValueError("is empty")
    if not text.isprintable():
        raise ValueError("holds characters that cannot be printed")
    if len(text) > most:
        raise ValueError(f"has {len(text)} characters, at most {most} are allowed")
    return text


def _phrase(text: str) -> str:
    if re.search(r"[()<>+]", text):
        raise ValueError("holds one of ( ) < > +, which the flat form keeps for itself")
    return _line(text.strip(" .,;\t\n"), MAX_PHRASE_CHARACTERS)


def _phrase_or_nothing(text: str) -> str:
    return _phrase(text) if text.strip(" .,;\t\n") else ""


def _question(text: str) -> str:
    text = _line(text, MAX_QUESTION_CHARACTERS)
    if not text.endswith("?"):
        raise ValueError("is no question: it does not end with '?'")
    return text


Phrase = Annotated[str, AfterValidator(_phrase)]


class Component(BaseModel):
    """One interaction that a picture shows or does not.

    Phrases are short, printable and without `( ) < > +`; `object` is empty where nothing is acted
    on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    subject: Annotated[Phrase, Field(description="the part that acts, e.g. the fox's paw")]
    relation: Annotated[Phrase, Field(description="a verb with its preposition, third person")]
    object: Annotated[
        str,
        AfterValidator(_phrase_or_nothing),
        Field(description="what is acted on; empty where there is nothing"),
    ]
    question: Annotated[
        str,
        AfterValidator(_question),
        Field(description="about the picture; yes means that this component is there"),
    ]

    @property
    def statement(self) -> str:
        """The component in words, e.g. `a hand holds a brush`."""
        return " ".join(filter(None, (self.subject, self.relation, self.object)))


def component(subject: str, relation: str, object: str = "", question: str = "") -> Component:
    """A component; where no question is given, the plain one.

    >>> component("a hand", "holds", "a brush").question
    'Does the picture show that a hand holds a brush?'

    Raises:
        ValidationError: a phrase that is empty, too long or not printable.
    """
    said = subject if relation == SHOWN and not object else f"{subject} {relation} {object}"
    shown = said if said == subject else f"that {said.strip()}"
    plain = f"Does the picture show {shown}?"
    return Component(subject=subject, relation=relation, object=object, question=question or plain)


def to_flat(components: Sequence[Component]) -> str:
    """The published flat form; questions are left out.

    >>> to_flat([component("a", "holds", "b"), component("b", "stirs", "c")])
    '(a holds b) + (b stirs c)'
    """
    return " + ".join(f"({_flat(one)})" for one in components)


def _flat(one: Component) -> str:
    return one.subject if (one.relation, one.object) == (SHOWN, "") else one.statement


def from_flat(text: str) -> tuple[Component, ...]:
    """Components of a flat form, split by the rule above, with the plain question each.

    The angle brackets and the `(concept: …) =` of published replies are let pass.

    >>> [one.relation for one in from_flat("(hand hold saw) + (pan is on a tray)")]
    ['hold', 'is on']

    Raises:
        HoiError: brackets that do not match, a part that is empty or too long, text between parts;
            it names the character.
    """
    components = []
    for place, part in _parts(text):
        try:
            components.append(component(*split_phrase(part)))
        except ValidationError as error:
            raise _unreadable(text, place, f"a part whose {validation_problem(error)}") from error
    return tuple(components)


def _parts(text: str) -> list[tuple[int, str]]:
    """The texts in brackets, each with the place (from 1) of its first character."""
    found: list[tuple[int, str]] = []
    head = _HEAD.match(text)
    begin = head.end() if head else 0
    end = len(text.rstrip().removesuffix(">"))
    opened: int | None = None
    joined = True
    for place, sign in enumerate(text[begin:end], start=begin + 1):
        if sign == "(":
            if opened is not None:
                raise _unreadable(text, place, "'(' within brackets")
            if not joined:
                raise _unreadable(text, place, "no '+' before this part")
            opened = place
        elif sign == ")":
            if opened is None:
                raise _unreadable(text, place, "')' without '('")
            found.append((opened + 1, text[opened : place - 1]))
            opened, joined = None, False
        elif opened is None and sign == "+":
            if joined:
                raise _unreadable(text, place, "'+' with nothing before it")
            joined = True
        elif opened is None and not sign.isspace():
            raise _unreadable(text, place, f"{sign!r} outside of brackets")
    if opened is not None:
        raise _unreadable(text, opened, "'(' is not closed")
    if joined:
        raise _unreadable(
            text, end, "'+' with nothing after it" if found else "no part in brackets"
        )
    return found


def _unreadable(text: str, place: int, problem: str) -> HoiError:
    near = text[max(0, place - 11) : place + 20]
    return HoiError(
        f"flat form, character {place}: {problem}, near {near!r}",
        "write it as (a holds b) + (b stirs c)",
    )


def split_phrase(text: str) -> tuple[str, str, str]:
    """Subject, relation and object of a phrase, by the rule above.

    >>> split_phrase("A fox stirs a stew")
    ('A fox', 'stirs', 'a stew')
    """
    words = text.split()
    finders: tuple[Callable[[list[str]], Place | None], ...] = (
        _known_verb,
        _plain_verb,
        _ending_like_a_verb,
    )
    low = [word.casefold().strip(",;.") for word in words]
    for find in finders:
        place = find(low)
        if place:
            start, end = place
            return " ".join(words[:start]), " ".join(words[start:end]), " ".join(words[end:])
    return " ".join(words), SHOWN, ""


def _known_verb(words: list[str]) -> Place | None:
    for start in range(1, len(words)):
        for relation in _grammar_relations():
            if tuple(words[start : start + len(relation)]) == relation:
                return start, start + len(relation)
        if _is_inflected(words, start):
            return _whole(words, start)
    return None


@cache
def _grammar_relations() -> tuple[tuple[str, ...], ...]:
    """Relations of the grammar as words, longest first."""
    split = {tuple(relation.casefold().split()) for relation in RELATIONS}
    return tuple(sorted(split, key=lambda words: (-len(words), words)))


def _is_inflected(words: list[str], n: int) -> bool:
    word = words[n]
    if word in ("is", "are") or (word in _inflections() and _may_be_verb(words, n)):
        return True
    participle = word.endswith("ed") or word in _IRREGULAR_PARTICIPLES
    return participle and n + 1 < len(words) and words[n + 1] in PREPOSITIONS


def _plain_verb(words: list[str]) -> Place | None:
    return next((_whole(words, n) for n in range(1, len(words)) if words[n] in _VERBS), None)


def _ending_like_a_verb(words: list[str]) -> Place | None:
    for n in range(1, len(words)):
        if _may_be_verb(words, n) and _ends_like_a_verb(words[n]):
            return _whole(words, n)
    return None


def _may_be_verb(words: list[str], n: int) -> bool:
    return words[n - 1] not in PREPOSITIONS | ARTICLES_AND_NUMBERS


def _ends_like_a_verb(word: str) -> bool:
    if word.endswith("ing"):
        return word not in _NOUNS_IN_ING
    return word.endswith("s") and not word.endswith(("ss", "us", "'s", "’s"))


def _whole(words: list[str], n: int) -> Place:
    """The verb at `n` with the adverbs before it, its participle and the prepositions after it."""
    start, end = n, n + 1
    while start > 1 and words[start - 1].endswith("ly"):
        start -= 1
    if words[n] in ("is", "are"):
        while end < len(words) and re.search(r"(?:ly|ed|ing)$|^made$|^held$", words[end]):
            end += 1
    while end < len(words) and words[end] in PREPOSITIONS:
        end += 1
    return start, end


@cache
def _inflections() -> frozenset[str]:
    return frozenset(form for verb in _VERBS for form in _forms(verb))


def _forms(verb: str) -> tuple[str, ...]:
    """Third person and -ing of a regular verb; the last letter once and twice."""
    if re.search(r"[^aeiou]y$", verb):
        third = f"{verb[:-1]}ies"
    else:
        third = f"{verb}es" if re.search(r"(?:s|x|z|ch|sh)$", verb) else f"{verb}s"
    stem = f"{verb[:-2]}y" if verb.endswith("ie") else verb.removesuffix("e")
    return third, f"{stem}ing", f"{stem}{stem[-1]}ing"


def dependencies(components: Sequence[Component]) -> tuple[tuple[int, ...], ...]:
    """For each component the earlier ones it builds on, as numbers from 0.

    One builds on another that brings in a thing it names: that has it as its object, or says that
    it is shown. Only earlier ones count, so that there is no circle.

    >>> held = component("a hand", "holds", "a red spoon")
    >>> dependencies([held, component("the spoon", "stirs in", "a bowl")])
    ((), (0,))
    """
    return tuple(
        tuple(n for n in range(number) if _brings_in(components[n], one))
        for number, one in enumerate(components)
    )


def _brings_in(earlier: Component, later: Component) -> bool:
    brought = earlier.subject if earlier.relation == SHOWN else earlier.object
    return any(same(brought, named) for named in (later.subject, later.object))


def same(a: str, b: str) -> bool:
    """Whether two phrases name the same: by their words, or one by `the` and the other's end.

    >>> same("a cup", "the cup"), same("the spoon", "a red spoon"), same("a spoon", "a red spoon")
    (True, True, False)
    """
    if not a or not b:
        return a == b
    bare_a, bare_b = _bare(a), _bare(b)
    return (
        bare_a == bare_b
        or (_is_definite(a) and bare_b.endswith(f" {bare_a}"))
        or (_is_definite(b) and bare_a.endswith(f" {bare_b}"))
    )


def _is_definite(phrase: str) -> bool:
    return phrase.casefold().startswith("the ")


def _bare(phrase: str) -> str:
    """A phrase without case and article."""
    return re.sub(r"^(?:a|an|the) ", "", phrase.casefold())


def looped(components: Sequence[Component]) -> str | None:
    """The first loop: a component from a thing to itself, or a circle of one relation; else None.

    >>> looped([component("a cup", "is on", "a box"), component("the box", "is on", "the cup")])
    'a circle of "is on": a cup, the box'
    """
    for one in components:
        if one.object and same(one.subject, one.object):
            return f'"{one.statement}" leads from {one.subject!r} to itself'
    for relation in dict.fromkeys(one.relation.casefold() for one in components):
        related = [c for c in components if c.relation.casefold() == relation]
        for first in related:
            circle = _circle(first, related, (first,))
            if circle:
                return f'a circle of "{relation}": {", ".join(c.subject for c in circle)}'
    return None


def _circle(
    first: Component, related: Sequence[Component], way: tuple[Component, ...]
) -> tuple[Component, ...] | None:
    """The way from `first` back to it, following objects to subjects."""
    here = way[-1]
    if not here.object:
        return None
    if same(here.object, first.subject):
        return way
    for following in related:
        if following not in way and same(here.object, following.subject):
            found = _circle(first, related, (*way, following))
            if found:
                return found
    return None
