"""CRAFT-like rounds over the initial images: draw, ask the critic, edit the prompt, repeat."""

from collections.abc import Sequence
from dataclasses import replace

from hoi_assets.detailscribe.benchmark_images import draw_benchmark_images
from hoi_assets.detailscribe.components import Component
from hoi_assets.detailscribe.craft import Answers, Round, decide_next_round, open_questions
from hoi_assets.detailscribe.critique import Critique
from hoi_assets.detailscribe.image_rows import (
    CRAFT,
    Record,
    candidate_row,
    image_columns,
    redrawable_row,
)
from hoi_assets.detailscribe.selection import (
    ComponentsByRow,
    critique_candidates,
    select_candidate,
)
from hoi_assets.progress import Log
from hoi_assets.settings import Settings
from hoi_assets.store.versions import Store


def draw_craft_rounds(
    store: Store,
    settings: Settings,
    initial: Sequence[Record],
    components: ComponentsByRow,
    log: Log,
) -> list[Record]:
    """One candidate per round for every initial image; the initial image is round 0.

    All rows go through a round side by side, so that its images are drawn in batches.

    Args:
        initial: rows of `initial_images` that can be refined. components: by row_id.

    Returns:
        Rows of IMAGE_ROWS, method `craft`; `why` of the selected one says why the rounds ended.
    """
    first = {row["row_id"]: row for row in initial}
    candidates: dict[str, list[Record]] = {row_id: [] for row_id in first}
    critiques: dict[str, list[Critique | None]] = {row_id: [] for row_id in first}
    rounds: dict[str, list[Round]] = {row_id: [] for row_id in first}
    stops: dict[str, str] = {}
    new = [row | {"method": CRAFT, "candidate": 0} for row in initial]
    while new:
        number = new[0]["candidate"] + 1
        edited: dict[str, str] = {}
        judged = critique_candidates(store, settings, new, components, log)
        for record, critique in zip(new, judged, strict=True):
            row_id = record["row_id"]
            candidates[row_id].append(record)
            critiques[row_id].append(critique)
            answers = None if critique is None else _answers(critique, components[row_id])
            if critique is None or answers is None:
                stops[row_id] = "not_judged"
                continue
            rounds[row_id].append(Round(record["drawn_prompt"], answers))
            following = decide_next_round(
                record["prompt"],
                components[row_id],
                rounds[row_id],
                _corrections(critique),
                settings.redenoising.craft_rounds,
                settings.critic.max_words,
            )
            if following.prompt is None:
                stops[row_id] = following.stop or ""
            else:
                edited[row_id] = following.prompt
        rows = [
            replace(redrawable_row(first[row_id], settings), prompt=prompt)
            for row_id, prompt in edited.items()
        ]
        label = f"edits of round {number}"
        images = draw_benchmark_images(store, settings, rows, label, log) if rows else []
        new = [
            candidate_row(first[row_id], CRAFT, number, image_columns(known))
            for row_id, known in zip(edited, images, strict=True)
        ]
    return [
        one | ({"why": f"{one['why']}; rounds ended: {stops[row_id]}"} if one["selected"] else {})
        for row_id, own in candidates.items()
        for one in select_candidate(own, critiques[row_id])
    ]


def _answers(critique: Critique, components: Sequence[Component]) -> Answers | None:
    """The critic's answers to CRAFT's questions; None where it judged no component."""
    satisfied = {
        one.component: one.satisfied for one in critique.findings if one.component is not None
    }
    if not satisfied:
        return None
    answers: dict[int, bool] = {}
    while questions := open_questions(components, answers):
        answers |= {one.number: satisfied[one.number] for one in questions}
    return answers


def _corrections(critique: Critique) -> dict[int, str]:
    """By component number what to show instead."""
    return {
        one.component: one.correction
        for one in critique.findings
        if one.component is not None and one.correction
    }
