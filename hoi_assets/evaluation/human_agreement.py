"""What people said, as numbers: means, win rates, agreement among raters and with the metrics.

Input is the table of votes (see `VOTES` in hoi_assets/rating/votes.py). Accepted votes on first
showings count; repeats only tell how far a rater agrees with themselves. The prompt is what is
resampled: votes on one prompt, by whichever rater, are not independent.
"""

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import polars as pl

from hoi_assets.statistics import (
    LEVEL,
    SAMPLES,
    Interval,
    group_means,
    mean_interval,
    share_interval,
)

ALL, CATEGORY, SCENARIO = "all", "category", "scenario"
TIE = "tie"
# Half a win to each side of every pair of methods that was compared: a method that never lost
# keeps a finite strength, as with one more vote, a tie.
PRIOR_TIES = 1.0
MAX_NEWTON_STEPS = 100
# Far from the maximum a full step can overshoot.
MAX_STEP = 2.0
STEP_TOLERANCE = 1e-10
Level = Literal["nominal", "ordinal"]
# By mode of study: votes of 1..5 have an order, choices and labels have none.
LEVELS: dict[str, Level] = {"rating": "ordinal", "pairwise": "nominal", "verify": "nominal"}

_SLICE = {"slice_kind": pl.String, "slice": pl.String}
_INTERVAL = {"ci_low": pl.Float64, "ci_high": pl.Float64}
MEANS: dict[str, Any] = {
    "suite": pl.String,
    "mode": pl.String,
    "question": pl.String,
    "method": pl.String,
    **_SLICE,
    "n": pl.Int64,
    "raters": pl.Int64,
    "prompts": pl.Int64,
    "mean": pl.Float64,
    **_INTERVAL,
}
WIN_RATES: dict[str, Any] = {
    "suite": pl.String,
    "question": pl.String,
    "method": pl.String,
    **_SLICE,
    "n": pl.Int64,
    "wins": pl.Int64,
    "ties": pl.Int64,
    "losses": pl.Int64,
    "prompts": pl.Int64,
    "win_rate": pl.Float64,
    **_INTERVAL,
    "strength": pl.Float64,
    "strength_low": pl.Float64,
    "strength_high": pl.Float64,
}
HEAD_TO_HEAD: dict[str, Any] = {
    "suite": pl.String,
    "question": pl.String,
    "method_a": pl.String,
    "method_b": pl.String,
    **_SLICE,
    "n": pl.Int64,
    "wins_a": pl.Int64,
    "ties": pl.Int64,
    "wins_b": pl.Int64,
    "prompts": pl.Int64,
    "win_rate_a": pl.Float64,
    **_INTERVAL,
}
RATER_AGREEMENT: dict[str, Any] = {
    "suite": pl.String,
    "mode": pl.String,
    "question": pl.String,
    "measure": pl.String,
    "rater": pl.String,
    "n": pl.Int64,
    "value": pl.Float64,
    **_INTERVAL,
}
METRIC_AGREEMENT: dict[str, Any] = {
    "suite": pl.String,
    "mode": pl.String,
    "question": pl.String,
    "metric": pl.String,
    "measure": pl.String,
    "n": pl.Int64,
    "prompts": pl.Int64,
    "missing": pl.Int64,
    "value": pl.Float64,
    **_INTERVAL,
}


def mean_ratings(votes: pl.DataFrame, samples: int = SAMPLES) -> pl.DataFrame:
    """Mean score of each method by suite, mode, question and slice, with a 95% bootstrap interval.

    The mean is over prompts, each the mean of its votes. Scores are 1..5 in `rating` studies,
    0 or 1 in `verify` studies.

    Returns:
        Table of MEANS; n counts votes.
    """
    rows: list[dict[str, Any]] = []
    scored = _counted(votes).filter(pl.col("score").is_not_null())
    for place, part in _slices(scored, "suite", "mode", "question"):
        for (method,), own in _groups(part, "method_a"):
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
    table = pl.DataFrame(rows, schema=MEANS)
    return table.sort("suite", "mode", "question", "slice_kind", "slice", "method")


