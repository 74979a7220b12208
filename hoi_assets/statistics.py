"""Intervals, paired tests, bootstrap, calibration. Deterministic from the seed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LEVEL = 0.95
SAMPLES = 2000
PERMUTATIONS = 9999
# Resamples drawn at a time; bounds memory at BOOTSTRAP_BATCH * n numbers.
BOOTSTRAP_BATCH = 1000

Numbers = Sequence[float] | np.ndarray
Flags = Sequence[bool] | np.ndarray


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95% interval; None where there are too few values."""

    value: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Comparison:
    """Mean of a - b over pairs, its interval, and the two-sided p of "no difference"."""

    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    n: int


def mean_interval(values: Numbers, samples: int = SAMPLES, seed: int = 0) -> Interval:
    """Mean and percentile bootstrap interval (Efron 1979).

    Args:
        values: independent observations; average dependent ones first (see `group_means`).

    Returns:
        low and high are None for fewer than two values.
    """
    values = np.asarray(values, dtype=float)
    if len(values) == 0:
        return Interval(None, None, None, 0)
    mean = float(values.mean())
    if len(values) == 1:
        return Interval(mean, None, None, 1)
    low, high = _bootstrap_mean(values, samples, seed)
    return Interval(mean, low, high, len(values))


def _bootstrap_mean(values: np.ndarray, samples: int, seed: int) -> tuple[float, float]:
    from scipy.stats import bootstrap

    interval = bootstrap(
        (values,),
        np.mean,
        n_resamples=samples,
        batch=BOOTSTRAP_BATCH,
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def group_means(values: Numbers, groups: Sequence[Any]) -> dict[Any, float]:
    """Mean per group, in order of first appearance.

    Pictures of one prompt are not independent; the prompt is the unit that is resampled.
    """
    members: dict[Any, list[float]] = {}
    for value, group in zip(values, groups, strict=True):
        members.setdefault(group, []).append(float(value))
    return {group: math.fsum(own) / len(own) for group, own in members.items()}


def bootstrap_counts(groups: list[Any], samples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each group is drawn in the whole and in each bootstrap resample.

    Args:
        groups: the group of each row of the data; whole groups are resampled.

    Returns:
        (samples + 1, k) counts of k groups, the first row all ones (the whole); and for each row of
        the data the number of its group.
    """
    names = {name: number for number, name in enumerate(dict.fromkeys(groups))}
    at = np.array([names[name] for name in groups], dtype=int)
    if not names:
        return np.ones((samples + 1, 0)), at
    share = np.full(len(names), 1 / len(names))
    times = np.random.default_rng(seed).multinomial(len(names), share, size=samples)
    return np.concatenate([np.ones((1, len(names))), times]), at


def intervals_of_resamples(values: np.ndarray, n: int) -> list[Interval]:
    """Percentile intervals of statistics that were computed on every resample.

    Args:
        values: (samples + 1, k), the first row of the whole, the others of its resamples (see
            `bootstrap_counts`). NaN is a resample without a value, which is left out.
        n: how many groups were resampled; an interval needs two.

    Returns:
        One per column.
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


def paired_difference(
    a: Numbers,
    b: Numbers,
    samples: int = SAMPLES,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> Comparison:
    """Compare two methods on the same units: mean of a - b, bootstrap interval, sign-flip test.

    The test is exact where 2**n does not exceed `permutations`, else it draws that many. With few
    pairs p cannot be small: at least 2 / 2**n.
    """
    from scipy.stats import permutation_test

    first, second = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if first.shape != second.shape:
        raise ValueError(f"{len(first)} values against {len(second)}: not pairs")
    if len(first) == 0:
        return Comparison(None, None, None, None, 0)
    difference = first - second
    mean = float(difference.mean())
    if len(first) == 1:
        return Comparison(mean, None, None, None, 1)
    low, high = _bootstrap_mean(difference, samples, seed)
    test = permutation_test(
        (first, second),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=permutations,
        batch=BOOTSTRAP_BATCH,
        rng=np.random.default_rng(seed),
    )
    return Comparison(mean, low, high, float(test.pvalue), len(first))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's (1979) step-down correction: p to compare with the level as if it were one test.

    None is kept and not counted.

    >>> holm([0.01, 0.04, None])
    [0.02, 0.04, None]
    """
    known = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, place) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * p))
        corrected[place] = highest
    return corrected


def share_interval(successes: int, n: int) -> Interval:
    """A share with its Wilson (1927) score interval."""
    from scipy.stats import binomtest

    if n == 0:
        return Interval(None, None, None, 0)
    interval = binomtest(successes, n).proportion_ci(LEVEL, method="wilson")
    return Interval(successes / n, float(interval.low), float(interval.high), n)


def precision(truth: Flags, accepted: Flags) -> Interval:
    """Share of true ones among the accepted, Wilson interval; None when nothing is accepted."""
    true, taken = np.asarray(truth, dtype=bool), np.asarray(accepted, dtype=bool)
    return share_interval(int((true & taken).sum()), int(taken.sum()))


def recall(truth: Flags, accepted: Flags) -> Interval:
    """Share of accepted ones among the true, Wilson interval; None when nothing is true."""
    true, taken = np.asarray(truth, dtype=bool), np.asarray(accepted, dtype=bool)
    return share_interval(int((true & taken).sum()), int(true.sum()))


def accuracy(truth: Flags, accepted: Flags) -> Interval:
    """Share judged rightly, Wilson interval."""
    right = np.asarray(truth, dtype=bool) == np.asarray(accepted, dtype=bool)
    return share_interval(int(right.sum()), len(right))


def auc(truth: Flags, scores: Numbers) -> Interval:
    """Area under the ROC curve: the chance that a true one scores above a false one, ties half.

    The interval is the score interval of Newcombe (2006, method 5): all areas from which the
    observed one is at most 1.96 Hanley-McNeil standard errors away. It has width at area 1 too.

    Returns:
        n is the number of observations; all None when a class is missing.
    """
    from scipy.stats import rankdata

    true, scores = np.asarray(truth, dtype=bool), np.asarray(scores, dtype=float)
    positives, negatives = int(true.sum()), int((~true).sum())
    if not positives or not negatives:
        return Interval(None, None, None, len(true))
    ranks = float(rankdata(scores)[true].sum())
    area = (ranks - positives * (positives + 1) / 2) / (positives * negatives)
    low, high = _newcombe(area, positives, negatives)
    return Interval(area, low, high, len(true))


def _newcombe(area: float, positives: int, negatives: int) -> tuple[float, float]:
    from scipy.optimize import brentq
    from scipy.stats import norm

    z = norm.ppf((1 + LEVEL) / 2)
    spread = (positives + negatives) / 2 - 1

    def error(theta: float) -> float:
        factor = 1 + spread * (1 - theta) / (2 - theta) + spread * theta / (1 + theta)
        return z * math.sqrt(theta * (1 - theta) * factor / (positives * negatives))

    # error(0) = error(1) = 0 would be taken for roots: stay off the ends.
    edge = 1e-12
    low = 0.0 if area <= edge else brentq(lambda t: t + error(t) - area, 0.0, min(area, 1 - edge))
    high = 1.0 if area >= 1 - edge else brentq(lambda t: t - error(t) - area, max(area, edge), 1.0)
    return float(low), float(high)


def reliability(truth: Flags, p: Numbers, bins: int = 10) -> list[dict[str, Any]]:
    """Rows of a reliability diagram: equal bins of probability, empty ones left out.

    Returns:
        Rows of bin (number), confidence (mean p), frequency (share true), its Wilson
        frequency_low and frequency_high, and n.
    """
    true, p = np.asarray(truth, dtype=bool), np.asarray(p, dtype=float)
    numbers = np.minimum((p * bins).astype(int), bins - 1)
    rows = []
    for number in range(bins):
        own = numbers == number
        if own.any():
            share = share_interval(int(true[own].sum()), int(own.sum()))
            rows.append(
                {
                    "bin": number,
                    "confidence": float(p[own].mean()),
                    "frequency": share.value,
                    "frequency_low": share.low,
                    "frequency_high": share.high,
                    "n": int(own.sum()),
                }
            )
    return rows


def expected_calibration_error(truth: Flags, p: Numbers, bins: int = 10) -> float | None:
    """ECE (Guo et al. 2017, eq. 3): |frequency - confidence| over bins, weighted by n; 0..1."""
    rows = reliability(truth, p, bins)
    total = sum(row["n"] for row in rows)
    if not total:
        return None
    return float(sum(r["n"] * abs(r["frequency"] - r["confidence"]) for r in rows) / total)


def percentile_rank(value: float | None, reference: Numbers) -> float | None:
    """Percentile 0..100 of `value` among `reference` scores, ties half; None without them."""
    from scipy.stats import percentileofscore

    if value is None or not len(reference):
        return None
    return float(percentileofscore(reference, value, kind="mean"))


def as_columns(name: str, interval: Interval) -> Mapping[str, float | None]:
    """An interval as table columns `name`, `name_low`, `name_high`."""
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
