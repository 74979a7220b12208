"""The suite `interacting`: DetailScribe and its baselines on the InterActing benchmark."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from hoi_assets.engines.image_cache import generation_seconds
from hoi_assets.errors import HoiError
from hoi_assets.evaluation.benchmark_scores import (
    CANDIDATE,
    CANDIDATE_SCORES,
    PAIRS,
    Texts,
    average_costs,
    describe_methods,
    list_candidates,
    score_candidates,
    select_reported,
)
from hoi_assets.evaluation.run_metrics import reference_scores
from hoi_assets.evaluation.scorecards import SCORES
from hoi_assets.evaluation.suite_scores import SuiteScores, summarise_scores
from hoi_assets.evaluation.vlm_judge import (
    RatingRequest,
    build_judge,
    rate_pictures,
    ratings_table,
)
from hoi_assets.evaluation.yes_probabilities import score_by_probability_of_yes
from hoi_assets.llm.shown_image import ShownImage
from hoi_assets.progress import Log
from hoi_assets.settings import Settings
from hoi_assets.store.versions import Store


def score_interacting(
    store: Store,
    settings: Settings,
    images: Sequence[pl.DataFrame],
    questions: Texts,
    phrases: Texts,
    votes: pl.DataFrame,
    log: Log,
    topics: Mapping[str, str] | None = None,
) -> SuiteScores:
    """Score every candidate image, compare the methods, and add what the raters said of them.

    Args:
        images: `rows` of `initial_images`, `refined_images` and `baseline_images`, of whichever
            scenarios exist.
        questions, phrases: by row_id of the benchmark, the components' questions and their noun
            phrases; a row without is not scored.
        votes: `rows` of `human_ratings`.
        topics: by row_id, for a judge that is told them (`judge.topic`).

    Raises:
        HoiError: there is no image to score, or a model or the judge's endpoint cannot be used.
    """
    rows = list_candidates(images, questions, phrases) if images else []
    if not rows:
        raise HoiError(
            "there is no InterActing image to score",
            "materialise interaction_decompositions and one of initial_images, refined_images and "
            "baseline_images for at least one scenario",
        )
    candidates = score_candidates(store, settings, rows, log)
    ratings = None
    if settings.judge.endpoint is not None:
        ratings, rated = rate_candidates(store, settings, rows, topics or {}, log)
        candidates = pl.concat([candidates, rated])
    if settings.vqa_score is not None:
        by_yes = score_by_probability_of_yes(store, settings.vqa_score, rows, log)
        candidates = pl.concat([candidates, by_yes])
    selection_rules, compute = describe_methods(rows)
    suite = summarise_scores(
        select_reported(
            candidates,
            best_of_variants=settings.evaluation.best_of_variants,
            every_candidate_rated=settings.judge.rates == "all",
        ).select(list(SCORES.schema)),
        votes,
        settings.evaluation,
        # The verifier's metrics are not among this suite's.
        reference_scores(store, settings, None, log),
        selection_rules,
        compute,
        PAIRS,
    )
    seconds = generation_seconds(store, candidates["image_id"].unique())
    return replace(
        suite, candidates=candidates, ratings=ratings, costs=average_costs(candidates, seconds)
    )


def rate_candidates(
    store: Store,
    settings: Settings,
    rows: Sequence[Mapping[str, Any]],
    topics: Mapping[str, str],
    log: Log,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The endpoint's rating, 1 to 5, and its yes or no for each image that `judge.rates` names.

    Args:
        rows: of `list_candidates`.
        topics: by row_id of the benchmark; read where `judge.topic` is set.

    Returns:
        Table of JUDGE_RATINGS, with the reason where there is no rating; and table of
        CANDIDATE_SCORES, null there.
    """
    judge = settings.judge
    chosen = [row for row in rows if row["selected"] or judge.rates == "all"]
    requests = [
        RatingRequest(
            row["image_id"],
            row["prompt"],
            ShownImage.of_store(store, row["pixels"]),
            topics[row["evaluation_prompt_id"]] if judge.topic else None,
            row["scenario"] if judge.topic else None,
        )
        for row in chosen
    ]
    ratings = rate_pictures(requests, build_judge(judge), store.ledger, log)
    scores = [
        {name: row[name] for name in CANDIDATE} | {"metric": metric, "value": value}
        for row, rating in zip(chosen, ratings, strict=True)
        for metric, value in (
            ("judge_rating", None if rating.rating is None else float(rating.rating)),
            ("judge_yes", None if rating.shows is None else float(rating.shows)),
        )
    ]
    return (
        # Methods may have selected the same image.
        ratings_table(ratings).unique("row_id", maintain_order=True),
        pl.DataFrame(scores, schema=CANDIDATE_SCORES.schema),
    )
