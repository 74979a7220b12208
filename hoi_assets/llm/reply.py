"""An endpoint's reply to one request, and how its text is read."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from hoi_assets.llm.reasoning import answer_of

# Far above any reply that is asked for; reading hostile text must not take minutes.
MAX_CHARACTERS = 100_000
MAX_UNREADABLE_BRACES = 1000

Value = TypeVar("Value")


@dataclass(frozen=True)
class Reply(Generic[Value]):
    """What a request ended with: a value, or the reason (`code: detail`) why there is none.

    Attributes:
        model: what made the value: the model that answered.
        input_tokens, output_tokens: of all attempts; None where the endpoint does not say.
        cost_usd: None where a price or the number of tokens is unknown.
        final: there is no value and asking again would give the same, e.g. after a refusal.
    """

    value: Value | None
    reason: str | None
    model: str
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None
    final: bool = False


OnReply = Callable[[str, Reply[Value]], None]
"""Called with a request's key and its reply as soon as that is there."""


class UnusableReply(Exception):
    """A reply without the wanted value.

    Args:
        problem: what is wrong, in words for the model to read.
        text: the reply's text, which the model is shown again; None where it did not reply, and
            is asked the same again.
        state: code of the reason, such as "cut" or "empty"; None for a reply of the wrong form.
    """

    def __init__(self, problem: str, text: str | None, state: str | None = None) -> None:
        super().__init__(problem)
        self.text = text
        self.state = state


def parse_json_object(text: str) -> dict[str, Any]:
    """The one JSON object in a reply; reasoning, prose and code fences around it are ignored.

    Raises:
        UnusableReply: no object, more than one, one with a duplicate field, or reasoning that
            does not end.
    """
    if len(text) > MAX_CHARACTERS:
        raise UnusableReply(f"it is longer than {MAX_CHARACTERS} characters", None, "too_large")
    decoder = json.JSONDecoder(
        object_pairs_hook=lambda pairs: _distinct(pairs, text), parse_constant=_refuse_constant
    )
    whole = _whole_object(text.strip(), decoder)
    if whole is not None:
        return whole
    answer = answer_of(text)
    if answer is None:
        raise UnusableReply("its reasoning does not end; no answer follows it", text, "cut")
    found: list[dict[str, Any]] = []
    unreadable, nested_too_deeply = 0, ""
    start = answer.find("{")
    while start >= 0 and unreadable < MAX_UNREADABLE_BRACES and not nested_too_deeply:
        try:
            value, end = decoder.raw_decode(answer, start)
            found.append(value)
        except ValueError:  # no JSON, or a number of thousands of digits
            end, unreadable = start + 1, unreadable + 1
        except RecursionError:
            nested_too_deeply = " (nested too deeply)"
            end = start + 1
        start = answer.find("{", end)
    # After that many there may be more objects, so none is taken.
    if len(found) != 1 or nested_too_deeply or unreadable == MAX_UNREADABLE_BRACES:
        number = len(found) or "no"
        raise UnusableReply(
            f"it holds {number} JSON objects, one is wanted{nested_too_deeply}", text
        )
    return found[0]


def _whole_object(text: str, decoder: json.JSONDecoder) -> dict[str, Any] | None:
    """The object that is all of the text, whose strings may hold anything; None where it is not."""
    if not text.startswith("{"):
        return None
    try:
        value, end = decoder.raw_decode(text)
    except (ValueError, RecursionError):
        return None
    found: dict[str, Any] | None = value if end == len(text) else None
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _distinct(pairs: list[tuple[str, Any]], text: str) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    duplicates = {name for name in names if names.count(name) > 1}
    if duplicates:
        raise UnusableReply(f"field {sorted(duplicates)[0]!r} is given twice", text)
    return dict(pairs)
