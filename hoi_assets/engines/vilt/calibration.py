"""From logits to decisions: temperatures and thresholds on validation, quality on test."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from hoi_assets.engines.vilt.training import LabelledPair, labels_of, logits_of
from hoi_assets.engines.vilt.verifier import HEADS, Thresholds, VerifierModel, probabilities
from hoi_assets.progress import Log
from hoi_assets.statistics import (
    accuracy,
    as_columns,
    auc,
    expected_calibration_error,
    precision,
    recall,
    reliability,
    share_interval,
)

# Temperatures looked at; beyond them a head is as good as constant or as good as binary.
TEMPERATURE_RANGE = (0.05, 20.0)
# Fewest accepted validation pairs that a precision is believed of.
MIN_ACCEPTED = 10
# Thresholds tried per head.
MAX_CANDIDATES = 200
CHANCE_AUC = 0.5
# The thresholds of a head that rejects nothing.
NEVER = np.zeros(1)
PAIR = "pair"


@dataclass(frozen=True)
class Calibrated:
    """A verifier with temperatures and thresholds, and its ECE on validation before and after."""

    verifier: VerifierModel
    ece_before: dict[str, float | None]
    ece_after: dict[str, float | None]


def calibrate(
    verifier: VerifierModel,
    validation: Sequence[LabelledPair],
    target_precision: float,
    log: Log = print,
) -> Calibrated:
    """Fit one temperature per head, then choose thresholds, both on the validation split."""
    logits, labels = logits_of(verifier, validation), labels_of(validation)
    temperature = fit_temperatures(logits, labels)
    p_before, p_after = probabilities(logits), probabilities(logits, temperature)
    return Calibrated(
        replace(
            verifier,
            temperature=temperature,
            thresholds=choose_thresholds(p_after, labels, target_precision, log),
        ),
        ece_before=_ece_by_head(labels, p_before),
        ece_after=_ece_by_head(labels, p_after),
    )


def fit_temperatures(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Temperature per head that minimises the log loss (Guo et al. 2017, section 4.2).

    Args:
        logits: (N, 2); labels: bool (N, 2).

    Returns:
        Temperatures in 0.05..20; 1 for a head with one class only.
    """
    from scipy.optimize import minimize_scalar

    found = []
    for head in range(len(HEADS)):
        z, good = logits[:, head], labels[:, head].astype(bool)
        signed = np.where(good, -z, z)

        def loss(log_t: float, signed: np.ndarray = signed) -> float:
            return float(np.logaddexp(0, signed / np.exp(log_t)).mean())

        if good.all() or not good.any():
            found.append(1.0)
            continue
        bounds = tuple(np.log(TEMPERATURE_RANGE))
        found.append(float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x)))
    return found[0], found[1]


def choose_thresholds(
    p: np.ndarray, labels: np.ndarray, target_precision: float, log: Log = print
) -> Thresholds:
    """Thresholds at which accepted pairs are good, by both labels, in `target_precision` of cases.

    Of all pairs of thresholds that meet the target on at least 10 accepted pairs, the one that
    accepts most good pairs; then the one that accepts fewest bad ones; then the lowest. If none
    meets it, the one of highest precision, and that is said. Thresholds lie half-way between
    neighbouring probabilities, so that rounding moves no pair across.

    A head that does not tell good from bad here (the 95% interval of its AUC reaches 0.5) gets
    threshold 0: rejecting by chance costs good pairs and makes nothing better. That is said, and
    the precision is then that of the other head's label. If neither tells, both keep their say.

    Args:
        p: probabilities (N, 2); labels: bool (N, 2); of a split not trained on.
    """
    tells = _tells(p, labels, log)
    good = _by_all(labels[:, np.flatnonzero(tells)])
    first, second = (
        _candidates(p[:, head]) if tells[head] else NEVER for head in range(len(HEADS))
    )
    above_first = p[:, 0, None] >= first
    above_second = p[:, 1, None] >= second
    # Counts for every pair of thresholds, (len(first), len(second)).
    accepted = above_first.T.astype(float) @ above_second
    right = (above_first & good[:, None]).T.astype(float) @ above_second
    share = np.divide(right, accepted, out=np.zeros_like(right), where=accepted > 0)
    enough = accepted >= min(MIN_ACCEPTED, len(good))
    met = enough & (share >= target_precision) & (right > 0)
    if met.any():
        order = np.lexsort((-accepted[met], right[met]))
        row, column = np.argwhere(met)[order[-1]]
        row, column = _lowest(
            met & (accepted == accepted[row, column]) & (right == right[row, column])
        )
    else:
        best = share[enough].max()
        candidates = enough & (share == best)
        row, column = _lowest(candidates & (accepted == accepted[candidates].max()))
        log(
            f"verifier: precision {target_precision:.2f} is not reached on {len(good)} validation "
            f"pairs; best {best:.2f} with {int(accepted[row, column])} accepted"
        )
    idle = [head for head, told in zip(HEADS, tells, strict=True) if not told]
    return Thresholds(
        idle_head=idle[0] if idle else None,
        fidelity=float(first[row]),
        alignment=float(second[column]),
        target_precision=target_precision,
        target_met=bool(met.any()),
        precision=float(share[row, column]),
        recall=float(right[row, column] / good.sum()) if good.any() else None,
        accepted=int(accepted[row, column]),
        pairs=len(good),
    )


