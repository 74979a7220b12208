"""Which of a method's candidates is selected: by the critic, never by a metric that is reported.

DetailScribe (arXiv 2504.08714) reports the best of four variants by the metric itself. Here the
critic selects, the initial image is a candidate too, and the rule is stated in the row.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from hoi_assets.detailscribe.components import Component
from hoi_assets.detailscribe.critics import critique_images
from hoi_assets.detailscribe.critique import Critique, CritiqueRequest
from hoi_assets.detailscribe.image_rows import Record
from hoi_assets.llm.shown_image import ShownImage
from hoi_assets.progress import Log
from hoi_assets.settings import Settings
from hoi_assets.store.versions import Store

SELECTION_RULE = "critic: most components satisfied, then the mean probability"
NOTHING_TO_CORRECT = f"{SELECTION_RULE}; nothing to correct: the initial picture stands"

ComponentsByRow = Mapping[str, tuple[Component, ...]]


@dataclass(frozen=True, order=True)
class SelectionScore:
    """How much of its prompt an image shows, by the critic; a greater score is better.

    Attributes:
        satisfied: number of components that are satisfied.
        probability: mean probability that a component is satisfied, 0 to 1.
    """

    satisfied: int
    probability: float


def score_critique(critique: Critique) -> SelectionScore | None:
    """The score of the image that was judged; None where it could not be judged."""
    found = [one for one in critique.findings if one.component is not None]
    if not found:
        return None
    p_satisfied = [one.confidence if one.satisfied else 1 - one.confidence for one in found]
    return SelectionScore(sum(one.satisfied for one in found), sum(p_satisfied) / len(found))


def best_place(scores: Sequence[SelectionScore | None]) -> int | None:
    """Place of the best score, the first of equal ones; None where all are None.

    >>> best_place([SelectionScore(1, 0.9), None, SelectionScore(2, 0.6), SelectionScore(2, 0.6)])
    2
    """
    judged = [(one, -place) for place, one in enumerate(scores) if one is not None]
    return -max(judged)[1] if judged else None


def not_selectable(settings: Settings) -> tuple[int, ...]:
    """Numbers of the candidates that the settings keep from being selected: the initial image's."""
    return () if settings.redenoising.initial_is_candidate else (0,)


def critique_requests(
    store: Store,
    drawn: Sequence[Record],
    components: ComponentsByRow,
    topics: Mapping[str, str] | None = None,
) -> list[CritiqueRequest]:
    """A request for each image.

    Args:
        drawn: rows of IMAGE_ROWS with pixels. components, topics: by row_id.
    """
    return [
        CritiqueRequest(
            one["row_id"],
            one["prompt"],
            components[one["row_id"]],
            ShownImage.of_store(store, one["pixels"]),
            None if topics is None else topics[one["row_id"]],
        )
        for one in drawn
    ]


def critique_candidates(
    store: Store,
    settings: Settings,
    candidates: Sequence[Record],
    components: ComponentsByRow,
    log: Log,
) -> list[Critique | None]:
    """The critique of each image by its *original* prompt; None where it was not drawn.

    Args:
        candidates: rows of IMAGE_ROWS. components: by row_id.
    """
    drawn = [one for one in candidates if one["pixels"] is not None]
    requests = critique_requests(store, drawn, components)
    critiques = iter(critique_images(store, settings, requests, log))
    return [None if one["pixels"] is None else next(critiques) for one in candidates]


def select_candidate(
    candidates: Sequence[Record],
    critiques: Sequence[Critique | None],
    not_selectable: Collection[int] = (),
) -> list[Record]:
    """One benchmark row's candidates with the critic's scores, and the best one marked.

    Where none could be judged, none is selected and the candidates failed with the reason.

    Args:
        not_selectable: numbers of candidates that are selected only where no other was judged.
    """
    scores = [None if one is None else score_critique(one) for one in critiques]
    best = best_place(
        [
            None if one["candidate"] in not_selectable else score
            for one, score in zip(candidates, scores, strict=True)
        ]
    )
    if best is None:
        best = best_place(scores)
    records = []
    for place, (one, score, critique) in enumerate(zip(candidates, scores, critiques, strict=True)):
        record = one | {
            "satisfied": score.satisfied if score else None,
            "probability": score.probability if score else None,
            "selected": place == best,
            "why": SELECTION_RULE if place == best else None,
        }
        if score is None and critique is not None:
            record |= {"status": "failed", "reason": f"critic: {critique.reason}"}
        records.append(record)
    return records


def select_by_critic(
    store: Store,
    settings: Settings,
    candidates: Mapping[str, Sequence[Record]],
    components: ComponentsByRow,
    log: Log,
    not_corrected: Collection[str] = (),
    not_selectable: Collection[int] = (),
) -> list[Record]:
    """The candidates of all rows, one selected per row by the critic.

    Args:
        candidates: by row_id.
        not_corrected: rows that have the initial image alone, since nothing was to be corrected.
        not_selectable: see `select_candidate`.
    """
    every = [one for own in candidates.values() for one in own]
    critiques = iter(critique_candidates(store, settings, every, components, log))
    return [
        one | {"why": NOTHING_TO_CORRECT} if one["selected"] and row_id in not_corrected else one
        for row_id, own in candidates.items()
        for one in select_candidate(own, [next(critiques) for _ in own], not_selectable)
    ]
