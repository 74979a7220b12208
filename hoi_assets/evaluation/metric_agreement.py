"""How far automatic metrics agree with the raters."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl

from hoi_assets.evaluation.columns import (
    CI_HIGH,
    CI_LOW,
    METRIC,
    MODE,
    PROMPTS,
    QUESTION,
    VOTED_SUITE,
)
from hoi_assets.evaluation.vote_slices import (
    TIE,
    counted_votes,
    group_rows,
    measure_row,
    votes_once,
)
from hoi_assets.statistics import (
    SAMPLES,
    bootstrap_counts,
    group_means,
    intervals_of_resamples,
    mean_interval,
)
from hoi_assets.store.tables import Column, Table

METRIC_AGREEMENT = Table(
    "metric_agreement",
    "agreement of one automatic metric with the raters by suite, mode and question",
    (
        VOTED_SUITE,
        MODE,
        QUESTION,
        METRIC,
        Column("measure", pl.String, "pairwise_accuracy, kendall_tau or spearman"),
        Column("n", pl.Int64, "pairs or pictures that both judged"),
        PROMPTS,
        Column("missing", pl.Int64, "pairs or pictures without a score"),
        Column("value", pl.Float64, "the measure, -1..1; null where undefined", nullable=True),
        CI_LOW,
        CI_HIGH,
    ),
    key=("suite", "mode", "question", "metric", "measure"),
)


def measure_metric_agreement(
    votes: pl.DataFrame, scores: pl.DataFrame, samples: int = SAMPLES, seed: int = 0
) -> pl.DataFrame:
    """How far each automatic metric agrees with the raters, on the pictures that both judged.

    Args:
        votes: the table of votes.
        scores: image (as image_a and image_b), prompt_id, metric, value. A null or NaN value is
            counted in `missing`. Higher must mean better.

    Returns:
        Table of METRIC_AGREEMENT, by suite, mode and question:
        `pairwise_accuracy`: of two pictures of one prompt that raters rank, how often the metric
            ranks them alike, equal metrics half; 0.5 is chance. In `pairwise` studies raters rank
            by the majority of votes, else by mean score. n counts pairs; the mean is over prompts.
        `kendall_tau` (tau-b) and `spearman`: between the raters' mean score and the metric over all
            pictures, not in `pairwise` studies. n counts pictures.
        Intervals are 95% bootstrap intervals over prompts.
    """
    rows: list[dict[str, Any]] = []
    known = scores.with_columns(pl.col("value").cast(pl.Float64).fill_nan(None))
    known = known.group_by("image", "prompt_id", "metric").agg(pl.col("value").mean())
    single = votes_once(counted_votes(votes))
    for (suite, mode, question), part in group_rows(single, "suite", "mode", "question"):
        judged = _majority_votes(part) if mode == "pairwise" else _mean_scores(part)
        for (metric,), own in group_rows(known, "metric"):
            place = {"suite": suite, "mode": mode, "question": question, "metric": metric}
            found = (
                _agree_on_pairs(judged, own, samples)
                if mode == "pairwise"
                else _agree_on_scores(judged, own, samples, seed)
            )
            rows += [place | row for row in found]
    table = pl.DataFrame(rows, schema=METRIC_AGREEMENT.schema)
    return table.sort("suite", "mode", "question", "metric", "measure")


def _majority_votes(votes: pl.DataFrame) -> pl.DataFrame:
    """Pairs that raters rank: columns prompt_id, image_a, image_b, human (1: a won, -1: b won)."""
    points = pl.col("choice").replace_strict({"a": 1, TIE: 0, "b": -1}, return_dtype=pl.Int64)
    return (
        votes.with_columns(points.alias("points"))
        .group_by("prompt_id", "image_a", "image_b", maintain_order=True)
        .agg(pl.col("points").sum().sign().alias("human"))
        .filter(pl.col("human") != 0)
        .sort("prompt_id", "image_a", "image_b")
    )


def _mean_scores(votes: pl.DataFrame) -> pl.DataFrame:
    """Columns prompt_id, image, human (mean score)."""
    return (
        votes.group_by("prompt_id", pl.col("image_a").alias("image"), maintain_order=True)
        .agg(pl.col("score").mean().alias("human"))
        .sort("prompt_id", "image")
    )


def _agree_on_pairs(
    pairs: pl.DataFrame, scores: pl.DataFrame, samples: int
) -> Iterator[dict[str, Any]]:
    for side in ("a", "b"):
        own = scores.select("prompt_id", pl.col("image").alias(f"image_{side}"), "value")
        own = own.rename({"value": f"value_{side}"})
        pairs = pairs.join(
            own, on=["prompt_id", f"image_{side}"], how="left", maintain_order="left"
        )
    difference = pl.col("value_a") - pl.col("value_b")
    both = pairs.filter(difference.is_not_null())
    right = both.select(((difference.sign() * pl.col("human") + 1) / 2).alias("right"))["right"]
    yield _accuracy(right.to_numpy(), both["prompt_id"].to_list(), samples) | {
        "missing": pairs.height - both.height
    }


def _agree_on_scores(
    judged: pl.DataFrame, scores: pl.DataFrame, samples: int, seed: int
) -> Iterator[dict[str, Any]]:
    joined = judged.join(scores, on=["prompt_id", "image"], how="left", maintain_order="left")
    both = joined.filter(pl.col("value").is_not_null())
    missing = {"missing": joined.height - both.height}
    prompts = both["prompt_id"].to_list()
    human, metric = both["human"].to_numpy(), both["value"].to_numpy()
    right, of = _concordant_pairs(prompts, human, metric)
    yield _accuracy(right, of, samples) | missing
    resamples, at = bootstrap_counts(prompts, samples, seed)
    correlations = _rank_correlations(human, metric, resamples[:, at])
    for measure, values in correlations.items():
        (found,) = intervals_of_resamples(values[:, None], resamples.shape[1])
        yield measure_row(measure, found) | {"n": both.height, "prompts": found.n} | missing


def _rank_correlations(
    human: np.ndarray, metric: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Kendall's tau-b and Spearman's rho of (n,) and (n,) values, for each row of weights (b, n).

    A weight says how often a picture is in a resample. All rows at once by the signs of
    differences: sorting thousands of resamples takes minutes.

    Returns:
        (b,) each; NaN where one side is constant.
    """
    signs = [np.sign(own[:, None] - own[None, :]) for own in (human, metric)]
    # What a picture is above less what it is below: its midrank, shifted and doubled, mean 0.
    ranks = [weights @ own.T for own in signs]

    def summed(matrix: np.ndarray) -> np.ndarray:
        return np.asarray(((weights @ matrix) * weights).sum(axis=1))

    with np.errstate(invalid="ignore", divide="ignore"):
        tau = summed(signs[0] * signs[1]) / np.sqrt(
            summed(np.abs(signs[0])) * summed(np.abs(signs[1]))
        )
        rho = (weights * ranks[0] * ranks[1]).sum(axis=1) / np.sqrt(
            (weights * ranks[0] ** 2).sum(axis=1) * (weights * ranks[1] ** 2).sum(axis=1)
        )
    return {"kendall_tau": tau, "spearman": rho}


def _accuracy(right: np.ndarray, prompts: list[str], samples: int) -> dict[str, Any]:
    means = group_means(right, prompts)
    found = mean_interval(list(means.values()), samples)
    return measure_row("pairwise_accuracy", found) | {"n": len(right), "prompts": found.n}


def _concordant_pairs(
    prompts: list[str], human: np.ndarray, metric: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    """All pairs of pictures of one prompt that raters rank: 1 ranked alike, 0 not, 0.5 equal."""
    right: list[float] = []
    of: list[str] = []
    for name, places in _rows_of_groups(prompts).items():
        first, second = np.triu_indices(len(places), k=1)
        wanted = np.sign(human[places[first]] - human[places[second]])
        found = np.sign(metric[places[first]] - metric[places[second]])
        own = ((wanted * found + 1) / 2)[wanted != 0]
        right += own.tolist()
        of += [name] * len(own)
    return np.array(right), of


def _rows_of_groups(groups: list[Any]) -> dict[Any, np.ndarray]:
    found: dict[Any, list[int]] = {}
    for place, name in enumerate(groups):
        found.setdefault(name, []).append(place)
    return {name: np.array(own) for name, own in found.items()}
