"""A vision endpoint rates how well an image shows its prompt, 1 to 5, and answers yes or no."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hoi_assets.hashing import digest
from hoi_assets.llm import prompt_templates
from hoi_assets.llm.budget import Budget
from hoi_assets.llm.reply import Reply, UnusableReply, parse_json_object
from hoi_assets.llm.reply_cache import ReplyCache
from hoi_assets.llm.shown_image import ShownImage
from hoi_assets.llm.structured_output import StructuredOutput
from hoi_assets.progress import Log
from hoi_assets.settings import Judge as JudgeSettings
from hoi_assets.store.ledger import Ledger
from hoi_assets.store.tables import Column, Table
from hoi_assets.taxonomy import ID_LENGTH

if TYPE_CHECKING:
    from PIL import Image

REPLY_KIND = "rating"
LOWEST, HIGHEST = 1, 5
TEMPLATES = ("judge_system.j2", "judge_user.j2", "again.j2")
TOPIC_TEMPLATES = ("judge_topic_system.j2", "judge_topic_user.j2", "again.j2")
SPATIAL_SCENARIO = "compositional"  # rated by arrangement
TYPICAL_REPLY_TOKENS = 20

JUDGE_RATINGS = Table(
    "ratings",
    "the vision endpoint's rating of one selected image",
    (
        Column("row_id", pl.String, "the image that was rated"),
        Column("prompt", pl.String, "the prompt it was rated by"),
        Column("rating", pl.Int64, "1 to 5; null where it failed", nullable=True),
        Column(
            "shows",
            pl.Boolean,
            "whether the image shows the prompt; null where it failed",
            nullable=True,
        ),
        Column("status", pl.String, "accepted or failed"),
        Column("reason", pl.String, "code: detail, where it failed", nullable=True),
        Column("model", pl.String, "the endpoint's model"),
        Column("template_version", pl.String, "digest of the prompt templates"),
        Column("input_tokens", pl.Int64, "tokens sent; null where not reported", nullable=True),
        Column("output_tokens", pl.Int64, "tokens of the reply; null likewise", nullable=True),
        Column("cost_usd", pl.Float64, "cost; null where unknown", unit="USD", nullable=True),
    ),
    key=("row_id",),
    optional=True,
)


class _Reply(BaseModel):
    # Strict: a "4" in quotes, 4.5 or "yes" is a sign that the model ignored the schema.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    rating: Annotated[int, Field(ge=LOWEST, le=HIGHEST)]
    shows: bool


@dataclass(frozen=True)
class Rating:
    """The judge's rating of one image.

    Attributes:
        rating: 1 to 5; None where it failed.
        shows: whether the image shows the prompt; None where it failed.
        reason: `code: detail` where it failed.
        cost_usd: None where a price or the number of tokens is not known.
    """

    row_id: str
    prompt: str
    rating: int | None
    shows: bool | None
    status: Literal["accepted", "failed"]
    reason: str | None
    model: str
    template_version: str
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None


@dataclass(frozen=True)
class RatingRequest:
    """An image to be rated by its prompt.

    Attributes:
        topic, scenario: of the benchmark's row; None where the judge is not told.
    """

    row_id: str
    prompt: str
    seen: ShownImage
    topic: str | None = None
    scenario: str | None = None

    def key(self, identity: Mapping[str, Any]) -> str:
        """Hash of all that determines the rating: 16 hex digits."""
        determined_by: dict[str, Any] = {
            "pixels": self.seen.pixels,
            "prompt": self.prompt,
            "judge": dict(identity),
        }
        if self.topic is not None:
            determined_by |= {"topic": self.topic, "scenario": self.scenario}
        return digest(determined_by)[:ID_LENGTH]


def rate_pictures(
    requests: Sequence[RatingRequest],
    judge: "EndpointJudge",
    cache: Ledger | None = None,
    log: Log = print,
) -> list[Rating]:
    """The endpoint's rating of each picture, in their order; equal requests are asked once.

    Args:
        cache: replies by the hash of picture, prompt and judge.

    Raises:
        HoiError: the endpoint cannot be used at all; no call was wasted.
    """
    keys = [request.key(judge.identity) for request in requests]
    replies = ReplyCache(
        cache,
        REPLY_KIND,
        encode=lambda reply: reply.model_dump(),
        decode=_Reply.model_validate,
        log=log,
    )
    outcomes = replies.get_or_request(
        dict(zip(keys, requests, strict=True)),
        lambda missing, on_reply: judge.ask(missing, on_reply, log),
    )
    made = [
        _rating(request, outcomes[key], judge) for key, request in zip(keys, requests, strict=True)
    ]
    failed = sum(one.status == "failed" for one in made)
    log(f"{len(made)} pictures rated, {failed} failed")
    return made


def _rating(request: RatingRequest, outcome: Reply[_Reply], judge: "EndpointJudge") -> Rating:
    reply = outcome.value
    return Rating(
        row_id=request.row_id,
        prompt=request.prompt,
        rating=reply.rating if reply else None,
        shows=reply.shows if reply else None,
        status="accepted" if reply else "failed",
        reason=outcome.reason,
        model=outcome.model,
        template_version=judge.template_version,
        input_tokens=outcome.input_tokens,
        output_tokens=outcome.output_tokens,
        cost_usd=outcome.cost_usd,
    )


def ratings_table(rows: Sequence[Rating]) -> pl.DataFrame:
    """Table of JUDGE_RATINGS."""
    return pl.DataFrame([vars(row) for row in rows], schema=JUDGE_RATINGS.schema)


class EndpointJudge(StructuredOutput[RatingRequest, _Reply]):
    """Shows a picture to a vision endpoint and asks how well it shows the prompt."""

    section = "judge"
    label = "ratings"
    templates = TEMPLATES
    reply_schema = _Reply
    typical_reply_tokens = TYPICAL_REPLY_TOKENS

    def __init__(self, options: JudgeSettings, budget: Budget | None = None) -> None:
        super().__init__(options, budget, options.image_tokens)

    def image(self, request: RatingRequest) -> "Image.Image":
        """The picture to be rated."""
        return request.seen.open()

    def prompt(self, request: RatingRequest) -> tuple[str, str]:
        """What the system and the user say."""
        system = prompt_templates.render(
            "judge_system.j2", schema=prompt_templates.as_json(self.schema)
        )
        return system, prompt_templates.render("judge_user.j2", prompt=request.prompt)

    def parse(self, request: RatingRequest, text: str) -> _Reply:
        """The reply, parsed strictly."""
        return _read(text)


class TopicJudge(EndpointJudge):
    """Tells the endpoint the topic too, and has it rate by the criteria of the published protocol
    (DetailScribe, arXiv 2504.08714), in our own words and in one call."""

    templates = TOPIC_TEMPLATES

    def prompt(self, request: RatingRequest) -> tuple[str, str]:
        """What the system and the user say."""
        system = prompt_templates.render(
            TOPIC_TEMPLATES[0],
            schema=prompt_templates.as_json(self.schema),
            spatial=request.scenario == SPATIAL_SCENARIO,
        )
        user = prompt_templates.render(
            TOPIC_TEMPLATES[1], prompt=request.prompt, topic=request.topic or ""
        )
        return system, user


def build_judge(options: JudgeSettings) -> EndpointJudge:
    """The judge that the settings name."""
    return TopicJudge(options) if options.topic else EndpointJudge(options)


def _read(text: str) -> _Reply:
    """The reply in a text; a rating that contradicts its yes or no is none."""
    try:
        reply = _Reply.model_validate(parse_json_object(text))
    except ValidationError as error:
        raise UnusableReply(prompt_templates.validation_problem(error), text) from error
    if (reply.rating == HIGHEST and not reply.shows) or (reply.rating == LOWEST and reply.shows):
        raise UnusableReply(f"rating {reply.rating} contradicts shows {reply.shows}".lower(), text)
    return reply
