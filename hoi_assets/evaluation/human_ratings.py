"""What raters preferred, as numbers: mean ratings, Bradley-Terry win rates, pairs head to head."""

from typing import Any

import numpy as np
import polars as pl

from hoi_assets.evaluation.bradley_terry import bradley_terry_intervals
from hoi_assets.evaluation.columns import (
    CI_HIGH,
    CI_LOW,
    METHOD,
    MODE,
    PROMPTS,
    QUESTION,
    SLICE,
    SLICE_KIND,
    VOTED_SUITE,
)
from hoi_assets.evaluation.vote_slices import (
    TIE,
    compared_votes,
    counted_votes,
    group_rows,
    slice_votes,
)
from hoi_assets.statistics import SAMPLES, group_means, mean_interval
from hoi_assets.store.tables import Column, Table

MEAN_RATINGS = Table(
    "ratings",
    "mean rating of one method by suite, mode, question and slice",
    (
        VOTED_SUITE,
        MODE,
        QUESTION,
        METHOD,
        SLICE_KIND,
        SLICE,
        Column("n", pl.Int64, "votes"),
        Column("raters", pl.Int64, "raters who gave them"),
        PROMPTS,
        Column("mean", pl.Float64, "mean over prompts of each prompt's mean score: 1..5, or 0..1"),
        CI_LOW,
        CI_HIGH,
    ),
    key=("suite", "mode", "question", "method", "slice_kind", "slice"),
)
WIN_RATES = Table(
    "wins",
    "Bradley-Terry win rate of one method by suite, question and slice",
    (
        VOTED_SUITE,
        QUESTION,
        METHOD,
        SLICE_KIND,
        SLICE,
        Column("n", pl.Int64, "comparisons with the method"),
        Column("wins", pl.Int64, "comparisons that it won"),
        Column("ties", pl.Int64, "ties"),
        Column("losses", pl.Int64, "comparisons that it lost"),
        PROMPTS,
        Column(
            "win_rate",
            pl.Float64,
            "modelled chance against the other methods, 0..1; null where the comparisons do not "
            "connect all methods",
            nullable=True,
        ),
        CI_LOW,
        CI_HIGH,
        Column(
            "strength",
            pl.Float64,
            "log of the Bradley-Terry parameter, mean 0 over the methods; null as win_rate",
            nullable=True,
        ),
        Column("strength_low", pl.Float64, "lower end of its 95% interval", nullable=True),
        Column("strength_high", pl.Float64, "upper end of its 95% interval", nullable=True),
    ),
    key=("suite", "question", "method", "slice_kind", "slice"),
)
HEAD_TO_HEAD = Table(
    "head_to_head",
    "observed win rate of one method against another by suite, question and slice",
    (
        VOTED_SUITE,
        QUESTION,
        Column("method_a", pl.String, "the first method, in alphabetical order"),
        Column("method_b", pl.String, "the second method"),
        SLICE_KIND,
        SLICE,
        Column("n", pl.Int64, "comparisons of the two"),
        Column("wins_a", pl.Int64, "comparisons that the first method won"),
        Column("ties", pl.Int64, "ties"),
        Column("wins_b", pl.Int64, "comparisons that the second method won"),
        PROMPTS,
        Column("win_rate_a", pl.Float64, "win rate of the first method, ties half, 0..1"),
        CI_LOW,
        CI_HIGH,
    ),
    key=("suite", "question", "method_a", "method_b", "slice_kind", "slice"),
)


def average_ratings(votes: pl.DataFrame, samples: int = SAMPLES) -> pl.DataFrame:
    """Mean score of each method by suite, mode, question and slice, with a 95% bootstrap interval.

    The mean is over prompts, each the mean of its votes. Scores are 1..5 in `rating` studies,
    0 or 1 in `verify` studies.

    Returns:
        Table of MEAN_RATINGS; n counts votes.
    """
    rows: list[dict[str, Any]] = []
    scored = counted_votes(votes).filter(pl.col("score").is_not_null())
    for place, part in slice_votes(scored, "suite", "mode", "question"):
        for (method,), own in group_rows(part, "method_a"):
            means = group_means(own["score"].to_numpy(), own["prompt_id"].to_list())
            found = mean_interval(list(means.values()), samples)
            rows.append(
                place
                | {
                    "method": method,
                    "n": own.height,
                    "raters": own["rater"].n_unique(),
                    "prompts": found.n,
                    "mean": found.value,
                    "ci_low": found.low,
                    "ci_high": found.high,
                }
            )
    table = pl.DataFrame(rows, schema=MEAN_RATINGS.schema)
    return table.sort("suite", "mode", "question", "slice_kind", "slice", "method")


