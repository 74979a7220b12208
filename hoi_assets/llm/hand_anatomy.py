"""A vision endpoint asked whether the hands in a picture are anatomically right.

It sees the whole picture and enlarged parts of it in one call. What it says is a signal: how far
it can be trusted is measured against labels before it may reject anything.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hoi_assets.hashing import digest
from hoi_assets.llm import prompt_templates
from hoi_assets.llm.budget import Budget
from hoi_assets.llm.chat import Message, image_part, text_part
from hoi_assets.llm.reply import Reply, UnusableReply, parse_json_object
from hoi_assets.llm.reply_cache import ReplyCache
from hoi_assets.llm.shown_image import ShownImage
from hoi_assets.llm.structured_output import StructuredOutput
from hoi_assets.progress import Log
from hoi_assets.settings import Anatomy
from hoi_assets.store.ledger import Ledger
from hoi_assets.taxonomy import ID_LENGTH

if TYPE_CHECKING:
    from PIL import Image

REPLY_KIND = "anatomy"
TEMPLATES = ("anatomy_system.j2", "anatomy_user.j2", "again.j2")
TYPICAL_REPLY_TOKENS = 80
MAX_HANDS, MAX_FINGERS = 4, 12
# Neighbouring parts share this much of their side, so that a hand is whole in one of them.
OVERLAP = 1 / 3
NO_DEFECT = "none"
Defect = Literal[
    "none",
    "missing_finger",
    "extra_finger",
    "doubled_thumb",
    "fused_fingers",
    "bent_joint",
    "wrong_length",
    "melted",
    "extra_hand",
    "broken_wrist",
    "other",
]


# The schemas, class names included, are part of the reply cache's keys.
class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Hand(_Strict):
    fingers: Annotated[int, Field(ge=0, le=MAX_FINGERS)]
    hidden: bool
    defect: Defect


class _Reply(_Strict):
    hands: Annotated[list[_Hand], Field(max_length=MAX_HANDS)]
    whole: bool
    confidence: Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class AnatomyOpinion:
    """What the endpoint says of a picture.

    Attributes:
        p_whole: probability that every hand is right, 0 to 1; None where there is no hand, or the
            request failed.
        defect: the first fault that it names; None where it names none.
        reason: `code: detail` where p_whole is None.
    """

    pixels: str
    p_whole: float | None
    hands: int | None
    defect: str | None
    reason: str | None
    model: str
    cost_usd: float | None


def ask_anatomy(
    images: Sequence[ShownImage],
    judge: "EndpointAnatomy",
    cache: Ledger | None = None,
    log: Log = print,
) -> list[AnatomyOpinion]:
    """The endpoint's opinion of each picture, in their order; equal pictures are asked once.

    Args:
        cache: replies by the hash of picture and judge.

    Raises:
        HoiError: the endpoint cannot be used at all; no call was wasted.
    """
    keys = [_key(image, judge.identity) for image in images]
    replies = ReplyCache(
        cache,
        REPLY_KIND,
        encode=lambda reply: reply.model_dump(),
        decode=_Reply.model_validate,
        log=log,
    )
    outcomes = replies.get_or_request(
        dict(zip(keys, images, strict=True)),
        lambda missing, on_reply: judge.ask(missing, on_reply, log),
    )
    return [_opinion(image, outcomes[key]) for key, image in zip(keys, images, strict=True)]


def parts_of(image: "Image.Image", per_side: int, side: int) -> Iterator["Image.Image"]:
    """Overlapping parts of a picture, row by row, each with a longer side of `side` pixels.

    Args:
        per_side: parts in a row and in a column; 1 or less: none.
    """
    from PIL import Image

    if per_side < 2:
        return
    share = 1 / (per_side - (per_side - 1) * OVERLAP)
    for row in range(per_side):
        for column in range(per_side):
            left = column * share * (1 - OVERLAP) * image.width
            top = row * share * (1 - OVERLAP) * image.height
            box = (left, top, left + share * image.width, top + share * image.height)
            width, height = share * image.width, share * image.height
            scale = side / max(width, height)
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
            yield image.resize(size, Image.Resampling.LANCZOS, box=box)


def _key(image: ShownImage, identity: Mapping[str, Any]) -> str:
    return digest({"pixels": image.pixels, "anatomy": dict(identity)})[:ID_LENGTH]


def _opinion(image: ShownImage, outcome: Reply[_Reply]) -> AnatomyOpinion:
    reply = outcome.value
    known = (image.pixels, outcome.model, outcome.cost_usd)
    if reply is None:
        return AnatomyOpinion(known[0], None, None, None, outcome.reason, *known[1:])
    if not reply.hands:
        return AnatomyOpinion(known[0], None, 0, None, "no_hand: it sees none", *known[1:])
    p_whole = reply.confidence if reply.whole else 1 - reply.confidence
    defects = [hand.defect for hand in reply.hands if hand.defect != NO_DEFECT]
    defect = defects[0] if defects else None
    return AnatomyOpinion(known[0], p_whole, len(reply.hands), defect, None, *known[1:])


class EndpointAnatomy(StructuredOutput[ShownImage, _Reply]):
    """Shows a picture and parts of it to a vision endpoint and asks about the hands."""

    section = "anatomy"
    label = "hand anatomy"
    templates = TEMPLATES
    reply_schema = _Reply
    typical_reply_tokens = TYPICAL_REPLY_TOKENS

    def __init__(self, options: Anatomy, budget: Budget | None = None) -> None:
        super().__init__(options, budget, options.image_tokens)
        self.options = options

    @property
    def pictures(self) -> int:
        """Pictures in one request: the whole one and its parts."""
        return 1 + (self.options.parts_per_side**2 if self.options.parts_per_side > 1 else 0)

    @property
    def identity(self) -> Mapping[str, Any]:
        """What determines an opinion besides the picture."""
        parts = {"parts_per_side": self.options.parts_per_side, "side": self.options.part_side}
        return {**super().identity, **parts}

    def prompt(self, request: ShownImage) -> tuple[str, str]:
        """What the system and the user say."""
        system = prompt_templates.render(
            "anatomy_system.j2",
            schema=prompt_templates.as_json(self.schema),
            crops=self.pictures - 1,
            max_hands=MAX_HANDS,
        )
        return system, prompt_templates.render("anatomy_user.j2")

    def parse(self, request: ShownImage, text: str) -> _Reply:
        """The reply, parsed strictly.

        Raises:
            UnusableReply: it breaks the schema, or contradicts itself.
        """
        try:
            reply = _Reply.model_validate(parse_json_object(text))
        except ValidationError as error:
            raise UnusableReply(prompt_templates.validation_problem(error), text) from error
        named = [hand.defect for hand in reply.hands if hand.defect != NO_DEFECT]
        if reply.whole and named:
            raise UnusableReply(f"whole is true, and a hand has the defect {named[0]}", text)
        if not reply.whole and not named:
            raise UnusableReply("whole is false, and no hand has a defect", text)
        return reply

    def _messages(self, request: ShownImage) -> list[Message]:
        system, user = self.prompt(request)
        image = request.open()
        parts = parts_of(image, self.options.parts_per_side, self.options.part_side)
        shown = [image_part(one) for one in (image, *parts)]
        return [
            {"role": "system", "content": system},
            {"role": "user", "content": [*shown, text_part(user)]},
        ]