def win_rates(votes: pl.DataFrame, samples: int = SAMPLES, seed: int = 0) -> pl.DataFrame:
    """Bradley-Terry win rates by suite, question and slice, with 95% intervals over prompts.

    A method's win rate is its modelled chance against the others, each met equally often, so that
    it does not lean on who met whom how often. A tie is half a win for both.

    Returns:
        Table of WIN_RATES. strength is the log of the Bradley-Terry parameter, mean 0 over the
        methods. Rates and strengths are null where the comparisons do not connect all methods;
        intervals are null with fewer than two prompts.
    """
    rows: list[dict[str, Any]] = []
    for place, part in _slices(_compared(votes), "suite", "question"):
        methods = sorted({*part["method_a"], *part["method_b"]})
        wins = _wins_by_prompt(part, methods)
        rates, strengths = _bradley_terry_intervals(wins, samples, seed)
        for number, method in enumerate(methods):
            counts = _counts(part, method)
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
    table = pl.DataFrame(rows, schema=WIN_RATES)
    return table.sort("suite", "question", "slice_kind", "slice", "method")


def head_to_head(votes: pl.DataFrame, samples: int = SAMPLES) -> pl.DataFrame:
    """Observed win rates of every two methods that met, ties half, no model in between.

    The rate is over prompts, each the mean of its votes.

    Returns:
        Table of HEAD_TO_HEAD, method_a before method_b in the alphabet.
    """
    rows: list[dict[str, Any]] = []
    for place, part in _slices(_compared(votes), "suite", "question"):
        for (a, b), own in _groups(_turned(part), "first", "second"):
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
    table = pl.DataFrame(rows, schema=HEAD_TO_HEAD)
    return table.sort("suite", "question", "slice_kind", "slice", "method_a", "method_b")


def bradley_terry(wins: np.ndarray, prior_ties: float = PRIOR_TIES) -> np.ndarray | None:
    """Maximum-likelihood strengths of the Bradley-Terry (1952) model.

    Args:
        wins: (k, k), how often the row's method beat the column's; a tie is 0.5 on both sides.
        prior_ties: ties added to every pair that met; 0 is plain maximum likelihood.

    Returns:
        (k,) logs of the parameters, mean 0; None where they are not determined: the pairs that met
        do not connect the methods, or, without a prior, one group of them never lost to the rest.

    >>> import numpy as np
    >>> a, b = bradley_terry(np.array([[0.0, 3.0], [1.0, 0.0]]), prior_ties=0)
    >>> round(float(np.exp(a - b)), 6)
    3.0
    """
    held = wins + _prior(wins, prior_ties)
    return _fit_bradley_terry(held[None])[0] if _connected(held) else None


def _prior(wins: np.ndarray, ties: float = PRIOR_TIES) -> np.ndarray:
    """Half a win to each side for each of `ties`, for the pairs that met."""
    return ties / 2 * ((wins + wins.T) > 0)


def _fit_bradley_terry(wins: np.ndarray) -> np.ndarray:
    """Strengths (n, k) of n tables of wins (n, k, k), each connected, all at once.

    Newton's method on the log-likelihood, which is concave; small libraries fit one table in
    milliseconds, which thousands of resamples make minutes.
    """
    methods = wins.shape[1]
    met, won = wins + wins.transpose(0, 2, 1), wins.sum(axis=2)
    strengths = np.zeros(won.shape)
    for _ in range(MAX_NEWTON_STEPS):
        chances = _chances(strengths)
        slope = won - (met * chances).sum(axis=2)
        curve = met * chances * (1 - chances)
        hessian = np.eye(methods) * curve.sum(axis=2)[:, :, None] - curve
        # Strengths are determined up to a constant: the added matrix of ones keeps their mean at 0.
        step = np.linalg.solve(hessian + 1 / methods, slope[:, :, None])[:, :, 0]
        strengths += np.clip(step, -MAX_STEP, MAX_STEP)
        if np.abs(step).max() < STEP_TOLERANCE:
            break
    return strengths - strengths.mean(axis=1, keepdims=True)


def _chances(strengths: np.ndarray) -> np.ndarray:
    """(n, k, k) modelled chance of the row's method against the column's, from (n, k)."""
    return 1 / (1 + np.exp(strengths[:, None, :] - strengths[:, :, None]))