def estimate_win_rates(votes: pl.DataFrame, samples: int = SAMPLES, seed: int = 0) -> pl.DataFrame:
    """Bradley-Terry win rates by suite, question and slice, with 95% intervals over prompts.

    A method's win rate is its modelled chance against the others, each met equally often, so that
    it does not depend on how often which pair was compared. A tie is half a win for both.

    Returns:
        Table of WIN_RATES. strength is the log of the Bradley-Terry parameter, mean 0 over the
        methods. Rates and strengths are null where the comparisons do not connect all methods;
        intervals are null with fewer than two prompts.
    """
    rows: list[dict[str, Any]] = []
    for place, part in slice_votes(compared_votes(votes), "suite", "question"):
        methods = sorted({*part["method_a"], *part["method_b"]})
        wins = _wins_by_prompt(part, methods)
        rates, strengths = bradley_terry_intervals(wins, samples, seed)
        for number, method in enumerate(methods):
            counts = _count_outcomes(part, method)
            rows.append(
                place
                | {"method": method, **counts, "prompts": len(wins)}
                | {"win_rate": rates[number].value}
                | {"ci_low": rates[number].low, "ci_high": rates[number].high}
                | {"strength": strengths[number].value}
                | {
                    "strength_low": strengths[number].low,
                    "strength_high": strengths[number].high,
                }
            )
    table = pl.DataFrame(rows, schema=WIN_RATES.schema)
    return table.sort("suite", "question", "slice_kind", "slice", "method")


def head_to_head(votes: pl.DataFrame, samples: int = SAMPLES) -> pl.DataFrame:
    """Observed win rates of every two methods that met, ties half, no model in between.

    The rate is over prompts, each the mean of its votes.

    Returns:
        Table of HEAD_TO_HEAD, method_a before method_b in the alphabet.
    """
    rows: list[dict[str, Any]] = []
    for place, part in slice_votes(compared_votes(votes), "suite", "question"):
        for (a, b), own in group_rows(_in_alphabetical_order(part), "first", "second"):
            means = group_means(own["points"].to_numpy(), own["prompt_id"].to_list())
            found = mean_interval(list(means.values()), samples)
            points = own["points"].to_numpy()
            rows.append(
                place
                | {
                    "method_a": a,
                    "method_b": b,
                    "n": own.height,
                    "wins_a": int((points == 1).sum()),
                    "ties": int((points == 0.5).sum()),
                    "wins_b": int((points == 0).sum()),
                    "prompts": found.n,
                    "win_rate_a": found.value,
                    "ci_low": found.low,
                    "ci_high": found.high,
                }
            )
    table = pl.DataFrame(rows, schema=HEAD_TO_HEAD.schema)
    return table.sort("suite", "question", "slice_kind", "slice", "method_a", "method_b")


def _in_alphabetical_order(votes: pl.DataFrame) -> pl.DataFrame:
    """Comparisons with the methods in order of the alphabet: first, second, points of the first."""
    points = pl.col("choice").replace_strict(
        {"a": 1.0, TIE: 0.5, "b": 0.0}, return_dtype=pl.Float64
    )
    straight = pl.col("method_a") < pl.col("method_b")
    return votes.with_columns(
        pl.min_horizontal("method_a", "method_b").alias("first"),
        pl.max_horizontal("method_a", "method_b").alias("second"),
        pl.when(straight).then(points).otherwise(1 - points).alias("points"),
    )


def _count_outcomes(votes: pl.DataFrame, method: str) -> dict[str, int]:
    as_a = votes.filter(pl.col("method_a") == method)["choice"].to_list()
    as_b = votes.filter(pl.col("method_b") == method)["choice"].to_list()
    return {
        "n": len(as_a) + len(as_b),
        "wins": as_a.count("a") + as_b.count("b"),
        "ties": as_a.count(TIE) + as_b.count(TIE),
        "losses": as_a.count("b") + as_b.count("a"),
    }


def _wins_by_prompt(votes: pl.DataFrame, methods: list[str]) -> np.ndarray:
    """(prompts, k, k): how often the row's method beat the column's, a tie half on both sides."""
    prompts = {name: at for at, name in enumerate(votes["prompt_id"].unique().sort())}
    places = {name: at for at, name in enumerate(methods)}
    wins = np.zeros((len(prompts), len(methods), len(methods)))
    for vote in _in_alphabetical_order(votes).iter_rows(named=True):
        prompt = prompts[vote["prompt_id"]]
        first, second = places[vote["first"]], places[vote["second"]]
        wins[prompt, first, second] += vote["points"]
        wins[prompt, second, first] += 1 - vote["points"]
    return wins
