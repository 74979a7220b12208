"""Signals beside the verifier: what else can be asked about the hands of a candidate.

A signal is recorded for every candidate. It may reject (`gate`) only by a threshold that was
chosen on the labelled validation pairs for a stated precision; one that does not tell whole hands
from faulty ones there rejects nothing. How far it agrees with the labels is measured on the test
pairs, and published beside its values.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from hoi_assets.engines.vilt.calibration import choose_thresholds
from hoi_assets.engines.vilt.verifier import Thresholds
from hoi_assets.progress import Log
from hoi_assets.settings import SignalOptions
from hoi_assets.statistics import accuracy, as_columns, auc, precision, recall
from hoi_assets.store.tables import Column, Table

SIGNAL_VALUES = Table(
    "signals",
    "what one signal says of one candidate",
    (
        Column("image_id", pl.String, "the candidate, 16 hex digits"),
        Column("signal", pl.String, "anatomy (a vision endpoint) or landmarks (a hand model)"),
        Column(
            "value",
            pl.Float64,
            "how right the hands look, not calibrated; null where it cannot say",
            "0..1",
            nullable=True,
        ),
        Column("note", pl.String, "what else it says, e.g. the fault it names", nullable=True),
        Column("reason", pl.String, "`code: detail` where there is no value", nullable=True),
        Column("rejects", pl.Boolean, "whether it rejects the candidate"),
        Column("cost_usd", pl.Float64, "cost; null where unknown or free", "USD", nullable=True),
    ),
    key=("image_id", "signal"),
    optional=True,
)
SIGNAL_QUALITY = Table(
    "signal_quality",
    "how far one signal agrees with the fidelity labels of the test split; null where undefined",
    (
        Column("signal", pl.String, "name of the signal"),
        Column("gates", pl.Boolean, "whether it may reject: set so, and it tells good from bad"),
        Column("threshold", pl.Float64, "least value that is accepted; 0: all are", "0..1"),
        Column("target_precision", pl.Float64, "precision that the threshold aims at", "0..1"),
        Column("target_met", pl.Boolean, "whether it is met on the validation split"),
        Column("validation_images", pl.Int64, "labelled images that the threshold is chosen on"),
        Column("test_images", pl.Int64, "labelled images that it is measured on"),
        Column("missing", pl.Int64, "labelled images of which it cannot say anything"),
        *(
            Column(f"{name}{end}", pl.Float64, f"{meaning}{bound}", "0..1", nullable=True)
            for name, meaning in (
                ("auc", "area under the ROC curve"),
                ("accuracy", "share judged as the labels say"),
                ("precision", "share of the accepted that is free of defects"),
                ("recall", "share of the images free of defects that is accepted"),
            )
            for end, bound in (
                ("", ""),
                ("_low", ", lower end of the 95% interval"),
                ("_high", ", upper end of the 95% interval"),
            )
        ),
    ),
    key=("signal",),
    optional=True,
)


@dataclass(frozen=True)
class SignalValue:
    """What a signal says of one picture: a value in 0..1, or None and the reason."""

    value: float | None
    note: str | None = None
    reason: str | None = None
    cost_usd: float | None = None


@dataclass(frozen=True)
class Signal:
    """One signal.

    Attributes:
        read: its values of pictures, by digests of their pixels; known ones are not asked again.
    """

    name: str
    options: SignalOptions
    read: Callable[[Sequence[str]], Mapping[str, SignalValue]]


@dataclass(frozen=True)
class Judged:
    """Verdicts after the signals, and the tables SIGNAL_VALUES and SIGNAL_QUALITY."""

    verdicts: pl.DataFrame
    values: pl.DataFrame
    quality: pl.DataFrame


def apply_signals(
    signals: Sequence[Signal], verdicts: pl.DataFrame, labelled: pl.DataFrame, log: Log
) -> Judged:
    """Record every signal, and reject accepted candidates by those that may.

    Args:
        verdicts: table of VERDICT_ROWS.
        labelled: rows of `verifier_training_pairs`.
    """
    rows = verdicts.to_dicts()
    drawn = list(dict.fromkeys(row["pixels"] for row in rows if row["pixels"] is not None))
    values: list[dict[str, Any]] = []
    quality: list[dict[str, Any]] = []
    for signal in signals:
        measured = measure_signal(signal, labelled, log)
        quality.append(measured)
        found = signal.read(drawn)
        for row in rows:
            if row["pixels"] is None:
                continue
            said = found[row["pixels"]]
            rejects = (
                measured["gates"] and said.value is not None and said.value < measured["threshold"]
            )
            values.append(
                {
                    "image_id": row["image_id"],
                    "signal": signal.name,
                    "rejects": rejects,
                    **vars(said),
                }
            )
            if rejects and row["status"] == "accepted":
                row |= {"status": "rejected", "reason": f"low_{signal.name}"}
    return Judged(
        pl.DataFrame(rows, schema=verdicts.schema),
        SIGNAL_VALUES.frame(values),
        SIGNAL_QUALITY.frame(quality),
    )


def measure_signal(signal: Signal, labelled: pl.DataFrame, log: Log) -> dict[str, Any]:
    """A row of SIGNAL_QUALITY: threshold by the validation split, agreement on the test split."""
    validation, missing = _labelled(signal, labelled, "validation")
    test, missing_test = _labelled(signal, labelled, "test")
    thresholds = _threshold(signal, *validation, log)
    p, truth = test
    accepted = p >= thresholds.fidelity
    return {
        "signal": signal.name,
        "gates": signal.options.gate and thresholds.idle_head is None and len(validation[0]) > 0,
        "threshold": thresholds.fidelity,
        "target_precision": signal.options.target_precision,
        "target_met": bool(thresholds.target_met),
        "validation_images": len(validation[0]),
        "test_images": len(p),
        "missing": missing + missing_test,
        **as_columns("auc", auc(truth, p)),
        **as_columns("accuracy", accuracy(truth, accepted)),
        **as_columns("precision", precision(truth, accepted)),
        **as_columns("recall", recall(truth, accepted)),
    }


def describe_signals(quality: pl.DataFrame) -> str:
    """A sentence per signal: whether it gates, and how far it agrees with the labels."""
    lines = []
    for row in quality.iter_rows(named=True):
        if row["auc"] is None:
            agreement = f"its agreement with labels is not known ({row['test_images']} images)"
        else:
            agreement = (
                f"AUC {row['auc']:.2f} (95% {row['auc_low']:.2f} to {row['auc_high']:.2f}) on "
                f"{row['test_images']} labelled images"
            )
        does = "rejects below its threshold" if row["gates"] else "is recorded and rejects nothing"
        lines.append(f"{row['signal'].capitalize()} {does}: {agreement}.")
    return " ".join(lines)


def _labelled(
    signal: Signal, labelled: pl.DataFrame, split: str
) -> tuple[tuple[np.ndarray, np.ndarray], int]:
    """Values and labels (N,) each of a split's images, and how many have no value."""
    own = (
        labelled.filter(pl.col("split") == split)
        # pair_id is a hash: the choice does not depend on the order of rendering.
        .sort("pair_id")
        .unique("pixels", keep="first", maintain_order=True)
        .head(signal.options.calibration_images)
    )
    found = signal.read(own["pixels"].to_list())
    said = [found[pixels].value for pixels in own["pixels"]]
    known = [
        (value, label) for value, label in zip(said, own["fidelity"], strict=True)
        if value is not None
    ]  # fmt: skip
    values = np.array([value for value, _ in known], dtype=float)
    return (values, np.array([label for _, label in known], dtype=bool)), len(said) - len(known)


def _threshold(signal: Signal, p: np.ndarray, truth: np.ndarray, log: Log) -> Thresholds:
    """Chosen as the verifier's are, the alignment of the pairs being out of the question."""
    if not len(p):
        log(f"{signal.name}: no labelled validation image has a value; it rejects nothing")
        return Thresholds(fidelity=0.0, idle_head="fidelity", target_met=False)
    both = np.stack([p, np.ones_like(p)], axis=1)
    labels = np.stack([truth, np.ones_like(truth)], axis=1)
    chosen = choose_thresholds(
        both, labels, signal.options.target_precision, lambda line: log(f"{signal.name}: {line}")
    )
    if truth.all() or not truth.any():
        log(f"{signal.name}: the labels are all alike; it rejects nothing")
        return Thresholds(fidelity=0.0, idle_head="fidelity", target_met=False)
    return chosen
