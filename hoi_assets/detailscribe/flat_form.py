"""The published flat form of a decomposition, `(a holds b) + (b stirs c)`, written and read back.

It has no marks within a part, so reading splits each part by the rules of `phrases`. A part without
a verb becomes the subject of `is shown`. Text -> components -> text keeps the words, and components
of the built-in grammar come back as they were.
"""

import re
from collections.abc import Sequence

from pydantic import ValidationError

from hoi_assets.detailscribe.components import IS_SHOWN, Component, build_component
from hoi_assets.detailscribe.phrases import split_phrase
from hoi_assets.errors import HoiError
from hoi_assets.llm.prompt_templates import validation_problem

# `<(concept: sawing) = (hand holds saw)>` is how a reply to the published prompt looks.
_HEAD = re.compile(r"\s*<?\s*(?:\(\s*concept\s*:[^()]*\)\s*=)?", re.IGNORECASE)


def to_flat(components: Sequence[Component]) -> str:
    """The published flat form; questions are left out.

    >>> hold, stir = build_component("a", "holds", "b"), build_component("b", "stirs", "c")
    >>> to_flat([hold, stir])
    '(a holds b) + (b stirs c)'
    """
    return " + ".join(f"({_flat_part(one)})" for one in components)


def _flat_part(one: Component) -> str:
    return one.subject if (one.relation, one.object) == (IS_SHOWN, "") else one.statement


def from_flat(text: str) -> tuple[Component, ...]:
    """Components of a flat form, each with the default question.

    The angle brackets and the `(concept: …) =` of published replies are skipped.

    >>> [one.relation for one in from_flat("(hand hold saw) + (pan is on a tray)")]
    ['hold', 'is on']

    Raises:
        HoiError: brackets that do not match, a part that is empty or too long, text between parts;
            the message says at which character.
    """
    components = []
    for place, part in _parts(text):
        try:
            components.append(build_component(*split_phrase(part)))
        except ValidationError as error:
            raise _unreadable(text, place, f"a part whose {validation_problem(error)}") from error
    return tuple(components)


def _parts(text: str) -> list[tuple[int, str]]:
    """The texts in brackets, each with the place (from 1) of its first character."""
    parts: list[tuple[int, str]] = []
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
            parts.append((opened + 1, text[opened : place - 1]))
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
            text, end, "'+' with nothing after it" if parts else "no part in brackets"
        )
    return parts


def _unreadable(text: str, place: int, problem: str) -> HoiError:
    near = text[max(0, place - 11) : place + 20]
    return HoiError(
        f"flat form, character {place}: {problem}, near {near!r}",
        "write it as (a holds b) + (b stirs c)",
    )
