"""A vision endpoint that rates how well a picture shows its prompt, and says yes or no."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hoi_assets.hashing import digest
from hoi_assets.llm import prompt_templates as wording
from hoi_assets.llm.budget import Budget
from hoi_assets.llm.reply import Reply, UnusableReply, parse_json_object
from hoi_assets.llm.reply_cache import ReplyCache
from hoi_assets.llm.shown_image import ShownImage
from hoi_assets.llm.structured_output import StructuredOutput
from hoi_assets.progress import Log
from hoi_assets.settings import Judge as JudgeSettings
from hoi_assets.store.ledger import Ledger
from hoi_assets.taxonomy import ID_LENGTH

if TYPE_CHECKING:
    import polars as pl
    from PIL import Image

REPLY_KIND = "rating"
LOWEST, HIGHEST = 1, 5
TEMPLATES = ("judge_system.j2", "judge_user.j2", "again.j2")
TYPICAL_REPLY_TOKENS = 20


class _Reply(BaseModel):
    # Strict: a "4" in quotes, 4.5 or "yes" is a sign of a reply that was not thought in fields.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    rating: Annotated[int, Field(ge=LOWEST, le=HIGHEST)]
    shows: bool


@dataclass(frozen=True)
class Rating:
    """What the judge says of one picture.

    Attributes:
        rating: 1 to 5; None where it failed.
        shows: whether the picture shows the prompt; None where it failed.
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
    """A picture to be rated by its prompt."""

    row_id: str
    prompt: str
    seen: ShownImage

    def key(self, identity: Mapping[str, Any]) -> str:
        """Hash of all that determines the rating: 16 hex digits."""
        determined_by = {
            "pixels": self.seen.pixels,
            "prompt": self.prompt,
            "judge": dict(identity),
        }
        return digest(determined_by)[:ID_LENGTH]


def rate_pictures(
    requests: Sequence[RatingRequest],
    judge: "EndpointJudge",
    cache: Ledger | None = None,
    log: Log = print,
) -> list[Rating]:
    """The endpoint's rating of each picture, in their order; equal requests are asked once.

    Args:
        cache: replies kept by the hash of picture, prompt and judge.

    Raises:
        HoiError: the endpoint cannot be used at all; nothing was asked in vain.
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


def ratings_table(rows: Sequence[Rating]) -> "pl.DataFrame":
    """One line per picture, with the fields of `Rating`."""
    import polars as pl

    schema: dict[str, Any] = {
        "row_id": pl.String,
        "prompt": pl.String,
        "rating": pl.Int64,
        "shows": pl.Boolean,
        "status": pl.String,
        "reason": pl.String,
        "model": pl.String,
        "template_version": pl.String,
        "input_tokens": pl.Int64,
        "output_tokens": pl.Int64,
        "cost_usd": pl.Float64,
    }
    return pl.DataFrame([vars(row) for row in rows], schema=schema)


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
        system = wording.render("judge_system.j2", schema=wording.as_json(self.schema))
        return system, wording.render("judge_user.j2", prompt=request.prompt)

    def parse(self, request: RatingRequest, text: str) -> _Reply:
        """The reply, parsed strictly."""
        return _read(text)


def _read(text: str) -> _Reply:
    """The reply in a text; a rating that contradicts its yes or no is none."""
    try:
        reply = _Reply.model_validate(parse_json_object(text))
    except ValidationError as error:
        raise UnusableReply(wording.validation_problem(error), text) from error
    if (reply.rating == HIGHEST and not reply.shows) or (reply.rating == LOWEST and reply.shows):
        raise UnusableReply(f"rating {reply.rating} contradicts shows {reply.shows}".lower(), text)
    return reply
