"""The reply cache: an endpoint's replies by the hash of all that determines them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from hoi_assets.llm.reply import OnReply, Reply
from hoi_assets.progress import Log
from hoi_assets.store.ledger import Ledger

Value = TypeVar("Value")
Request = TypeVar("Request")


@dataclass(frozen=True)
class ReplyCache(Generic[Value]):
    """Replies of one kind, in the ledger: those with a value, and refusals (`Reply.final`).

    Args:
        ledger: None caches nothing.
        kind: the ledger's kind, e.g. "critique".
        encode, decode: a value to JSON and back; `decode` may raise on what it cannot read.
        upgrade: turns the JSON of an earlier format into today's (the fields of `Reply`).
    """

    ledger: Ledger | None
    kind: str
    encode: Callable[[Value], Any]
    decode: Callable[[Any], Value]
    log: Log
    upgrade: Callable[[dict[str, Any]], dict[str, Any]] = dict

    def get(self, keys: Iterable[str]) -> dict[str, Reply[Value]]:
        """The cached replies, by key; an unreadable one counts as absent and is logged."""
        if self.ledger is None:
            return {}
        found: dict[str, Reply[Value]] = {}
        for key, stored in self.ledger.get(self.kind, keys).items():
            try:
                record = self.upgrade(stored)
                value = None if record.get("final") else self.decode(record["value"])
                found[key] = Reply(**{**record, "value": value})
            except (ValidationError, TypeError, KeyError, ValueError):
                self.log(f"{self.kind}: cached reply {key} cannot be read; it is requested again")
        return found

    def put(self, key: str, reply: Reply[Value]) -> None:
        """Cache a reply; one that failed is not cached, so that it is requested again."""
        if self.ledger is None or (reply.value is None and not reply.final):
            return
        value = None if reply.value is None else self.encode(reply.value)
        self.ledger.put(self.kind, {key: {**vars(reply), "value": value}})

    def get_or_request(
        self,
        requests: Mapping[str, Request],
        request: Callable[[Mapping[str, Request], OnReply[Value]], Mapping[str, Reply[Value]]],
    ) -> dict[str, Reply[Value]]:
        """Replies by key: the cached ones, and those requested now, each cached on arrival.

        Args:
            requests: by key, the hash of all that determines the value.
            request: requests what is not cached, calling the given function with each reply.
        """
        found = self.get(requests)
        missing = {key: value for key, value in requests.items() if key not in found}
        found.update(request(missing, self.put))
        return found
