"""The reply cache: an endpoint's replies by the hash of all that determines them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from pydantic import ValidationError

from hoi_assets.llm.client import Answer
from hoi_assets.progress import Log

Value = TypeVar("Value")
Request = TypeVar("Request")


class Cache(Protocol):
    """What stores replies: `hoi_assets.store.ledger.Ledger`, or anything with these two calls."""

    def get(self, kind: str, keys: Iterable[str]) -> dict[str, Any]: ...

    def put(self, kind: str, values: Mapping[str, Any]) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Outcome(Generic[Value]):
    """What became of a request: a value, or the reason (`code: detail`) why there is none.

    Attributes:
        model: who made the value.
        cost_usd: None where the price or the number of tokens is not known.
    """

    value: Value | None
    reason: str | None
    model: str
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None

    @staticmethod
    def of(answer: Answer[Value], model: str) -> "Outcome[Value]":
        """The outcome of `Chat.ask`."""
        usage = answer.usage
        return Outcome(
            answer.value,
            answer.reason,
            model,
            usage.input_tokens,
            usage.output_tokens,
            usage.cost_usd,
        )


Keep = Callable[[str, Outcome[Value]], None]


def found_or_asked(
    cache: Cache | None,
    kind: str,
    requests: Mapping[str, Request],
    ask: Callable[[Mapping[str, Request], Keep[Value]], Mapping[str, Outcome[Value]]],
    dump: Callable[[Value], Any],
    load: Callable[[Any], Value],
    log: Log,
) -> dict[str, Outcome[Value]]:
    """Outcomes by key: those the cache has, and those asked for now; each value is kept at once.

    Args:
        requests: by key, the hash of all that determines the value.
        ask: asks for what is missing, and calls the given function with each outcome as it comes.
        dump, load: a value as JSON and back; `load` may raise on what it cannot read.
    """
    found: dict[str, Outcome[Value]] = {}
    kept = cache.get(kind, list(requests)) if cache else {}
    for key, record in kept.items():
        try:
            found[key] = Outcome(**{**record, "value": load(record["value"])})
        except (ValidationError, TypeError, KeyError, ValueError):
            log(f"{kind}: kept reply {key} cannot be read; it is asked for again")

    def keep(key: str, outcome: Outcome[Value]) -> None:
        if cache and outcome.value is not None:
            cache.put(kind, {key: {**vars(outcome), "value": dump(outcome.value)}})

    missing = {key: request for key, request in requests.items() if key not in found}
    found.update(ask(missing, keep))
    return found
