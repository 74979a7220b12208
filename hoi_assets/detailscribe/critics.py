"""The critic that the settings choose, and what its findings are worth in choosing a picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hoi_assets.detailscribe.components import Component
from hoi_assets.detailscribe.critique import (
    Critique,
    CritiqueRequest,
    EndpointCritic,
    critique_from_answers,
    critique_pictures,
)
from hoi_assets.engines.vilt.answers import cached_answers
from hoi_assets.errors import HoiError
from hoi_assets.llm.shown_image import ShownImage
from hoi_assets.progress import Log
from hoi_assets.settings import Settings
from hoi_assets.store.versions import Store
from hoi_assets.store.weights import model_digest

SELECTION_RULE = "critic: most components held, then the mean probability"


@dataclass(frozen=True)
class Picture:
    """A picture of a benchmark row, by the digest of its pixels."""

    row_id: str
    prompt: str
    components: tuple[Component, ...]
    pixels: str


@dataclass(frozen=True, order=True)
class Merit:
    """What a picture shows of its components, by the critic: more is better.

    Attributes:
        held: how many hold.
        probability: mean probability that a component holds, 0 to 1.
    """

    held: int
    probability: float


def critiques(
    store: Store, settings: Settings, pictures: Sequence[Picture], log: Log
) -> list[Critique]:
    """The critique of each picture, in their order; one that is known is not asked for again.

    Raises:
        HoiError: no critic is set, or the one that is cannot be used at all.
    """
    options, ref = settings.critic, settings.models.critic
    if options.endpoint is not None:
        requests = [
            CritiqueRequest(p.row_id, p.prompt, p.components, ShownImage.of_store(store, p.pixels))
            for p in pictures
        ]
        return critique_pictures(requests, EndpointCritic(options), store.ledger, log)
    if ref is None:
        raise HoiError(
            "no critic is set", "name a VQA model under models.critic, or critic.endpoint"
        )
    asked = [(p.pixels, one.question) for p in pictures for one in p.components]
    p_yes = cached_answers(store, settings, ref, asked, log)
    name = model_digest(ref)[:16]
    return [
        critique_from_answers(
            p.row_id,
            p.prompt,
            p.components,
            [p_yes[p.pixels, one.question] for one in p.components],
            options,
            name,
        )
        for p in pictures
    ]


def holding(critique: Critique) -> Mapping[int, bool]:
    """By component number whether it holds."""
    return {f.component: f.holds for f in critique.findings if f.component is not None}


def corrections(critique: Critique) -> Mapping[int, str]:
    """By component number how to say what does not hold."""
    return {
        f.component: f.correction
        for f in critique.findings
        if f.component is not None and f.correction
    }


def merit(critique: Critique) -> Merit | None:
    """What the picture is worth; None where it could not be judged."""
    found = [f for f in critique.findings if f.component is not None]
    if not found:
        return None
    p_holds = [f.confidence if f.holds else 1 - f.confidence for f in found]
    return Merit(sum(f.holds for f in found), sum(p_holds) / len(p_holds))


def best(merits: Sequence[Merit | None]) -> int | None:
    """Place of the best picture, the first of equal ones; None where none could be judged.

    >>> best([Merit(1, 0.9), None, Merit(2, 0.6), Merit(2, 0.6)])
    2
    """
    judged = [(one, -place) for place, one in enumerate(merits) if one is not None]
    return -max(judged)[1] if judged else None