def _tells(p: np.ndarray, labels: np.ndarray, log: Log) -> list[bool]:
    """Per head: does it rank good pairs above bad ones? A head with one kind only may.

    All, where none does: a verifier that rejects nothing is no verifier."""
    areas = [auc(labels[:, head], p[:, head]) for head in range(len(HEADS))]
    tells = [area.low is None or area.low > CHANCE_AUC for area in areas]
    if not any(tells):
        return [True] * len(HEADS)
    for head, area, told in zip(HEADS, areas, tells, strict=True):
        if not told:
            log(
                f"verifier: the {head} head does not tell good from bad on {area.n} validation "
                f"pairs (AUC {area.value:.2f}, 95% {area.low:.2f} to {area.high:.2f}); "
                "it rejects nothing"
            )
    return tells


def _lowest(mask: np.ndarray) -> tuple[int, int]:
    """Of the pairs marked, the one with the lowest numbers: sum first, then the first's."""
    rows, columns = np.nonzero(mask)
    place = np.lexsort((rows, rows + columns))[0]
    return int(rows[place]), int(columns[place])


def _candidates(p: np.ndarray) -> np.ndarray:
    """0 and the midpoints between neighbouring distinct values, thinned to MAX_CANDIDATES."""
    values = np.unique(p)
    middles = np.concatenate([[0.0], (values[1:] + values[:-1]) / 2])
    if len(middles) <= MAX_CANDIDATES:
        return middles
    return middles[np.linspace(0, len(middles) - 1, MAX_CANDIDATES).round().astype(int)]


def accepts(p: np.ndarray, thresholds: Thresholds) -> np.ndarray:
    """Bool (N, 2): which head accepts which pair."""
    return np.asarray(p) >= np.array([thresholds.fidelity, thresholds.alignment])


def reliability_table(p: np.ndarray, labels: np.ndarray, bins: int = 10) -> pl.DataFrame:
    """Reliability diagram of both heads: head, bin, confidence, frequency, its interval, n."""
    rows = [
        {"head": head, **row}
        for number, head in enumerate(HEADS)
        for row in reliability(labels[:, number], p[:, number], bins)
    ]
    return pl.DataFrame(rows, schema=_RELIABILITY)


def evaluate(verifier: VerifierModel, test: Sequence[LabelledPair]) -> pl.DataFrame:
    """Held-out quality of a calibrated verifier: see `quality_table`."""
    p = probabilities(logits_of(verifier, test), verifier.temperature)
    return quality_table(p, test, verifier.thresholds)


