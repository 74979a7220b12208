"""The suites `hoi` and `general`: base model, DreamBooth ensemble and fine-tuned model compared."""

from collections.abc import Sequence

import polars as pl

from hoi_assets.errors import HoiError
from hoi_assets.evaluation.hand_judges import score_hands
from hoi_assets.evaluation.run_metrics import reference_scores, score_images
from hoi_assets.evaluation.suite_scores import SuiteScores, summarise_scores
from hoi_assets.progress import Log
from hoi_assets.settings import Settings
from hoi_assets.store.versions import Published, Store

SELECTION_RULE = "none: every image drawn is scored"


def score_hoi(
    store: Store,
    settings: Settings,
    images: Sequence[pl.DataFrame],
    verifier: Published | None,
    votes: pl.DataFrame,
    log: Log,
) -> SuiteScores:
    """Score the evaluation images, compare the methods, and add what the raters said of them.

    Args:
        images: `rows` of `hoi_evaluation_images`, one table per hand pose.
        verifier: the version in force; None leaves its two metrics out.
        votes: `rows` of `human_ratings`.

    Raises:
        HoiError: there is no image to score, or a model cannot be loaded.
    """
    # Versions of different editions may lack each other's columns.
    every = pl.concat(images, how="diagonal_relaxed") if images else pl.DataFrame()
    drawn = every.filter(pl.col("status") == "accepted") if images else every
    if drawn.is_empty():
        raise HoiError(
            "there is no evaluation image to score",
            "materialise hoi_evaluation_images for at least one hand pose",
        )
    scores = score_images(store, settings, drawn, verifier, log)
    scores = pl.concat([scores, score_hands(store, settings, drawn, log)])
    methods = drawn["method"].unique()
    # With classifier-free guidance each step evaluates the denoiser twice.
    per_step = 2 if settings.sampling.guidance_scale > 1 else 1
    evaluations = per_step * settings.sampling.num_inference_steps
    return summarise_scores(
        scores,
        votes,
        settings.evaluation,
        reference_scores(store, settings, verifier, log),
        selection_rules=dict.fromkeys(methods, SELECTION_RULE),
        compute=dict.fromkeys(methods, f"{evaluations} denoiser evaluations (NFE) an image"),
    )
