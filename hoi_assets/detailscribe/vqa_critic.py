"""A VQA model as critic: it answers each component's yes/no question about an image.

Its corrections are the components' own words, so it can say that something is missing, but not what
else is wrong.
"""

import math
from collections.abc import Sequence

from hoi_assets.detailscribe.components import Component
from hoi_assets.detailscribe.critique import (
    ComponentFinding,
    Critique,
    CritiqueRequest,
    build_critique,
    rank_findings,
)
from hoi_assets.engines.text_tokens import TokenCount
from hoi_assets.engines.vilt.answers import cached_answers, count_question_tokens
from hoi_assets.llm.reply import Reply
from hoi_assets.progress import Log
from hoi_assets.settings import Critic as CriticSettings
from hoi_assets.settings import ModelRef, Settings
from hoi_assets.store.versions import Store
from hoi_assets.store.weights import model_digest

TEMPLATE_VERSION = "1"


def critique_by_vqa(
    store: Store,
    settings: Settings,
    ref: ModelRef,
    requests: Sequence[CritiqueRequest],
    log: Log,
) -> list[Critique]:
    """The VQA model's critique of each image, in their order; known answers are not asked again."""
    asked = [(r.image.pixels, one.question) for r in requests for one in r.components]
    p_yes = cached_answers(store, settings, ref, asked, log)
    name = model_digest(ref)[:16]
    return [
        critique_from_answers(
            request,
            [p_yes[request.image.pixels, one.question] for one in request.components],
            settings.critic,
            name,
        )
        for request in requests
    ]


def count_critic_tokens(
    store: Store, settings: Settings, critiques: Sequence[Critique]
) -> dict[str, TokenCount]:
    """By question what the VQA critic reads of it; {} where an endpoint is the critic."""
    ref = settings.models.critic
    if settings.critic.endpoint is not None or ref is None:
        return {}
    questions = [part.question for critique in critiques for part in critique.components]
    return count_question_tokens(store, ref, questions)


def critique_from_answers(
    request: CritiqueRequest, p_yes: Sequence[float], options: CriticSettings, model: str
) -> Critique:
    """The critique of one image from a VQA model's answers.

    Args:
        p_yes: probability of yes to each component's question, 0 to 1.
        model: name of the model that answered, for the table.
    """
    try:
        findings = findings_from_answers(request.components, p_yes, options.threshold)
        outcome = Reply(findings, None, model)
    except ValueError as error:
        outcome = Reply(None, f"no_answer: {error}", model)
    return build_critique(request, outcome, options.max_words, TEMPLATE_VERSION)


def findings_from_answers(
    components: Sequence[Component], p_yes: Sequence[float], threshold: float
) -> tuple[ComponentFinding, ...]:
    """Findings in order of impact from a VQA model's answers.

    Args:
        p_yes: probability of yes to each component's question, 0 to 1.
        threshold: the least probability that counts as yes.

    Raises:
        ValueError: another number of answers than components, or a number that is not a
        probability.
    """
    if len(p_yes) != len(components):
        raise ValueError(f"{len(p_yes)} answers to {len(components)} questions")
    wrong = [n for n, p in enumerate(p_yes) if not (math.isfinite(p) and 0 <= p <= 1)]
    if wrong:
        raise ValueError(f"component {wrong[0]}: {p_yes[wrong[0]]} is not a probability")
    findings = [
        ComponentFinding(number, True, float(p))
        if p >= threshold
        else ComponentFinding(
            number, False, 1 - float(p), f"not seen: {one.statement}", one.statement
        )
        for number, (one, p) in enumerate(zip(components, p_yes, strict=True))
    ]
    return rank_findings(findings, components)
