"""The critique of DetailScribe's published code (arXiv 2504.08714): a vision endpoint that is told
that the picture is faulty, and writes the whole new prompt.

The messages are our own words for the authors' instructions. As there, the endpoint sees the topic
and the components, lists problems by their impact, and gives a prompt of at most 70 words that
begins with the original sentence. A reply that does not begin with it is asked for again; the
authors' code takes any.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from hoi_assets.detailscribe.critique import ComponentFinding, Critique, CritiqueRequest
from hoi_assets.detailscribe.flat_form import to_flat
from hoi_assets.detailscribe.prompt_extension import find_extension_problem
from hoi_assets.llm import prompt_templates
from hoi_assets.llm.budget import Budget
from hoi_assets.llm.reply import Reply, UnusableReply, parse_json_object
from hoi_assets.llm.reply_cache import ReplyCache
from hoi_assets.llm.structured_output import StructuredOutput
from hoi_assets.progress import Log
from hoi_assets.settings import Critic as CriticSettings
from hoi_assets.store.ledger import Ledger

if TYPE_CHECKING:
    from PIL import Image

REPLY_KIND = "published_critique"
TEMPLATES = ("published_critique_system.j2", "published_critique_user.j2", "again.j2")
TYPICAL_REPLY_TOKENS = 400
# The protocol presupposes the fault, so the endpoint is not asked how sure it is.
PRESUPPOSED = 1.0


@dataclass(frozen=True)
class WrittenPrompt:
    """A reply: the new prompt, and (problem, correction) of each issue in order of impact."""

    prompt: str
    issues: tuple[tuple[str, str], ...]


def critique_as_published(
    requests: Sequence[CritiqueRequest],
    critic: "PublishedCritic",
    cache: Ledger | None = None,
    log: Log = print,
) -> list[Critique]:
    """The endpoint's critique of each image, in their order; equal requests are sent once.

    The findings are about no component, and none is satisfied.

    Raises:
        HoiError: the endpoint cannot be used at all, known at its first call.
    """
    keys = [request.key(critic.identity) for request in requests]
    replies: ReplyCache[WrittenPrompt] = ReplyCache(
        cache, REPLY_KIND, encode=asdict, decode=_from_record, log=log
    )
    outcomes = replies.get_or_request(
        dict(zip(keys, requests, strict=True)),
        lambda missing, on_reply: critic.ask(missing, on_reply, log),
    )
    critiques = [
        _critique(request, outcomes[key], critic.template_version)
        for key, request in zip(keys, requests, strict=True)
    ]
    failed = sum(one.status == "failed" for one in critiques)
    log(f"{len(critiques)} images critiqued as published, {failed} failed")
    return critiques


def _from_record(record: Mapping[str, Any]) -> WrittenPrompt:
    return WrittenPrompt(record["prompt"], tuple((one[0], one[1]) for one in record["issues"]))


def _critique(request: CritiqueRequest, outcome: Reply[WrittenPrompt], version: str) -> Critique:
    written = outcome.value
    return Critique(
        row_id=request.row_id,
        prompt=request.prompt,
        components=request.components,
        findings=tuple(
            ComponentFinding(None, False, PRESUPPOSED, problem, correction)
            for problem, correction in (written.issues if written else ())
        ),
        corrected_prompt=written.prompt if written else None,
        status="accepted" if written else "failed",
        reason=outcome.reason,
        model=outcome.model,
        template_version=version,
        input_tokens=outcome.input_tokens,
        output_tokens=outcome.output_tokens,
        cost_usd=outcome.cost_usd,
    )


# The schema, class names included, is part of the reply cache's keys.
class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Issue(_Strict):
    problem: str
    correction: str


class _Reply(_Strict):
    issues: list[_Issue]
    prompt: str


class PublishedCritic(StructuredOutput[CritiqueRequest, WrittenPrompt]):
    """Shows an image to a vision endpoint and has it write the whole new prompt."""

    section = "critic"
    label = "critiques as published"
    templates = TEMPLATES
    reply_schema = _Reply
    typical_reply_tokens = TYPICAL_REPLY_TOKENS

    def __init__(self, options: CriticSettings, budget: Budget | None = None) -> None:
        super().__init__(options, budget, options.image_tokens)
        self.max_words = options.max_words

    @property
    def identity(self) -> Mapping[str, Any]:
        """What determines a critique besides image, prompt, topic and components."""
        return {**super().identity, "max_words": self.max_words}

    def image(self, request: CritiqueRequest) -> "Image.Image":
        """The image that is critiqued."""
        return request.image.open()

    def prompt(self, request: CritiqueRequest) -> tuple[str, str]:
        """The system and the user message."""
        schema = prompt_templates.as_json(self.schema)
        return (
            prompt_templates.render(TEMPLATES[0], schema=schema, max_words=self.max_words),
            prompt_templates.render(
                TEMPLATES[1],
                prompt=request.prompt,
                topic=request.topic or "",
                components=to_flat(request.components),
            ),
        )

    def parse(self, request: CritiqueRequest, text: str) -> WrittenPrompt:
        """The new prompt and the issues.

        Raises:
            UnusableReply: a reply that breaks the schema, or a prompt that is not the original one
                word for word with something after it, within `max_words`.
        """
        try:
            reply = _Reply.model_validate(parse_json_object(text))
        except ValidationError as error:
            raise UnusableReply(prompt_templates.validation_problem(error), text) from error
        written, first = " ".join(reply.prompt.split()), " ".join(request.prompt.split())
        if written.startswith(first):
            written = request.prompt + written[len(first) :]
        problem = find_extension_problem(request.prompt, written, self.max_words)
        if problem is not None:
            raise UnusableReply(f"prompt is not usable: {problem}", text)
        issues = tuple(
            (" ".join(one.problem.split()), " ".join(one.correction.split()))
            for one in reply.issues
        )
        if not all(line.isprintable() for one in issues for line in one):
            raise UnusableReply("issues hold characters that cannot be printed", text)
        return WrittenPrompt(written, issues)
