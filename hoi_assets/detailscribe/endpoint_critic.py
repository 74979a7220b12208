"""A vision endpoint as critic: it sees the image and judges each component of the prompt.

This is the VLM critique of DetailScribe (arXiv 2504.08714). The endpoint does not write the new
prompt: it gives one short correction per component that is not satisfied, and code appends them.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hoi_assets.detailscribe.components import Component
from hoi_assets.detailscribe.critique import (
    ComponentFinding,
    Critique,
    CritiqueRequest,
    build_critique,
    rank_findings,
)
from hoi_assets.detailscribe.prompt_extension import word_count
from hoi_assets.llm import prompt_templates
from hoi_assets.llm.budget import Budget
from hoi_assets.llm.reply import UnusableReply, parse_json_object
from hoi_assets.llm.reply_cache import ReplyCache
from hoi_assets.llm.structured_output import StructuredOutput
from hoi_assets.progress import Log
from hoi_assets.settings import Critic as CriticSettings
from hoi_assets.store.ledger import Ledger

if TYPE_CHECKING:
    from PIL import Image

REPLY_KIND = "critique"
MAX_CORRECTION_WORDS = 15
MIN_CORRECTION_WORDS = 3
MAX_OTHERS = 3
TEMPLATES = ("critique_system.j2", "critique_user.j2", "again.j2")
TYPICAL_REPLY_TOKENS = 300


def critique_by_endpoint(
    requests: Sequence[CritiqueRequest],
    critic: "EndpointCritic",
    cache: Ledger | None = None,
    log: Log = print,
) -> list[Critique]:
    """The endpoint's critique of each image, in their order; equal requests are sent once.

    Args:
        cache: replies by the hash of image, prompt, components and critic.

    Raises:
        HoiError: the endpoint cannot be used at all, known at its first call.
    """
    keys = [request.key(critic.identity) for request in requests]
    outcomes = ReplyCache(
        cache,
        REPLY_KIND,
        encode=lambda findings: [_to_record(finding) for finding in findings],
        decode=lambda records: tuple(_from_record(record) for record in records),
        log=log,
    ).get_or_request(
        dict(zip(keys, requests, strict=True)),
        lambda missing, on_reply: critic.ask(missing, on_reply, log),
    )
    critiques = [
        build_critique(request, outcomes[key], critic.options.max_words, critic.template_version)
        for key, request in zip(keys, requests, strict=True)
    ]
    nothing = sum(one.nothing_to_correct for one in critiques)
    failed = sum(one.status == "failed" for one in critiques)
    log(f"{len(critiques)} images judged, {nothing} with nothing to correct, {failed} failed")
    return critiques


def _to_record(finding: ComponentFinding) -> dict[str, Any]:
    """A finding as the reply cache stores it; `holds` keeps stored replies readable."""
    return {
        "component": finding.component,
        "holds": finding.satisfied,
        "confidence": finding.confidence,
        "problem": finding.problem,
        "correction": finding.correction,
    }


def _from_record(record: Mapping[str, Any]) -> ComponentFinding:
    fields = dict(record)
    return ComponentFinding(satisfied=fields.pop("holds"), **fields)


# The schema of `_Reply`, class names included, is part of the reply cache's keys.
class _Strict(BaseModel):
    # Strict: "yes" or "0.9" in quotes means that the model ignored the schema.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


Confidence = Annotated[float, Field(ge=0, le=1)]


class _Judged(_Strict):
    number: int
    holds: bool
    confidence: Confidence
    problem: str | None
    correction: str | None


class _Other(_Strict):
    problem: str
    correction: str
    confidence: Confidence


class _Reply(_Strict):
    findings: list[_Judged]
    others: list[_Other]


class EndpointCritic(StructuredOutput[CritiqueRequest, tuple[ComponentFinding, ...]]):
    """Shows an image to a vision endpoint and asks which components it shows."""

    section = "critic"
    label = "critiques"
    templates = TEMPLATES
    reply_schema = _Reply
    typical_reply_tokens = TYPICAL_REPLY_TOKENS

    def __init__(self, options: CriticSettings, budget: Budget | None = None) -> None:
        super().__init__(options, budget, options.image_tokens)
        self.options = options

    @property
    def identity(self) -> Mapping[str, Any]:
        """What determines a critique besides image, prompt and components."""
        return {**super().identity, "max_words": self.options.max_words}

    def image(self, request: CritiqueRequest) -> "Image.Image":
        """The image to be judged."""
        return request.image.open()

    def prompt(self, request: CritiqueRequest) -> tuple[str, str]:
        """The system and the user message."""
        system = prompt_templates.render(
            "critique_system.j2",
            schema=prompt_templates.as_json(self.schema),
            max_correction_words=self._max_correction_words(request.prompt),
            max_others=MAX_OTHERS,
        )
        user = prompt_templates.render(
            "critique_user.j2", prompt=request.prompt, components=request.components
        )
        return system, user

    def parse(self, request: CritiqueRequest, text: str) -> tuple[ComponentFinding, ...]:
        """Findings in order of impact.

        Raises:
            UnusableReply: a reply that breaks the schema, or does not judge every component once.
        """
        return _read_findings(text, request.components, self._max_correction_words(request.prompt))

    def _max_correction_words(self, prompt: str) -> int:
        """The most words of one correction, so that it fits into the corrected prompt."""
        room = self.options.max_words - word_count(prompt)
        return max(MIN_CORRECTION_WORDS, min(MAX_CORRECTION_WORDS, room))


def _read_findings(
    text: str, components: Sequence[Component], max_correction_words: int
) -> tuple[ComponentFinding, ...]:
    try:
        reply = _Reply.model_validate(parse_json_object(text))
    except ValidationError as error:
        raise UnusableReply(prompt_templates.validation_problem(error), text) from error
    numbers = sorted(judged.number for judged in reply.findings)
    wanted = list(range(1, len(components) + 1))
    if numbers != wanted:
        raise UnusableReply(
            f"findings are about components {numbers}, wanted is each of {wanted}", text
        )
    if len(reply.others) > MAX_OTHERS:
        raise UnusableReply(f"others has {len(reply.others)} entries, at most {MAX_OTHERS}", text)
    findings = [
        ComponentFinding(judged.number - 1, True, judged.confidence)
        if judged.holds
        else ComponentFinding(
            judged.number - 1,
            False,
            judged.confidence,
            _read_line(judged.problem, f"the problem of component {judged.number}", text),
            _read_correction(
                judged.correction, f"component {judged.number}", max_correction_words, text
            ),
        )
        for judged in reply.findings
    ]
    findings += [
        ComponentFinding(
            None,
            False,
            other.confidence,
            _read_line(other.problem, "a problem in others", text),
            _read_correction(other.correction, "others", max_correction_words, text),
        )
        for other in reply.others
    ]
    return rank_findings(findings, components)


def _read_correction(correction: str | None, whose: str, max_words: int, text: str) -> str:
    line = _read_line(correction, f"the correction of {whose}", text)
    if word_count(line) > max_words:
        raise UnusableReply(
            f"the correction of {whose} has {word_count(line)} words, at most {max_words}", text
        )
    return line


def _read_line(words: str | None, what: str, text: str) -> str:
    line = " ".join((words or "").split())
    if not any(sign.isalnum() for sign in line):
        raise UnusableReply(f"{what} is missing", text)
    if not line.isprintable():
        raise UnusableReply(f"{what} holds characters that cannot be printed", text)
    return line
