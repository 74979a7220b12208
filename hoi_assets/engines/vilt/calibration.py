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
from hoi_assets.store.tables import Column, Table

# Temperatures tried; beyond them a head is practically constant or binary.
TEMPERATURE_RANGE = (0.05, 20.0)
# Fewest accepted validation pairs for a precision to count.
MIN_ACCEPTED = 10
# Thresholds tried per head.
MAX_CANDIDATES = 200
CHANCE_AUC = 0.5
# The thresholds of a head that rejects nothing.
NEVER = np.zeros(1)
PAIR = "pair"

VERIFIER_QUALITY = Table(
    "quality",
    "held-out quality of one head on one slice of the test split; null where undefined",
    (
        Column("slice_kind", pl.String, "all, category, shown_as, combination, defect or lie"),
        Column("slice", pl.String, "name of the slice"),
        Column("head", pl.String, "fidelity, alignment or pair (both)"),
        Column("n", pl.Int64, "pairs of the slice"),
        Column("positives", pl.Int64, "pairs labelled good"),
        Column("accepted", pl.Int64, "pairs the verifier accepts"),
        *(
            Column(f"{name}{end}", pl.Float64, f"{meaning}{bound}", "0..1", nullable=True)
            for name, meaning in (
                ("precision", "share of the accepted that is good"),
                ("recall", "share of the good that is accepted"),
                ("rejection", "share of the bad that is rejected"),
                ("accuracy", "share judged rightly"),
                ("auc", "area under the ROC curve"),
            )
            for end, bound in (
                ("", ""),
                ("_low", ", lower end of the 95% interval"),
                ("_high", ", upper end of the 95% interval"),
            )
        ),
        Column("ece", pl.Float64, "expected calibration error", "0..1", nullable=True),
    ),
    key=("slice_kind", "slice", "head"),
)
VERIFIER_RELIABILITY = Table(
    "reliability",
    "one bin of a head's reliability diagram on the test split",
    (
        Column("head", pl.String, "fidelity or alignment"),
        Column("bin", pl.Int64, "number of the bin, from 0; empty bins are left out"),
        Column("confidence", pl.Float64, "mean probability", "0..1"),
        Column("frequency", pl.Float64, "share labelled good", "0..1"),
        Column("frequency_low", pl.Float64, "lower end of its 95% interval (Wilson)", "0..1"),
        Column("frequency_high", pl.Float64, "upper end of its 95% interval (Wilson)", "0..1"),
        Column("n", pl.Int64, "pairs in the bin"),
    ),
    key=("head", "bin"),
)


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
    meets it, the pair of highest precision, which is logged. Thresholds lie half-way between
    neighbouring probabilities, so that rounding moves no pair across.

    A head that cannot distinguish good from bad here (the 95% interval of its AUC reaches 0.5) gets
    threshold 0, because rejecting by chance costs good pairs and gains nothing. This is logged, and
    precision then counts the other head's label only. If neither can, both thresholds are chosen.

    Args:
        p: probabilities (N, 2); labels: bool (N, 2); of a split not trained on.
    """
    informative = _informative(p, labels, log)
    good = _by_all(labels[:, np.flatnonzero(informative)])
    first, second = (
        _candidates(p[:, head]) if informative[head] else NEVER for head in range(len(HEADS))
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
    idle = [head for head, informs in zip(HEADS, informative, strict=True) if not informs]
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


def _informative(p: np.ndarray, labels: np.ndarray, log: Log) -> list[bool]:
    """Per head, whether it ranks good pairs above bad ones; a head with one class only counts.

    All True if none does: a verifier that rejects nothing is useless.
    """
    areas = [auc(labels[:, head], p[:, head]) for head in range(len(HEADS))]
    informative = [area.low is None or area.low > CHANCE_AUC for area in areas]
    if not any(informative):
        return [True] * len(HEADS)
    for head, area, informs in zip(HEADS, areas, informative, strict=True):
        if not informs:
            log(
                f"verifier: the {head} head does not distinguish good from bad on {area.n} "
                f"validation pairs (AUC {area.value:.2f}, 95% {area.low:.2f} to {area.high:.2f}); "
                "it rejects nothing"
            )
    return informative


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
    """Reliability diagram of both heads, as VERIFIER_RELIABILITY."""
    rows = [
        {"head": head, **row}
        for number, head in enumerate(HEADS)
        for row in reliability(labels[:, number], p[:, number], bins)
    ]
    return pl.DataFrame(rows, schema=VERIFIER_RELIABILITY.schema)


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

    Returns:
        Table VERIFIER_QUALITY.
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
    return pl.DataFrame(rows, schema=VERIFIER_QUALITY.schema)


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