def krippendorff_alpha(
    counts: np.ndarray, level: Level, samples: int = SAMPLES, seed: int = 0
) -> Interval:
    """Krippendorff's alpha (2011) with a 95% bootstrap interval over units.

    Args:
        counts: (units, values), how many raters gave a unit each value; values in their order.
        level: how far apart two values are: `nominal` equal or not, `ordinal` by ranks between.

    Returns:
        n is the number of units with two ratings or more, which alone count; value is None
        without any, or where all ratings are equal, so that chance cannot be told from agreement.
    """
    counts = np.asarray(counts)
    pairable = counts[counts.sum(axis=1) > 1]
    if not len(pairable):
        return Interval(None, None, None, 0)
    times, _ = _resamples(list(range(len(pairable))), samples, seed)
    alphas = [_alpha(np.repeat(pairable, own.astype(int), axis=0), level) for own in times]
    (found,) = _intervals(np.array(alphas)[:, None], len(pairable))
    return found


def rater_agreement(votes: pl.DataFrame, samples: int = SAMPLES, seed: int = 0) -> pl.DataFrame:
    """How far raters agree with each other and with themselves.

    Returns:
        Table of RATER_AGREEMENT, by suite, mode and question: measure `krippendorff_alpha` (n
        units, rater null), and `self_agreement`: the share of items shown twice that a rater
        answered alike both times (n such items, Wilson interval), for each rater and for all (rater
        null).
    """
    rows: list[dict[str, Any]] = []
    single = _votes_once(_counted(votes))
    for (suite, mode, question), part in _groups(single, "suite", "mode", "question"):
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
        rows.append(place | _measured("krippendorff_alpha", found) | {"rater": None})
    rows += _self_agreement(votes)
    table = pl.DataFrame(rows, schema=RATER_AGREEMENT)
    return table.sort("suite", "mode", "question", "measure", "rater")


def metric_agreement(
    votes: pl.DataFrame, scores: pl.DataFrame, samples: int = SAMPLES, seed: int = 0
) -> pl.DataFrame:
    """How far each automatic metric agrees with people, on the pictures that both judged.

    Args:
        votes: the table of votes.
        scores: image (as image_a and image_b), prompt_id, metric, value. A null or NaN value is
            counted in `missing`. Higher must mean better.

    Returns:
        Table of METRIC_AGREEMENT, by suite, mode and question:
        `pairwise_accuracy`: of two pictures of one prompt that people rank, how often the metric
            ranks them alike, equal metrics half; 0.5 is chance. In `pairwise` studies people rank
            by the majority of votes, else by mean score. n counts pairs; the mean is over prompts.
        `kendall_tau` (tau-b) and `spearman`: between people's mean score and the metric over all
            pictures, not in `pairwise` studies. n counts pictures.
        Intervals are 95% bootstrap intervals over prompts.
    """
    rows: list[dict[str, Any]] = []
    known = scores.with_columns(pl.col("value").cast(pl.Float64).fill_nan(None))
    known = known.group_by("image", "prompt_id", "metric").agg(pl.col("value").mean())
    single = _votes_once(_counted(votes))
    for (suite, mode, question), part in _groups(single, "suite", "mode", "question"):
        judged = _majorities(part) if mode == "pairwise" else _mean_scores(part)
        for (metric,), own in _groups(known, "metric"):
            place = {"suite": suite, "mode": mode, "question": question, "metric": metric}
            found = (
                _pairs_agree(judged, own, samples)
                if mode == "pairwise"
                else _scores_agree(judged, own, samples, seed)
            )
            rows += [place | row for row in found]
    table = pl.DataFrame(rows, schema=METRIC_AGREEMENT)
    return table.sort("suite", "mode", "question", "metric", "measure")


def _counted(votes: pl.DataFrame) -> pl.DataFrame:
    """The votes that count: accepted, and not on a repeat."""
    # In one order, so that resampling does not lean on that of the rows given.
    return votes.filter((pl.col("status") == "accepted") & ~pl.col("repeat")).sort(
        "prompt_id", "study", "line", "method_a", "method_b"
    )


def _compared(votes: pl.DataFrame) -> pl.DataFrame:
    return _counted(votes).filter(pl.col("choice").is_not_null())


def _votes_once(votes: pl.DataFrame) -> pl.DataFrame:
    """One row per vote, though equal pictures of several methods give it several rows.

    The answer, of any mode, is the text in `answer`; texts sort as scores do.
    """
    answer = pl.coalesce("choice", pl.col("score").cast(pl.String)).alias("answer")
    return votes.unique(["study", "line"], keep="first", maintain_order=True).with_columns(answer)


