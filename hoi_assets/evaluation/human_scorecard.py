"""Human ratings beside the automatic metrics: rows of the scorecard, and how far metrics agree.

A vote counts here only while its image is in force: a vote on an image that was replaced since
says nothing about today's method, and is counted in `missing`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from hoi_assets.evaluation.human_ratings import average_ratings, estimate_win_rates
from hoi_assets.evaluation.metric_agreement import METRIC_AGREEMENT, measure_metric_agreement
from hoi_assets.evaluation.scorecards import SCORECARD
from hoi_assets.statistics import SAMPLES

RATING, PAIRWISE = "rating", "pairwise"
HUMAN_RATING, HUMAN_WIN_RATE = "human_rating", "human_win_rate"
BETTER = "better"  # the question that pairwise studies ask by default
# The columns that identify a scorecard's row.
PLACE = ("suite", "method", "slice_kind", "slice", "metric")


@dataclass(frozen=True)
class HumanScores:
    """What the raters' votes give for the images that were scored.

    Attributes:
        scorecard: table of SCORECARD. Metrics are `human_rating_<question>` (mean of 1..5) and
            `human_win_rate` (Bradley-Terry, chance against the other methods; with `_<question>`
            where another than `better` was asked). n counts votes, `missing` those on images no
            longer in force.
        metric_agreement: table of METRIC_AGREEMENT, of the metrics of each suite.
    """

    scorecard: pl.DataFrame
    metric_agreement: pl.DataFrame


def score_votes(
    votes: pl.DataFrame,
    scores: pl.DataFrame,
    samples: int = SAMPLES,
    selection_rule: Mapping[str, str] | None = None,
    compute: Mapping[str, str] | None = None,
) -> HumanScores:
    """Human ratings and win rates of the images that have scores, by suite.

    Args:
        votes: `rows` of `human_ratings`; votes of a suite that `scores` does not have are left out.
        scores: of every image in force: suite, method, prompt_id, image (pixel digest), metric,
            value. Null or NaN is a score that could not be had. Higher must mean better.
        selection_rule, compute: texts for the columns of that name, by method.
    """
    cards = [pl.DataFrame(schema=SCORECARD.schema)]
    agreements = [pl.DataFrame(schema=METRIC_AGREEMENT.schema)]
    for suite in sorted(scores["suite"].unique()):
        own, scored = votes.filter(suite=suite), scores.filter(suite=suite)
        cards.append(_scorecard(own, scored, samples, selection_rule or {}, compute or {}))
        agreements.append(measure_metric_agreement(own, scored, samples))
    return HumanScores(scorecard=pl.concat(cards), metric_agreement=pl.concat(agreements))


def _scorecard(
    votes: pl.DataFrame,
    scores: pl.DataFrame,
    samples: int,
    selection_rule: Mapping[str, str],
    compute: Mapping[str, str],
) -> pl.DataFrame:
    counted = _rate_methods(_votes_in_force(votes, scores), samples)
    everything = _rate_methods(votes, samples).select(*PLACE, pl.col("n").alias("all"))
    table = everything.join(counted, on=PLACE, how="left", maintain_order="left")
    return table.with_columns(
        pl.col("n").fill_null(0),
        pl.col("prompts").fill_null(0),
        missing=pl.col("all") - pl.col("n").fill_null(0),
        percentile=pl.lit(None, dtype=pl.Float64),
        selection_rule=_text_by_method(selection_rule),
        compute=_text_by_method(compute),
    ).select(pl.col(name).cast(dtype) for name, dtype in SCORECARD.schema.items())


def _rate_methods(votes: pl.DataFrame, samples: int) -> pl.DataFrame:
    """PLACE, n, prompts, mean, ci_low, ci_high of both metrics."""
    figures = ("n", "prompts", "mean", "ci_low", "ci_high")
    ratings = average_ratings(votes.filter(mode=RATING), samples)
    wins = estimate_win_rates(votes.filter(mode=PAIRWISE), samples).rename({"win_rate": "mean"})
    named = [
        table.with_columns(
            (f"{metric}_" + pl.col("question")).str.strip_suffix(f"_{BETTER}").alias("metric")
        )
        for metric, table in ((HUMAN_RATING, ratings), (HUMAN_WIN_RATE, wins))
    ]
    return pl.concat([table.select(*PLACE, *figures) for table in named]).sort(PLACE)


def _votes_in_force(votes: pl.DataFrame, scores: pl.DataFrame) -> pl.DataFrame:
    """Votes whose images, both of them in pairwise mode, are their methods' images now."""
    shown = scores.select("method", "prompt_id", "image").unique()
    first = votes.join(
        shown,
        left_on=["method_a", "prompt_id", "image_a"],
        right_on=["method", "prompt_id", "image"],
        how="semi",
        maintain_order="left",
    )
    second = first.join(
        shown,
        left_on=["method_b", "prompt_id", "image_b"],
        right_on=["method", "prompt_id", "image"],
        how="semi",
        maintain_order="left",
    )
    return pl.concat([first.filter(pl.col("image_b").is_null()), second])


def _text_by_method(texts: Mapping[str, str]) -> pl.Expr:
    known: dict[Any, str] = dict(texts)
    return pl.col("method").replace_strict(known, default="", return_dtype=pl.String)
