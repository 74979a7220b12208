"""A vision endpoint that sees the initial image and suggests a prompt: the published baseline
`refine`, which is told neither components nor topic (DetailScribe, arXiv 2504.08714)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from hoi_assets.detailscribe.baselines.rewriter import read_prompt
from hoi_assets.hashing import digest
from hoi_assets.llm import prompt_templates
from hoi_assets.llm.budget import Budget
from hoi_assets.llm.reply import Reply
from hoi_assets.llm.reply_cache import ReplyCache
from hoi_assets.llm.shown_image import ShownImage
from hoi_assets.llm.structured_output import StructuredOutput
from hoi_assets.progress import Log
from hoi_assets.settings import Critic as CriticSettings
from hoi_assets.store.ledger import Ledger
from hoi_assets.taxonomy import ID_LENGTH

if TYPE_CHECKING:
    from PIL import Image

REPLY_KIND = "refinement_prompt"
TEMPLATES = ("refine_system.j2", "rewrite_user.j2", "again.j2")
TYPICAL_REPLY_TOKENS = 100


@dataclass(frozen=True)
class RefineRequest:
    """An initial image, and the prompt that it was drawn for."""

    prompt: str
    image: ShownImage

    def key(self, identity: Mapping[str, Any]) -> str:
        """Hash of all that determines the suggested prompt: 16 hex digits."""
        determined_by = {
            "pixels": self.image.pixels,
            "prompt": self.prompt,
            "refiner": dict(identity),
        }
        return digest(determined_by)[:ID_LENGTH]


def suggest_prompts(
    requests: Sequence[RefineRequest],
    refiner: "EndpointRefiner",
    cache: Ledger | None = None,
    log: Log = print,
) -> list[Reply[str]]:
    """The prompt that is suggested for each image, or the reason why there is none, in order.

    Raises:
        HoiError: the endpoint cannot be used at all, known at its first call.
    """
    keys = [request.key(refiner.identity) for request in requests]
    outcomes = ReplyCache(cache, REPLY_KIND, encode=str, decode=str, log=log).get_or_request(
        dict(zip(keys, requests, strict=True)),
        lambda missing, on_reply: refiner.ask(missing, on_reply, log),
    )
    return [outcomes[key] for key in keys]


# The schema, class name included, is part of the reply cache's keys.
class _Reply(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    prompt: str


class EndpointRefiner(StructuredOutput[RefineRequest, str]):
    """Shows an image to the critic's endpoint and asks for a prompt that refines it."""

    section = "critic"
    label = "refined prompts"
    templates = TEMPLATES
    reply_schema = _Reply
    typical_reply_tokens = TYPICAL_REPLY_TOKENS

    def __init__(self, options: CriticSettings, budget: Budget | None = None) -> None:
        super().__init__(options, budget, options.image_tokens)
        self.max_words = options.max_words

    @property
    def identity(self) -> Mapping[str, Any]:
        """What determines a suggested prompt besides image and prompt."""
        return {**super().identity, "max_words": self.max_words}

    def image(self, request: RefineRequest) -> "Image.Image":
        """The image that is to be refined."""
        return request.image.open()

    def prompt(self, request: RefineRequest) -> tuple[str, str]:
        """The system and the user message."""
        schema = prompt_templates.as_json(self.schema)
        system = prompt_templates.render(TEMPLATES[0], schema=schema, max_words=self.max_words)
        return system, prompt_templates.render(TEMPLATES[1], prompt=request.prompt)

    def parse(self, request: RefineRequest, text: str) -> str:
        """The prompt in a reply, see `read_prompt`."""
        return read_prompt(text, self.max_words)