def _slices(votes: pl.DataFrame, *by: str) -> Iterator[tuple[dict[str, Any], pl.DataFrame]]:
    """Parts of the votes by the columns named: all, then each category and each scenario."""
    kinds = {ALL: pl.lit(ALL), CATEGORY: pl.col(CATEGORY), SCENARIO: pl.col(SCENARIO)}
    for kind, expression in kinds.items():
        named = votes.with_columns(expression.alias("slice")).filter(pl.col("slice").is_not_null())
        for key, part in _groups(named, *by, "slice"):
            yield dict(zip((*by, "slice"), key, strict=True)) | {"slice_kind": kind}, part


def _turned(votes: pl.DataFrame) -> pl.DataFrame:
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


def _counts(votes: pl.DataFrame, method: str) -> dict[str, int]:
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
    for vote in _turned(votes).iter_rows(named=True):
        prompt = prompts[vote["prompt_id"]]
        first, second = places[vote["first"]], places[vote["second"]]
        wins[prompt, first, second] += vote["points"]
        wins[prompt, second, first] += 1 - vote["points"]
    return wins


def _connected(wins: np.ndarray) -> bool:
    """Whether every method beat every other one, directly or through others."""
    from scipy.sparse.csgraph import connected_components

    return int(connected_components(wins > 0, connection="strong")[0]) == 1


def _bradley_terry_intervals(
    wins: np.ndarray, samples: int, seed: int
) -> tuple[list[Interval], list[Interval]]:
    """Win rates and strengths of the methods, from (prompts, k, k) wins."""
    prompts, methods = len(wins), wins.shape[1]
    total = wins.sum(axis=0)
    # The prior goes to pairs that met at all, so that no resample falls apart.
    prior = _prior(total)
    if not _connected(total + prior):
        nothing = [Interval(None, None, None, prompts)] * methods
        return nothing, nothing
    times, _ = _resamples(list(range(prompts)), samples, seed)
    strengths = _fit_bradley_terry(np.tensordot(times, wins, axes=1) + prior)
    others = _chances(strengths).sum(axis=2) - 0.5
    return (
        _intervals(others / (methods - 1), prompts),
        _intervals(strengths, prompts),
    )


def _alpha(counts: np.ndarray, level: Level) -> float:
    import krippendorff

    used = counts[:, counts.sum(axis=0) > 0]
    if used.shape[1] < 2:
        return float("nan")
    return float(krippendorff.alpha(value_counts=used, level_of_measurement=level))


def _self_agreement(votes: pl.DataFrame) -> Iterator[dict[str, Any]]:
    accepted = _votes_once(votes.filter(pl.col("status") == "accepted"))
    key = ["study", "rater", "item", "question"]
    twice = (
        accepted.filter(~pl.col("repeat"))
        .join(accepted.filter(pl.col("repeat")), on=key, suffix="_again")
        .with_columns((pl.col("answer") == pl.col("answer_again")).alias("alike"))
    )
    by = ("suite", "mode", "question")
    alone = [(found, part, found[3]) for found, part in _groups(twice, *by, "rater")]
    together = [(found, part, None) for found, part in _groups(twice, *by)]
    for (suite, mode, question, *_), part, rater in alone + together:
        share = share_interval(int(part["alike"].sum()), part.height)
        place = {"suite": suite, "mode": mode, "question": question, "rater": rater}
        yield place | _measured("self_agreement", share)


def _groups(table: pl.DataFrame, *by: str) -> list[tuple[tuple[Any, ...], pl.DataFrame]]:
    sorted_by = table.sort(*by, maintain_order=True)
    return list(sorted_by.group_by(*by, maintain_order=True))


def _measured(measure: str, found: Interval) -> dict[str, Any]:
    return {
        "measure": measure,
        "n": found.n,
        "value": found.value,
        "ci_low": found.low,
        "ci_high": found.high,
    }


def _majorities(votes: pl.DataFrame) -> pl.DataFrame:
    """Pairs that people rank: columns prompt_id, image_a, image_b, people (1: a won, -1: b won)."""
    points = pl.col("choice").replace_strict({"a": 1, TIE: 0, "b": -1}, return_dtype=pl.Int64)
    return (
        votes.with_columns(points.alias("points"))
        .group_by("prompt_id", "image_a", "image_b", maintain_order=True)
        .agg(pl.col("points").sum().sign().alias("people"))
        .filter(pl.col("people") != 0)
        .sort("prompt_id", "image_a", "image_b")
    )


