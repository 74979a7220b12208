"""How far raters agree with each other (Krippendorff's alpha) and with themselves."""

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import polars as pl

from hoi_assets.evaluation.columns import CI_HIGH, CI_LOW, MODE, QUESTION, VOTED_SUITE
from hoi_assets.evaluation.vote_slices import counted_votes, group_rows, measure_row, votes_once
from hoi_assets.statistics import (
    SAMPLES,
    Interval,
    bootstrap_counts,
    intervals_of_resamples,
    share_interval,
)
from hoi_assets.store.tables import Column, Table

Level = Literal["nominal", "ordinal"]
# By mode of study: votes of 1..5 have an order, choices and labels have none.
LEVELS: dict[str, Level] = {"rating": "ordinal", "pairwise": "nominal", "verify": "nominal"}

RATER_AGREEMENT = Table(
    "agreement",
    "one measure of agreement by suite, mode and question",
    (
        VOTED_SUITE,
        MODE,
        QUESTION,
        Column("measure", pl.String, "krippendorff_alpha or self_agreement"),
        Column("rater", pl.String, "the rater; null where all are meant", nullable=True),
        Column("n", pl.Int64, "items with two ratings or more, or items shown twice"),
        Column("value", pl.Float64, "the measure, at most 1; null where undefined", nullable=True),
        CI_LOW,
        CI_HIGH,
    ),
    key=("suite", "mode", "question", "measure", "rater"),
)


def measure_rater_agreement(
    votes: pl.DataFrame, samples: int = SAMPLES, seed: int = 0
) -> pl.DataFrame:
    """How far raters agree with each other and with themselves.

    Returns:
        Table of RATER_AGREEMENT, by suite, mode and question: measure `krippendorff_alpha` (n
        units, rater null), and `self_agreement`: the share of items shown twice that a rater
        answered alike both times (n such items, Wilson interval), for each rater and for all (rater
        null).
    """
    rows: list[dict[str, Any]] = []
    single = votes_once(counted_votes(votes))
    for (suite, mode, question), part in group_rows(single, "suite", "mode", "question"):
        answers = sorted(part["answer"].unique())
        # A unit is an item of one study: studies may share items.
        counts = (
            part.group_by("study", "item", "answer")
            .len()
            .pivot("answer", index=["study", "item"], values="len")
            .fill_null(0)
            .sort("study", "item")
            .select(answers)
            .to_numpy()
        )
        found = krippendorff_alpha(counts, LEVELS[str(mode)], samples, seed)
        place = {"suite": suite, "mode": mode, "question": question}
        rows.append(place | measure_row("krippendorff_alpha", found) | {"rater": None})
    rows += _self_agreement(votes)
    table = pl.DataFrame(rows, schema=RATER_AGREEMENT.schema)
    return table.sort("suite", "mode", "question", "measure", "rater")


def _self_agreement(votes: pl.DataFrame) -> Iterator[dict[str, Any]]:
    accepted = votes_once(votes.filter(pl.col("status") == "accepted"))
    key = ["study", "rater", "item", "question"]
    twice = (
        accepted.filter(~pl.col("repeat"))
        .join(accepted.filter(pl.col("repeat")), on=key, suffix="_again")
        .with_columns((pl.col("answer") == pl.col("answer_again")).alias("alike"))
    )
    by = ("suite", "mode", "question")
    alone = [(found, part, found[3]) for found, part in group_rows(twice, *by, "rater")]
    together = [(found, part, None) for found, part in group_rows(twice, *by)]
    for (suite, mode, question, *_), part, rater in alone + together:
        share = share_interval(int(part["alike"].sum()), part.height)
        place = {"suite": suite, "mode": mode, "question": question, "rater": rater}
        yield place | measure_row("self_agreement", share)


def krippendorff_alpha(
    counts: np.ndarray, level: Level, samples: int = SAMPLES, seed: int = 0
) -> Interval:
    """Krippendorff's alpha (2011) with a 95% bootstrap interval over units.

    Args:
        counts: (units, values), how many raters gave a unit each value; values in their order.
        level: how far apart two values are: `nominal` equal or not, `ordinal` by ranks between.

    Returns:
        n is the number of units with two ratings or more, which alone count; value is None
        without any, or where all ratings are equal: agreement is not distinct from chance then.
    """
    counts = np.asarray(counts)
    pairable = counts[counts.sum(axis=1) > 1]
    if not len(pairable):
        return Interval(None, None, None, 0)
    times, _ = bootstrap_counts(list(range(len(pairable))), samples, seed)
    alphas = [_alpha_of(np.repeat(pairable, own.astype(int), axis=0), level) for own in times]
    (found,) = intervals_of_resamples(np.array(alphas)[:, None], len(pairable))
    return found


def _alpha_of(counts: np.ndarray, level: Level) -> float:
    import krippendorff

    used = counts[:, counts.sum(axis=0) > 0]
    if used.shape[1] < 2:
        return float("nan")
    return float(krippendorff.alpha(value_counts=used, level_of_measurement=level))
