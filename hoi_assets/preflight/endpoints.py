"""One cheap call to each endpoint: does it answer, in the schema, and does it see pictures?

The image endpoint is asked what it serves, since a picture costs more: see `image_endpoint`.
"""

import os
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from hoi_assets.preflight.calls import CHAT_SECTIONS
from hoi_assets.preflight.findings import Finding, guarded, ok, problem, warning
from hoi_assets.preflight.image_endpoint import SECTION as IMAGE_SECTION
from hoi_assets.preflight.image_endpoint import check_image_endpoint
from hoi_assets.settings import Endpoint, Settings, YesNoJudge

if TYPE_CHECKING:
    from PIL import Image

    from hoi_assets.llm.chat import Message
    from hoi_assets.llm.reply import Reply

YES_NO_SECTION = "vqa_score"
# Every section of the settings that names an endpoint.
ENDPOINT_SECTIONS = (*CHAT_SECTIONS, YES_NO_SECTION, IMAGE_SECTION)
PICTURED = ("anatomy", "critic", "judge")
COLOUR, PICTURE_SIDE_PX = "red", 64
# Settings that do not decide whether a call is understood.
UNASKED = frozenset({"seed", "temperature", "max_attempts", "concurrency"})
LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]")
SYSTEM = "Reply with one JSON object and nothing else."


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    answer: str


def check_endpoints(
    settings: Settings, sections: Sequence[str], draw: bool = False
) -> Iterator[Finding]:
    """Ask each section's endpoint once; sections that would ask the same share the call.

    Args:
        sections: of `ENDPOINT_SECTIONS`.
        draw: let the image endpoint draw one picture, at its price.
    """
    asked: dict[str, tuple[str, Finding]] = {}
    missing_keys: set[str] = set()
    for section in sections:
        options: Endpoint | None = getattr(settings, section)
        if options is None or options.endpoint is None:
            continue
        if options.api_key_env not in missing_keys:
            for found in _key(section, options):
                missing_keys.add(options.api_key_env)
                yield found
        if section == IMAGE_SECTION:
            image = partial(check_image_endpoint, settings.image_endpoint, draw)
            yield from guarded("endpoints", section, image)
            continue
        if section == YES_NO_SECTION and settings.vqa_score is not None:
            yield from guarded("endpoints", section, partial(_ask_yes_no, settings.vqa_score))
            continue
        question = _same_question(section, options)
        if question in asked:
            yield _shared(section, *asked[question])
            continue
        (found,) = guarded("endpoints", section, partial(_ask, section, options))
        asked[question] = (section, found)
        yield found


def _same_question(section: str, options: Endpoint) -> str:
    """Equal for sections whose calls would be the same: all that is sent, the caps and prices."""
    shared = Endpoint.model_fields.keys() - UNASKED
    sent = {name: getattr(options, name) for name in sorted(shared)}
    return repr((sent, options.endpoint and options.endpoint.secrets, section in PICTURED))


def _shared(section: str, other: str, found: Finding) -> Finding:
    """What a call for another section says about this one."""
    if found.state == "ok":
        return ok(found.area, section, found.what)
    remedy = f"see {other} above"
    return Finding(
        found.area,
        section,
        found.state,
        f"same endpoint and model as {other}, same finding",
        remedy,
    )


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


def _ask(section: str, options: Endpoint) -> Iterator[Finding]:
    from hoi_assets.llm.chat import ChatClient

    with_picture = section in PICTURED
    once = options.model_copy(update={"max_attempts": 1})
    tokens = getattr(options, "image_tokens", 0)
    chat = ChatClient(once, section=section, image_tokens=tokens)
    reply = chat.complete(
        _question(with_picture), _Answer.model_json_schema(), seed=0, parse=_parse, first=True
    )
    yield _finding(section, chat.model, chat.endpoint, reply, with_picture)


def _ask_yes_no(options: YesNoJudge) -> Iterator[Finding]:
    """One question about a red picture, whose answer's probability must be given."""
    from hoi_assets.llm.shown_image import ShownImage
    from hoi_assets.llm.yes_no import YesNoClient, YesNoQuestion, probabilities_of_yes

    client = YesNoClient(options.model_copy(update={"max_attempts": 1}))
    question = YesNoQuestion(ShownImage("", _picture), f"Is this picture {COLOUR}?")
    (reply,) = probabilities_of_yes([question], client, log=lambda _: None)
    place = f"{client.model} at {client.endpoint}"
    if reply.value is None:
        yield problem(
            "endpoints",
            YES_NO_SECTION,
            f"{place} gave no probability of yes: {reply.reason}",
            f"name a model and server with logprobs in {YES_NO_SECTION}, or leave the section out",
        )
    elif reply.value <= 0.5:
        yield problem(
            "endpoints",
            YES_NO_SECTION,
            f"{place} was shown a {COLOUR} picture: P(yes, it is {COLOUR}) is {reply.value:.2f}",
            f"name a model that takes pictures in {YES_NO_SECTION}.model",
        )
    else:
        what = f"{place}: picture understood, logprobs given"
        yield ok("endpoints", YES_NO_SECTION, what)


def _picture() -> "Image.Image":
    from PIL import Image

    return Image.new("RGB", (PICTURE_SIDE_PX, PICTURE_SIDE_PX), COLOUR)


def _question(with_picture: bool) -> "list[Message]":
    from hoi_assets.llm.chat import image_part, text_part

    asked = (
        'Which colour is this picture? Reply as {"answer": "<one word>"}.'
        if with_picture
        else f'Reply as {{"answer": "{COLOUR}"}}.'
    )
    content = [image_part(_picture()), text_part(asked)] if with_picture else asked
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