def quality_table(
    p: np.ndarray, pairs: Sequence[LabelledPair], thresholds: Thresholds
) -> pl.DataFrame:
    """Quality by slice and head, with 95% intervals; None where a number has no meaning.

    Slices: `all`; each `category`; each of the pairs' `groups`; each `defect`, which holds the
    pairs with that defect and all pairs free of defects; each `lie`, alike. Heads: fidelity,
    alignment, and `pair` (both labels, both thresholds; scored by the product of the two
    probabilities).

    Columns: slice_kind, slice, head, n, positives, accepted, precision (of the accepted, good),
    recall (of the good, accepted), rejection (of the bad, rejected), accuracy, auc, each with
    _low and _high; ece.
    """
    labels, taken = labels_of(pairs), accepts(p, thresholds)
    truth = {**{h: labels[:, n] for n, h in enumerate(HEADS)}, PAIR: _by_all(labels)}
    accepted = {**{h: taken[:, n] for n, h in enumerate(HEADS)}, PAIR: _by_all(taken)}
    scores = {**{h: p[:, n] for n, h in enumerate(HEADS)}, PAIR: p.prod(axis=1)}
    rows = [
        {
            "slice_kind": kind,
            "slice": name,
            "head": head,
            **_quality(truth[head][mask], accepted[head][mask], scores[head][mask]),
            "ece": expected_calibration_error(truth[head][mask], scores[head][mask]),
        }
        for kind, name, heads, mask in _slices(pairs)
        for head in heads
    ]
    return pl.DataFrame(rows, schema=_QUALITY)


def _quality(truth: np.ndarray, accepted: np.ndarray, scores: np.ndarray) -> dict[str, Any]:
    bad = ~truth
    return {
        "n": len(truth),
        "positives": int(truth.sum()),
        "accepted": int(accepted.sum()),
        **as_columns("precision", precision(truth, accepted)),
        **as_columns("recall", recall(truth, accepted)),
        **as_columns("rejection", share_interval(int((bad & ~accepted).sum()), int(bad.sum()))),
        **as_columns("accuracy", accuracy(truth, accepted)),
        **as_columns("auc", auc(truth, scores)),
    }


Slice = tuple[str, str, tuple[str, ...], np.ndarray]


def _slices(pairs: Sequence[LabelledPair]) -> list[Slice]:
    """Slices as (kind, name, heads reported, mask)."""

    def part(kind: str, name: str, heads: tuple[str, ...], own: list[bool]) -> Slice:
        return kind, name, heads, np.array(own, dtype=bool)

    categories = sorted({pair.category for pair in pairs if pair.category})
    groups = sorted({group for pair in pairs for group in pair.groups.items()})
    defects = sorted({defect for pair in pairs for defect in pair.defects})
    lies = sorted({lie for pair in pairs for lie in pair.lies})
    return [
        part("all", "all", (*HEADS, PAIR), [True for _ in pairs]),
        *(
            part("category", name, (*HEADS, PAIR), [pair.category == name for pair in pairs])
            for name in categories
        ),
        *(
            part(kind, name, (*HEADS, PAIR), [pair.groups.get(kind) == name for pair in pairs])
            for kind, name in groups
        ),
        *(
            part("defect", name, HEADS[:1], [name in p.defects or p.fidelity for p in pairs])
            for name in defects
        ),
        *(
            part("lie", name, HEADS[1:], [name in p.lies or p.alignment for p in pairs])
            for name in lies
        ),
    ]


def _by_all(flags: np.ndarray) -> np.ndarray:
    """Rows of (N, heads) where all hold."""
    return np.logical_and.reduce(flags, axis=1)


def _ece_by_head(labels: np.ndarray, p: np.ndarray) -> dict[str, float | None]:
    return {
        head: expected_calibration_error(labels[:, number], p[:, number])
        for number, head in enumerate(HEADS)
    }


_NAMES = ("precision", "recall", "rejection", "accuracy", "auc")
_QUALITY: dict[str, Any] = {
    "slice_kind": pl.String,
    "slice": pl.String,
    "head": pl.String,
    "n": pl.Int64,
    "positives": pl.Int64,
    "accepted": pl.Int64,
    **{f"{name}{end}": pl.Float64 for name in _NAMES for end in ("", "_low", "_high")},
    "ece": pl.Float64,
}
_RELIABILITY: dict[str, Any] = {
    "head": pl.String,
    "bin": pl.Int64,
    "confidence": pl.Float64,
    "frequency": pl.Float64,
    "frequency_low": pl.Float64,
    "frequency_high": pl.Float64,
    "n": pl.Int64,
}
