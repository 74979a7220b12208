"""Critiques of images: what of its prompt an image does not show, component by component, and the
corrected prompt that asks for it (DetailScribe, arXiv 2504.08714).

A critic (`vqa_critic`, `endpoint_critic`) only says which components an image shows. The corrected
prompt is built here, by code: the original sentence word for word, then the corrections in order of
impact.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import polars as pl

from hoi_assets.detailscribe.columns import COMPONENT_COLUMNS, REPLY_COLUMNS, STATUS_COLUMNS
from hoi_assets.detailscribe.components import Component, count_dependents
from hoi_assets.detailscribe.prompt_extension import (
    MAX_WORDS,
    NoRoom,
    extend_prompt,
    find_extension_problem,
    word_count,
)
from hoi_assets.engines.text_tokens import TokenCount
from hoi_assets.hashing import digest
from hoi_assets.llm.reply import Reply
from hoi_assets.llm.shown_image import ShownImage
from hoi_assets.store.tables import Column, Table
from hoi_assets.taxonomy import ID_LENGTH

CRITIQUE_ROWS = Table(
    "rows",
    "One initial image and its critique.",
    (
        Column("row_id", pl.String, "row of interacting_prompts"),
        Column("image_id", pl.String, "the initial image that was judged"),
        Column("prompt", pl.String, "the original prompt"),
        Column(
            "corrected_prompt",
            pl.String,
            "the prompt, then the corrections; null if nothing is to be corrected or it failed",
            nullable=True,
        ),
        Column("words", pl.Int64, "length of the corrected prompt", "words", nullable=True),
        Column("nothing_to_correct", pl.Boolean, "whether the critic found nothing wrong"),
        Column("components", pl.Int64, "number of components that were judged"),
        Column("failing", pl.Int64, "number of findings that are not satisfied"),
        *STATUS_COLUMNS,
        *REPLY_COLUMNS,
    ),
    key=("row_id",),
)
CRITIQUE_FINDINGS = Table(
    "findings",
    "One finding of a critique.",
    (
        Column("row_id", pl.String, "row of interacting_prompts"),
        Column("rank", pl.Int64, "place by impact, from 0; failures come first"),
        Column(
            "component",
            pl.Int64,
            "number of the component, from 0; null for anything else that is wrong",
            nullable=True,
        ),
        *(replace(column, nullable=True) for column in COMPONENT_COLUMNS),
        Column(
            "question_tokens",
            pl.Int64,
            "length of the question for the VQA critic, special tokens included; null for an "
            "endpoint's finding",
            "tokens",
            nullable=True,
        ),
        Column(
            "question_cut",
            pl.Boolean,
            "whether the critic read only its beginning; null as above",
            nullable=True,
        ),
        Column("satisfied", pl.Boolean, "whether the image shows the component"),
        Column("confidence", pl.Float64, "the critic's confidence in `satisfied`, 0 to 1"),
        Column("problem", pl.String, "what is wrong in the image", nullable=True),
        Column("correction", pl.String, "what to show instead", nullable=True),
    ),
    key=("row_id", "rank"),
)


@dataclass(frozen=True)
class CritiqueRequest:
    """An image to be judged by the components of its prompt.

    Attributes:
        topic: of the benchmark's row; None where the critic is not told.
    """

    row_id: str
    prompt: str
    components: tuple[Component, ...]
    image: ShownImage
    topic: str | None = None

    def key(self, identity: Mapping[str, Any]) -> str:
        """Hash of all that determines the critique, the critic's identity included: 16 digits."""
        determined_by = {
            "pixels": self.image.pixels,
            "prompt": self.prompt,
            "components": [one.model_dump() for one in self.components],
            "critic": dict(identity),
        }
        if self.topic is not None:
            determined_by["topic"] = self.topic
        return digest(determined_by)[:ID_LENGTH]


@dataclass(frozen=True)
class ComponentFinding:
    """What a critic says of one component.

    Attributes:
        component: its number, from 0; None for anything else that is wrong in the image.
        confidence: in `satisfied`, 0 to 1; 1 where the protocol presupposes the fault.
        problem, correction: what is wrong and what to show instead; None where satisfied.
    """

    component: int | None
    satisfied: bool
    confidence: float
    problem: str | None = None
    correction: str | None = None