def _mean_scores(votes: pl.DataFrame) -> pl.DataFrame:
    """Columns prompt_id, image, people (mean score)."""
    return (
        votes.group_by("prompt_id", pl.col("image_a").alias("image"), maintain_order=True)
        .agg(pl.col("score").mean().alias("people"))
        .sort("prompt_id", "image")
    )


def _pairs_agree(
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
    right = both.select(((difference.sign() * pl.col("people") + 1) / 2).alias("right"))["right"]
    yield _accuracy(right.to_numpy(), both["prompt_id"].to_list(), samples) | {
        "missing": pairs.height - both.height
    }


def _scores_agree(
    judged: pl.DataFrame, scores: pl.DataFrame, samples: int, seed: int
) -> Iterator[dict[str, Any]]:
    joined = judged.join(scores, on=["prompt_id", "image"], how="left", maintain_order="left")
    both = joined.filter(pl.col("value").is_not_null())
    missing = {"missing": joined.height - both.height}
    prompts = both["prompt_id"].to_list()
    people, metric = both["people"].to_numpy(), both["value"].to_numpy()
    right, of = _concordant(prompts, people, metric)
    yield _accuracy(right, of, samples) | missing
    resamples, at = _resamples(prompts, samples, seed)
    correlations = _rank_correlations(people, metric, resamples[:, at])
    for measure, values in correlations.items():
        (found,) = _intervals(values[:, None], resamples.shape[1])
        yield _measured(measure, found) | {"n": both.height, "prompts": found.n} | missing


def _rank_correlations(
    people: np.ndarray, metric: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Kendall's tau-b and Spearman's rho of (n,) and (n,) values, for each row of weights (b, n).

    A weight says how often a picture is in a resample. All rows at once by the signs of
    differences: sorting thousands of resamples takes minutes.

    Returns:
        (b,) each; NaN where one side is constant.
    """
    signs = [np.sign(own[:, None] - own[None, :]) for own in (people, metric)]
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
    return _measured("pairwise_accuracy", found) | {"n": len(right), "prompts": found.n}


def _concordant(
    prompts: list[str], people: np.ndarray, metric: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    """All pairs of pictures of one prompt that people rank: 1 ranked alike, 0 not, 0.5 equal."""
    right: list[float] = []
    of: list[str] = []
    for name, places in _places(prompts).items():
        first, second = np.triu_indices(len(places), k=1)
        said = np.sign(people[places[first]] - people[places[second]])
        found = np.sign(metric[places[first]] - metric[places[second]])
        own = ((said * found + 1) / 2)[said != 0]
        right += own.tolist()
        of += [name] * len(own)
    return np.array(right), of


def _places(groups: list[Any]) -> dict[Any, np.ndarray]:
    found: dict[Any, list[int]] = {}
    for place, name in enumerate(groups):
        found.setdefault(name, []).append(place)
    return {name: np.array(own) for name, own in found.items()}


def _resamples(groups: list[Any], samples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The whole and its bootstrap resamples, by whole groups.

    Args:
        groups: the group of each row.

    Returns:
        (samples + 1, k), how often each of k groups is in it, the first row all ones; and for each
        row of the data the number of its group.
    """
    names = {name: number for number, name in enumerate(dict.fromkeys(groups))}
    at = np.array([names[name] for name in groups], dtype=int)
    if not names:
        return np.ones((samples + 1, 0)), at
    share = np.full(len(names), 1 / len(names))
    times = np.random.default_rng(seed).multinomial(len(names), share, size=samples)
    return np.concatenate([np.ones((1, len(names))), times]), at


def _intervals(values: np.ndarray, n: int) -> list[Interval]:
    """Of each column: the first row, with the percentile interval of the rows below it.

    NaN is a resample without a value, which is left out. n counts what was resampled.
    """
    found = []
    for value, *drawn in values.T.tolist():
        known = [one for one in drawn if not np.isnan(one)]
        if np.isnan(value):
            found.append(Interval(None, None, None, n))
        elif n < 2 or not known:
            found.append(Interval(value, None, None, n))
        else:
            low, high = np.percentile(known, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
            found.append(Interval(value, float(low), float(high), n))
    return found
