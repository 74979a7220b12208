"""A kind of request for the tests: the colour of a thing, as structured output."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from hoi_assets.hashing import digest
from hoi_assets.llm.budget import Budget
from hoi_assets.llm.prompt_templates import validation_problem
from hoi_assets.llm.reply import Reply, UnusableReply, parse_json_object
from hoi_assets.llm.reply_cache import ReplyCache
from hoi_assets.llm.structured_output import StructuredOutput
from hoi_assets.settings import Endpoint
from hoi_assets.store.ledger import Ledger
from hoi_assets_tests.llm.chat_server import Answer, Request, Server

KIND = "colour"
THINGS = [f"thing {number}" for number in range(80)]

Serve = Callable[[Callable[[Request, int], Answer]], Server]


class ColourReply(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    colour: Literal["red", "green"]
    certain: bool


class ColourNamer(StructuredOutput[str, ColourReply]):
    """Asks for the colour of a thing."""

    section = "prompter"
    label = "colours"
    templates = ("again.j2",)
    reply_schema = ColourReply
    typical_reply_tokens = 10

    def prompt(self, request: str) -> tuple[str, str]:
        return "Name its colour, as JSON. " + "Please. " * 40, request

    def parse(self, request: str, text: str) -> ColourReply:
        try:
            return ColourReply.model_validate(parse_json_object(text))
        except ValidationError as error:
            raise UnusableReply(validation_problem(error), text) from error


RED = json.dumps({"colour": "red", "certain": True})


def good(request: Request, number: int) -> Answer:
    return Answer(RED)


@dataclass
class Asked:
    replies: list[Reply[ColourReply]]
    logged: list[str]

    @property
    def codes(self) -> list[str]:
        """`ok`, or the code of the reason, per request."""
        return [reply.reason.split(":")[0] if reply.reason else "ok" for reply in self.replies]


def ask(
    url: str,
    count: int = 2,
    ledger: Ledger | None = None,
    budget: Budget | None = None,
    **more: Any,
) -> Asked:
    options = Endpoint(endpoint=url, **{"model": "m", "concurrency": 1, "timeout_s": 5, **more})
    logged: list[str] = []
    namer = ColourNamer(options, budget)
    cache = ReplyCache(
        ledger,
        KIND,
        encode=lambda value: value.model_dump(),
        decode=ColourReply.model_validate,
        log=logged.append,
    )
    replies = cache.get_or_request(
        {key_of(thing): thing for thing in THINGS[:count]},
        lambda missing, on_reply: namer.ask(missing, on_reply, logged.append),
    )
    return Asked([replies[key_of(thing)] for thing in THINGS[:count]], logged)


def key_of(thing: str) -> str:
    return digest(thing)[:16]
