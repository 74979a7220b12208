"""One cheap call to each endpoint: does it answer, in the schema, and does it see pictures?"""

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from hoi_assets.errors import HoiError
from hoi_assets.preflight.findings import Finding, ok, problem, warning
from hoi_assets.settings import Endpoint, Settings

if TYPE_CHECKING:
    from hoi_assets.llm.chat import Message
    from hoi_assets.llm.reply import Reply

PICTURED = ("anatomy", "critic", "judge")
COLOUR, PICTURE_SIDE_PX = "red", 64
LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]")
SYSTEM = "Reply with one JSON object and nothing else."


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    answer: str


def check_endpoints(settings: Settings, sections: Sequence[str]) -> Iterator[Finding]:
    """Ask each section's endpoint once; sections that share one share the call."""
    asked: dict[tuple[Any, ...], Finding] = {}
    for section in sections:
        options: Endpoint | None = getattr(settings, section)
        if options is None or options.endpoint is None:
            continue
        yield from _key(section, options)
        with_picture = section in PICTURED
        key = (options.endpoint, options.model, options.api_key_env, with_picture)
        if key in asked:
            known = asked[key]
            yield Finding(known.area, section, known.state, known.what, known.remedy)
            continue
        try:
            asked[key] = _ask(section, options, with_picture)
        except HoiError as error:
            asked[key] = problem("endpoints", section, error.what, error.remedy)
        yield asked[key]
    if settings.image_endpoint.endpoint is not None and "image_endpoint" in sections:
        yield from _key("image_endpoint", settings.image_endpoint)


def _key(section: str, options: Endpoint) -> Iterator[Finding]:
    """Whether a key is there; its value is never looked at."""
    if os.environ.get(options.api_key_env, "").strip():
        return
    address = options.endpoint
    if address is None:
        return
    local = any(f"//{host}" in address.base_url for host in LOCAL_HOSTS)
    if not local and not address.secrets:
        yield warning(
            "endpoints",
            section,
            f"the environment variable {options.api_key_env} is not set",
            "set it to the endpoint's key, unless the endpoint needs none",
        )


def _ask(section: str, options: Endpoint, with_picture: bool) -> Finding:
    from hoi_assets.llm.chat import ChatClient

    once = options.model_copy(update={"max_attempts": 1})
    tokens = getattr(options, "image_tokens", 0)
    chat = ChatClient(once, section=section, image_tokens=tokens)
    reply = chat.complete(
        _question(with_picture), _Answer.model_json_schema(), seed=0, parse=_parse, first=True
    )
    return _finding(section, chat.model, chat.endpoint, reply, with_picture)


def _question(with_picture: bool) -> "list[Message]":
    from PIL import Image

    from hoi_assets.llm.chat import image_part, text_part

    asked = (
        'Which colour is this picture? Reply as {"answer": "<one word>"}.'
        if with_picture
        else f'Reply as {{"answer": "{COLOUR}"}}.'
    )
    picture = Image.new("RGB", (PICTURE_SIDE_PX, PICTURE_SIDE_PX), COLOUR)
    content = [image_part(picture), text_part(asked)] if with_picture else asked
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": content}]


def _parse(text: str) -> str:
    from hoi_assets.llm.reply import UnusableReply, parse_json_object

    try:
        return _Answer.model_validate(parse_json_object(text)).answer
    except ValidationError as error:
        raise UnusableReply(f"it does not follow the schema: {text[:80]!r}", text) from error


def _finding(
    section: str, model: str, endpoint: str, reply: "Reply[str]", with_picture: bool
) -> Finding:
    place = f"{model} at {endpoint}"
    if reply.value is None:
        return problem(
            "endpoints",
            section,
            f"{place} gave no usable reply: {reply.reason}",
            f"name a model or server with structured output in {section}.model",
        )
    if with_picture and COLOUR not in reply.value.lower():
        return problem(
            "endpoints",
            section,
            f"{place} was shown a {COLOUR} picture and answered {reply.value[:40]!r}",
            f"name a model that takes pictures in {section}.model",
        )
    seen = "text, schema and picture" if with_picture else "text and schema"
    if reply.model != model:
        return warning(
            "endpoints",
            section,
            f"{place}: {seen} understood, but {reply.model!r} answered",
            f"name that model in {section}.model, so that tables name what was used",
        )
    return ok("endpoints", section, f"{place}: {seen} understood")
