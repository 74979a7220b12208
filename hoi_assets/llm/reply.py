"""An endpoint's reply to one request, and how its text is read."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")


@dataclass(frozen=True)
class Reply(Generic[Value]):
    """What a request ended with: a value, or the reason (`code: detail`) why there is none.

    Attributes:
        model: what made the value.
        input_tokens, output_tokens: of all attempts; None where the endpoint does not say.
        cost_usd: None where a price or the number of tokens is unknown.
    """

    value: Value | None
    reason: str | None
    model: str
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None


OnReply = Callable[[str, Reply[Value]], None]
"""Called with a request's key and its reply as soon as that is there."""


class UnusableReply(Exception):
    """A reply without the wanted value.

    Args:
        problem: what is wrong, in words for the model to read.
        text: the reply's text, which the model is shown again.
    """

    def __init__(self, problem: str, text: str) -> None:
        super().__init__(problem)
        self.text = text


def parse_json_object(text: str) -> dict[str, Any]:
    """The one JSON object in a reply; prose and code fences around it are ignored.

    Raises:
        UnusableReply: no object, more than one, or one with a duplicate field.
    """
    # Reasoning models think aloud first, sometimes in braces.
    answer = re.split(r"</think\w*>", text)[-1]
    decoder = json.JSONDecoder(object_pairs_hook=lambda pairs: _distinct(pairs, text))
    found: list[dict[str, Any]] = []
    start = answer.find("{")
    while start >= 0:
        try:
            value, end = decoder.raw_decode(answer, start)
            found.append(value)
        except (json.JSONDecodeError, RecursionError):
            end = start + 1
        start = answer.find("{", end)
    if len(found) != 1:
        raise UnusableReply(f"it holds {len(found) or 'no'} JSON objects, one is wanted", text)
    return found[0]


def _distinct(pairs: list[tuple[str, Any]], text: str) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    duplicates = {name for name in names if names.count(name) > 1}
    if duplicates:
        raise UnusableReply(f"field {sorted(duplicates)[0]!r} is given twice", text)
    return dict(pairs)
