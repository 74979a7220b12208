"""Components of an interaction prompt: who does what to what, each with a yes/no question.

DetailScribe (arXiv 2504.08714) decomposes a prompt into such components before it critiques an
image. `dependencies` adds what CRAFT (arXiv 2512.20362) needs: which component depends on which.
"""

import re
from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

MAX_PHRASE_CHARACTERS = 120
MAX_QUESTION_CHARACTERS = 300
# The relation of a component that has no verb.
IS_SHOWN = "is shown"


def _line(text: str, max_characters: int) -> str:
    text = " ".join(text.split())
    if not text:
        raise ValueError("is empty")
    if not text.isprintable():
        raise ValueError("holds characters that cannot be printed")
    if len(text) > max_characters:
        raise ValueError(f"has {len(text)} characters, at most {max_characters} are allowed")
    return text


def _phrase(text: str) -> str:
    if re.search(r"[()<>+]", text):
        raise ValueError("holds one of ( ) < > +, which the flat form keeps for itself")
    return _line(text.strip(" .,;\t\n"), MAX_PHRASE_CHARACTERS)


def _optional_phrase(text: str) -> str:
    return _phrase(text) if text.strip(" .,;\t\n") else ""


def _question(text: str) -> str:
    text = _line(text, MAX_QUESTION_CHARACTERS)
    if not text.endswith("?"):
        raise ValueError("is no question: it does not end with '?'")
    return text


Phrase = Annotated[str, AfterValidator(_phrase)]


# Its JSON schema (name, docstring and descriptions included) is part of the reply cache's keys.
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
        AfterValidator(_optional_phrase),
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


def build_component(subject: str, relation: str, object: str = "", question: str = "") -> Component:
    """A component; without a question it gets the default one.

    >>> build_component("a hand", "holds", "a brush").question
    'Does the picture show that a hand holds a brush?'

    Raises:
        ValidationError: a phrase that is empty, too long or not printable.
    """
    statement = f"{subject} {relation} {object}".strip()
    shown = subject if relation == IS_SHOWN and not object else f"that {statement}"
    default = f"Does the picture show {shown}?"
    return Component(
        subject=subject, relation=relation, object=object, question=question or default
    )


def dependencies(components: Sequence[Component]) -> tuple[tuple[int, ...], ...]:
    """The earlier components that each component depends on, as numbers from 0.

    A component depends on another that introduces a thing it names: as its object, or by saying
    that it is shown. Only earlier ones count, so there are no cycles.

    >>> held = build_component("a hand", "holds", "a red spoon")
    >>> dependencies([held, build_component("the spoon", "stirs in", "a bowl")])
    ((), (0,))
    """
    return tuple(
        tuple(n for n in range(number) if _introduces(components[n], one))
        for number, one in enumerate(components)
    )


def count_dependents(components: Sequence[Component]) -> tuple[int, ...]:
    """How many other components depend on each component, directly or through others."""
    dependents: list[set[int]] = [set() for _ in components]
    for number, needed in reversed(list(enumerate(dependencies(components)))):
        for earlier in needed:
            dependents[earlier] |= {number, *dependents[number]}
    return tuple(len(numbers) for numbers in dependents)


def _introduces(earlier: Component, later: Component) -> bool:
    introduced = earlier.subject if earlier.relation == IS_SHOWN else earlier.object
    return any(name_same_thing(introduced, named) for named in (later.subject, later.object))


def name_same_thing(a: str, b: str) -> bool:
    """Whether two phrases name the same thing: by equal words, or by `the` and the other's end.

    >>> name_same_thing("a cup", "the cup"), name_same_thing("the spoon", "a red spoon")
    (True, True)
    >>> name_same_thing("a spoon", "a red spoon")
    False
    """
    if not a or not b:
        return a == b
    bare_a, bare_b = _without_article(a), _without_article(b)
    return (
        bare_a == bare_b
        or (_is_definite(a) and bare_b.endswith(f" {bare_a}"))
        or (_is_definite(b) and bare_a.endswith(f" {bare_b}"))
    )


def _is_definite(phrase: str) -> bool:
    return phrase.casefold().startswith("the ")


def _without_article(phrase: str) -> str:
    return re.sub(r"^(?:a|an|the) ", "", phrase.casefold())


def find_cycle(components: Sequence[Component]) -> str | None:
    """The first cycle, in words: from a thing to itself, or round one relation; None without one.

    >>> cup_on_box = build_component("a cup", "is on", "a box")
    >>> find_cycle([cup_on_box, build_component("the box", "is on", "the cup")])
    'a circle of "is on": a cup, the box'
    """
    for one in components:
        if one.object and name_same_thing(one.subject, one.object):
            return f'"{one.statement}" leads from {one.subject!r} to itself'
    for relation in dict.fromkeys(one.relation.casefold() for one in components):
        related = [c for c in components if c.relation.casefold() == relation]
        for first in related:
            cycle = _cycle_from(first, related, (first,))
            if cycle:
                return f'a circle of "{relation}": {", ".join(c.subject for c in cycle)}'
    return None


def _cycle_from(
    first: Component, related: Sequence[Component], path: tuple[Component, ...]
) -> tuple[Component, ...] | None:
    """The path from `first` back to it, following objects to subjects."""
    here = path[-1]
    if not here.object:
        return None
    if name_same_thing(here.object, first.subject):
        return path
    for following in related:
        if following not in path and name_same_thing(here.object, following.subject):
            cycle = _cycle_from(first, related, (*path, following))
            if cycle:
                return cycle
    return None
