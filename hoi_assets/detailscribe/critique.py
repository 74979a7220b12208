"""What a picture lacks of its prompt, component by component, and the prompt that asks for it.

The critic, a VQA model's yes and no or a vision endpoint, says what holds; the corrected prompt is
made by code: the original sentence word for word, then the corrections in order of impact.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hoi_assets.detailscribe.components import Component, dependencies
from hoi_assets.hashing import digest
from hoi_assets.llm import prompt_templates as wording
from hoi_assets.llm.budget import Budget
from hoi_assets.llm.client import Unusable, one_json_object
from hoi_assets.llm.reply_cache import Cache, Outcome, found_or_asked
from hoi_assets.llm.shown_image import ShownImage
from hoi_assets.llm.structured_output import Asker
from hoi_assets.progress import Log
from hoi_assets.settings import Critic as CriticSettings
from hoi_assets.taxonomy import ID_LENGTH

if TYPE_CHECKING:
    import polars as pl
    from PIL import Image

REPLY_KIND = "critique"
MAX_WORDS = 70
MAX_CORRECTION_WORDS = 15
MIN_CORRECTION_WORDS = 3
MAX_OTHERS = 3
TEMPLATES = ("critique_system.j2", "critique_user.j2", "again.j2")
TYPICAL_REPLY_TOKENS = 300
SENTENCE_ENDS = (".", "!", "?")
VQA_VERSION = "1"


@dataclass(frozen=True)
class Finding:
    """What a critic says of one component.

    Attributes:
        component: its number, from 0; None for something else that is wrong in the picture.
        confidence: in `satisfied`, 0 to 1.
        problem, correction: what is wrong and what to show instead; None where satisfied.
    """

    component: int | None
    satisfied: bool
    confidence: float
    problem: str | None = None
    correction: str | None = None


@dataclass(frozen=True)
class Critique:
    """One picture's findings in order of impact, and the corrected prompt.

    Attributes:
        corrected_prompt: None where there is nothing to correct, or the critique failed.
        reason: `code: detail` where it failed.
        cost_usd: None where a price or the number of tokens is not known.
        image_id: of the picture it is about.
    """

    row_id: str
    prompt: str
    components: tuple[Component, ...]
    findings: tuple[Finding, ...]
    corrected_prompt: str | None
    status: Literal["accepted", "failed"]
    reason: str | None
    model: str
    template_version: str
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None
    image_id: str | None = None

    @property
    def nothing_to_correct(self) -> bool:
        """Whether the critic found every component there and nothing else wrong."""
        return self.status == "accepted" and self.corrected_prompt is None


class NoRoom(ValueError):
    """The prompt is so long that no correction fits behind it."""


# --- findings and prompts -------------------------------------------------------------------------


def findings_from_answers(
    components: Sequence[Component], p_yes: Sequence[float], threshold: float
) -> tuple[Finding, ...]:
    """Findings in order of impact from a VQA model's answers.

    Args:
        p_yes: probability of yes to each component's question, 0 to 1.
        threshold: from which on yes counts.

    Raises:
        ValueError: another number of answers than components, or one that is no probability.
    """
    if len(p_yes) != len(components):
        raise ValueError(f"{len(p_yes)} answers to {len(components)} questions")
    wrong = [n for n, p in enumerate(p_yes) if not (math.isfinite(p) and 0 <= p <= 1)]
    if wrong:
        raise ValueError(f"component {wrong[0]}: {p_yes[wrong[0]]} is no probability")
    findings = [
        Finding(number, True, float(p))
        if p >= threshold
        else Finding(number, False, 1 - float(p), f"not seen: {one.statement}", one.statement)
        for number, (one, p) in enumerate(zip(components, p_yes, strict=True))
    ]
    return ranked(findings, components)


def ranked(findings: Sequence[Finding], components: Sequence[Component]) -> tuple[Finding, ...]:
    """Findings by impact: failures first; of these, those that more components build on (directly
    or through others), then the surer ones. What is no component comes last among failures."""
    builders = dependents(components)

    def impact(finding: Finding) -> tuple[bool, float, float]:
        number = finding.component
        weight = -1 if number is None else builders[number]
        return finding.satisfied, -weight, -finding.confidence

    return tuple(sorted(findings, key=impact))


def dependents(components: Sequence[Component]) -> tuple[int, ...]:
    """For each component how many others build on it, directly or through others."""
    below: list[set[int]] = [set() for _ in components]
    for number, needs in reversed(list(enumerate(dependencies(components)))):
        for needed in needs:
            below[needed] |= {number, *below[number]}
    return tuple(len(found) for found in below)


def corrected_prompt(
    prompt: str, findings: Sequence[Finding], max_words: int = MAX_WORDS
) -> str | None:
    """The prompt with the corrections of what does not hold, in the order of the findings.

    None: nothing to correct. See `extended` for how corrections are added.

    Raises:
        NoRoom: no correction fits within `max_words`.
    """
    corrections = [f.correction for f in findings if not f.satisfied and f.correction]
    return extended(prompt, corrections, max_words) if corrections else None


def extended(prompt: str, additions: Sequence[str], max_words: int = MAX_WORDS) -> str:
    """The prompt word for word, then as many of the additions as fit; equal ones once.

    A prompt that ends like a sentence is followed by sentences, another by phrases after commas, as
    the tiny world says things.

    >>> extended("a hand holds a cup", ["the cup is red"])
    'a hand holds a cup, the cup is red'
    >>> extended("A fox stirs a stew.", ["the paw holds the spoon"])
    'A fox stirs a stew. The paw holds the spoon.'

    Raises:
        NoRoom: none fits within `max_words`.
    """
    sentences = prompt.rstrip().endswith(SENTENCE_ENDS)
    text = prompt
    for addition in dict.fromkeys(additions):
        bare = addition.strip().rstrip(".,; ")
        sentence = f"{bare[:1].upper()}{bare[1:]}{'' if bare.endswith(SENTENCE_ENDS) else '.'}"
        longer = f"{text} {sentence}" if sentences else f"{text}, {bare}"
        if bare and word_count(longer) <= max_words:
            text = longer
    if text == prompt:
        words = word_count(prompt)
        raise NoRoom(f"the prompt has {words} words, with corrections {max_words} are allowed")
    return text


def check_corrected(prompt: str, corrected: str, max_words: int = MAX_WORDS) -> str | None:
    """Why this is no corrected prompt, as `code: detail`; None where it is one.

    >>> check_corrected("a cup", "a cupboard, red")
    "not_verbatim: it does not begin with 'a cup' word for word"
    """
    rest = corrected[len(prompt) :]
    if not corrected.startswith(prompt) or rest[:1].isalnum():
        return f"not_verbatim: it does not begin with {prompt!r} word for word"
    if not any(sign.isalnum() for sign in rest):
        return "nothing_added: it says no more than the prompt"
    if word_count(corrected) > max_words:
        return f"too_many_words: {word_count(corrected)}, at most {max_words}"
    if not rest.isprintable():
        return "unprintable: a correction holds characters that cannot be printed"
    return None


def word_count(text: str) -> int:
    """Words between spaces."""
    return len(text.split())


# --- critiques ------------------------------------------------------------------------------------


def critique_from_answers(
    row_id: str,
    prompt: str,
    components: Sequence[Component],
    p_yes: Sequence[float],
    options: CriticSettings,
    model: str,
) -> Critique:
    """The critique of one picture by a VQA model's answers; corrections are the components' words.

    Args:
        p_yes: probability of yes to each component's question, 0 to 1.
        model: which model answered, for the row.
    """
    try:
        outcome = Outcome(findings_from_answers(components, p_yes, options.threshold), None, model)
    except ValueError as error:
        outcome = Outcome(None, f"no_answer: {error}", model)
    return _critique(row_id, prompt, components, outcome, options, VQA_VERSION)


def no_critique(row_id: str, prompt: str, reason: str) -> Critique:
    """The failed critique of a picture that nobody could look at; `reason` as `code: detail`."""
    return Critique(row_id, prompt, (), (), None, "failed", reason, "", "")


@dataclass(frozen=True)
class CritiqueRequest:
    """A picture to be judged by the components of its prompt."""

    row_id: str
    prompt: str
    components: tuple[Component, ...]
    seen: ShownImage

    def key(self, identity: Mapping[str, Any]) -> str:
        """Hash of all that determines the critique: 16 hex digits."""
        determined_by = {
            "pixels": self.seen.pixels,
            "prompt": self.prompt,
            "components": [one.model_dump() for one in self.components],
            "critic": dict(identity),
        }
        return digest(determined_by)[:ID_LENGTH]


def critique_pictures(
    requests: Sequence[CritiqueRequest],
    critic: "EndpointCritic",
    cache: Cache | None = None,
    log: Log = print,
) -> list[Critique]:
    """The endpoint's critique of each picture, in their order; equal requests are asked once.

    Args:
        cache: replies kept by the hash of picture, prompt, components and critic.

    Raises:
        HoiError: the endpoint cannot be used at all; nothing was asked in vain.
    """
    keys = [request.key(critic.identity) for request in requests]
    outcomes = found_or_asked(
        cache,
        REPLY_KIND,
        dict(zip(keys, requests, strict=True)),
        lambda missing, keep: critic.ask(missing, keep, log),
        dump=lambda findings: [_as_record(finding) for finding in findings],
        load=lambda records: tuple(_from_record(record) for record in records),
        log=log,
    )
    made = [
        _critique(
            request.row_id,
            request.prompt,
            request.components,
            outcomes[key],
            critic.options,
            critic.template_version,
        )
        for key, request in zip(keys, requests, strict=True)
    ]
    nothing = sum(one.nothing_to_correct for one in made)
    failed = sum(one.status == "failed" for one in made)
    log(f"{len(made)} pictures judged, {nothing} with nothing to correct, {failed} failed")
    return made


# Replies of older homes are kept in this shape.
def _as_record(finding: Finding) -> dict[str, Any]:
    fields = vars(finding).copy()
    return {"holds": fields.pop("satisfied"), **fields}


def _from_record(record: Mapping[str, Any]) -> Finding:
    fields = dict(record)
    return Finding(satisfied=fields.pop("holds"), **fields)


def _critique(
    row_id: str,
    prompt: str,
    components: Sequence[Component],
    outcome: Outcome[tuple[Finding, ...]],
    options: CriticSettings,
    template_version: str,
) -> Critique:
    findings, reason, corrected = outcome.value or (), outcome.reason, None
    if outcome.value is not None:
        try:
            corrected = corrected_prompt(prompt, findings, options.max_words)
        except NoRoom as error:
            reason = f"no_room: {error}"
        if corrected is not None:
            reason = check_corrected(prompt, corrected, options.max_words)
    return Critique(
        row_id=row_id,
        prompt=prompt,
        components=tuple(components),
        findings=findings,
        corrected_prompt=None if reason else corrected,
        status="failed" if reason else "accepted",
        reason=reason,
        model=outcome.model,
        template_version=template_version,
        input_tokens=outcome.input_tokens,
        output_tokens=outcome.output_tokens,
        cost_usd=outcome.cost_usd,
    )


def critiques_table(rows: Sequence[Critique]) -> "pl.DataFrame":
    """One line per picture: row_id, image_id, prompt, corrected prompt with its number of words,
    counts, status, reason, cost."""
    import polars as pl

    schema: dict[str, Any] = {
        "row_id": pl.String,
        "image_id": pl.String,
        "prompt": pl.String,
        "corrected_prompt": pl.String,
        "words": pl.Int64,
        "nothing_to_correct": pl.Boolean,
        "components": pl.Int64,
        "failing": pl.Int64,
        "status": pl.String,
        "reason": pl.String,
        "model": pl.String,
        "template_version": pl.String,
        "input_tokens": pl.Int64,
        "output_tokens": pl.Int64,
        "cost_usd": pl.Float64,
    }
    records = [
        {
            **vars(row),
            "words": None if row.corrected_prompt is None else word_count(row.corrected_prompt),
            "nothing_to_correct": row.nothing_to_correct,
            "components": len(row.components),
            "failing": sum(not finding.satisfied for finding in row.findings),
        }
        for row in rows
    ]
    return pl.DataFrame([{name: r[name] for name in schema} for r in records], schema=schema)


def findings_table(rows: Sequence[Critique]) -> "pl.DataFrame":
    """One line per finding in order of impact: row_id, rank (from 0), component, its fields,
    satisfied, confidence, problem, correction."""
    import polars as pl

    schema: dict[str, Any] = {
        "row_id": pl.String,
        "rank": pl.Int64,
        "component": pl.Int64,
        **{name: pl.String for name in Component.model_fields},
        "satisfied": pl.Boolean,
        "confidence": pl.Float64,
        "problem": pl.String,
        "correction": pl.String,
    }
    records = []
    for row in rows:
        for rank, finding in enumerate(row.findings):
            number = finding.component
            fields = row.components[number].model_dump() if number is not None else {}
            records.append(
                {
                    **dict.fromkeys(schema),
                    **fields,
                    **vars(finding),
                    "row_id": row.row_id,
                    "rank": rank,
                }
            )
    return pl.DataFrame(records, schema=schema)


# --- endpoint -------------------------------------------------------------------------------------


class _Strict(BaseModel):
    # Strict, since a "yes" or "0.9" in quotes is a sign of a reply that was not thought in fields.
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


class EndpointCritic(Asker[CritiqueRequest, tuple[Finding, ...]]):
    """Shows a picture to a vision endpoint and asks of each component whether it holds."""

    section = "critic"
    label = "critiques"
    templates = TEMPLATES
    reply = _Reply
    typical_reply_tokens = TYPICAL_REPLY_TOKENS

    def __init__(self, options: CriticSettings, budget: Budget | None = None) -> None:
        super().__init__(options, budget, options.image_tokens)
        self.options = options

    @property
    def identity(self) -> Mapping[str, Any]:
        """What determines a critique beside picture, prompt and components."""
        return {**super().identity, "max_words": self.options.max_words}

    def image(self, request: CritiqueRequest) -> "Image.Image":
        """The picture to be judged."""
        return request.seen.open()

    def words(self, request: CritiqueRequest) -> tuple[str, str]:
        """What the system and the user say."""
        system = wording.render(
            "critique_system.j2",
            schema=wording.as_json(self.schema),
            max_correction_words=self._room(request.prompt),
            max_others=MAX_OTHERS,
        )
        user = wording.render(
            "critique_user.j2", prompt=request.prompt, components=request.components
        )
        return system, user

    def read(self, request: CritiqueRequest, text: str) -> tuple[Finding, ...]:
        """Findings in order of impact."""
        return _read(text, request.components, self._room(request.prompt))

    def _room(self, prompt: str) -> int:
        """The most words of one correction, so that the corrected prompt has room for it."""
        room = self.options.max_words - word_count(prompt)
        return max(MIN_CORRECTION_WORDS, min(MAX_CORRECTION_WORDS, room))


def _read(text: str, components: Sequence[Component], room: int) -> tuple[Finding, ...]:
    """Findings in order of impact from the text of a reply.

    Args:
        room: the most words of one correction.
    """
    try:
        reply = _Reply.model_validate(one_json_object(text))
    except ValidationError as error:
        raise Unusable(wording.told(error), text) from error
    numbers = sorted(judged.number for judged in reply.findings)
    wanted = list(range(1, len(components) + 1))
    if numbers != wanted:
        raise Unusable(f"findings are about components {numbers}, wanted is each of {wanted}", text)
    if len(reply.others) > MAX_OTHERS:
        raise Unusable(f"others has {len(reply.others)} entries, at most {MAX_OTHERS}", text)
    found = [
        Finding(judged.number - 1, True, judged.confidence)
        if judged.holds
        else Finding(
            judged.number - 1,
            False,
            judged.confidence,
            _said(judged.problem, f"the problem of component {judged.number}", text),
            _correction(judged.correction, f"component {judged.number}", room, text),
        )
        for judged in reply.findings
    ]
    found += [
        Finding(
            None,
            False,
            other.confidence,
            _said(other.problem, "a problem in others", text),
            _correction(other.correction, "others", room, text),
        )
        for other in reply.others
    ]
    return ranked(found, components)


def _correction(correction: str | None, whose: str, room: int, text: str) -> str:
    said = _said(correction, f"the correction of {whose}", text)
    if word_count(said) > room:
        raise Unusable(
            f"the correction of {whose} has {word_count(said)} words, at most {room}", text
        )
    return said


def _said(words: str | None, what: str, text: str) -> str:
    line = " ".join((words or "").split())
    if not any(sign.isalnum() for sign in line):
        raise Unusable(f"{what} is missing", text)
    if not line.isprintable():
        raise Unusable(f"{what} holds characters that cannot be printed", text)
    return line