@dataclass(frozen=True)
class Critique:
    """One image's findings in order of impact, and the corrected prompt.

    Attributes:
        corrected_prompt: None where there is nothing to correct, or the critique failed.
        reason: `code: detail` where it failed.
        cost_usd: None where a price or the number of tokens is not known.
        image_id: of the image that was judged.
    """

    row_id: str
    prompt: str
    components: tuple[Component, ...]
    findings: tuple[ComponentFinding, ...]
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
        """Whether the critic found every component and nothing else wrong."""
        return self.status == "accepted" and self.corrected_prompt is None


def build_critique(
    request: CritiqueRequest,
    outcome: Reply[tuple[ComponentFinding, ...]],
    max_words: int,
    template_version: str,
) -> Critique:
    """The critique of an image from a critic's findings, or from the reason why there are none.

    Args:
        max_words: of the corrected prompt.
    """
    findings, reason, corrected = outcome.value or (), outcome.reason, None
    if outcome.value is not None:
        try:
            corrected = correct_prompt(request.prompt, findings, max_words)
        except NoRoom as error:
            reason = f"no_room: {error}"
        if corrected is not None:
            reason = find_extension_problem(request.prompt, corrected, max_words)
    return Critique(
        row_id=request.row_id,
        prompt=request.prompt,
        components=request.components,
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


def failed_critique(row_id: str, prompt: str, reason: str) -> Critique:
    """The critique of an image that could not be judged; `reason` as `code: detail`."""
    return Critique(row_id, prompt, (), (), None, "failed", reason, "", "")


def correct_prompt(
    prompt: str, findings: Sequence[ComponentFinding], max_words: int = MAX_WORDS
) -> str | None:
    """The prompt, then the corrections of what is not satisfied, in the order of the findings.

    Returns:
        None if there is nothing to correct.

    Raises:
        NoRoom: no correction fits within `max_words`.
    """
    corrections = [one.correction for one in findings if not one.satisfied and one.correction]
    return extend_prompt(prompt, corrections, max_words) if corrections else None


def rank_findings(
    findings: Sequence[ComponentFinding], components: Sequence[Component]
) -> tuple[ComponentFinding, ...]:
    """Findings by impact: failures first, by how many components depend on them, then by
    confidence. Findings about no component come last among the failures."""
    dependents = count_dependents(components)

    def impact(finding: ComponentFinding) -> tuple[bool, float, float]:
        number = finding.component
        weight = -1 if number is None else dependents[number]
        return finding.satisfied, -weight, -finding.confidence

    return tuple(sorted(findings, key=impact))


def critiques_frame(critiques: Sequence[Critique]) -> pl.DataFrame:
    """A frame of CRITIQUE_ROWS."""
    return CRITIQUE_ROWS.frame(
        {
            **vars(one),
            "words": None if one.corrected_prompt is None else word_count(one.corrected_prompt),
            "nothing_to_correct": one.nothing_to_correct,
            "components": len(one.components),
            "failing": sum(not finding.satisfied for finding in one.findings),
        }
        for one in critiques
    )


def findings_frame(
    critiques: Sequence[Critique], counts: Mapping[str, TokenCount] | None = None
) -> pl.DataFrame:
    """A frame of CRITIQUE_FINDINGS: of each critique in order of impact.

    Args:
        counts: by question how much of it the critic read; None where that is unknown.
    """
    no_component = dict.fromkeys(Component.model_fields)

    def read(finding: ComponentFinding, critique: Critique) -> dict[str, Any]:
        number = finding.component
        question = None if number is None else critique.components[number].question
        found = (counts or {}).get(question or "")
        return {
            "question_tokens": found and found.tokens,
            "question_cut": found and found.cut,
        }

    return CRITIQUE_FINDINGS.frame(
        {
            **(
                no_component
                if finding.component is None
                else critique.components[finding.component].model_dump()
            ),
            **vars(finding),
            **read(finding, critique),
            "row_id": critique.row_id,
            "rank": rank,
        }
        for critique in critiques
        for rank, finding in enumerate(critique.findings)
    )
