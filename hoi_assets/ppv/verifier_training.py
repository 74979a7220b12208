"""Verifier training: both heads from labelled pairs, then calibration and held-out quality."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from hoi_assets.engines.vilt.calibration import VERIFIER_QUALITY, VERIFIER_RELIABILITY
from hoi_assets.engines.vilt.training import LabelledPair
from hoi_assets.errors import HoiError
from hoi_assets.hashing import digest
from hoi_assets.progress import Log
from hoi_assets.settings import Settings, digested
from hoi_assets.store.tables import Column, Table
from hoi_assets.store.trained import trained
from hoi_assets.store.versions import Store
from hoi_assets.store.weights import model_digest

TRAINING_VERSION = "3"  # part of the training's key: raise it when equal pairs give other weights
VERIFIER_LOG = Table(
    "log",
    "one training step; step 0 is the model before training",
    (
        Column("step", pl.Int64, "step, from 0"),
        Column("loss", pl.Float64, "mean of both heads' losses; null at step 0", nullable=True),
        Column("loss_fidelity", pl.Float64, "cross-entropy; null at step 0", nullable=True),
        Column("loss_alignment", pl.Float64, "cross-entropy; null at step 0", nullable=True),
        Column(
            "loss_defects",
            pl.Float64,
            "of maps and kinds of defects; null where nothing is known of them",
            nullable=True,
        ),
        Column("learning_rate", pl.Float64, "of the step; null at step 0", nullable=True),
        Column("validation_loss", pl.Float64, "null where not measured", nullable=True),
        Column(
            "validation_auc_fidelity", pl.Float64, "null where not measured", "0..1", nullable=True
        ),
        Column(
            "validation_auc_alignment", pl.Float64, "null where not measured", "0..1", nullable=True
        ),
    ),
    key=("step",),
)
VERIFIER_SUMMARY = Table(
    "summary",
    "the verifier on the test split, its temperatures and thresholds; null where undefined",
    (
        Column("auc_fidelity", pl.Float64, "area under the ROC curve", "0..1", nullable=True),
        Column("auc_alignment", pl.Float64, "area under the ROC curve", "0..1", nullable=True),
        Column(
            "auc_pair", pl.Float64, "area under the ROC curve, both labels", "0..1", nullable=True
        ),
        Column("ece_fidelity", pl.Float64, "expected calibration error", "0..1", nullable=True),
        Column("ece_alignment", pl.Float64, "expected calibration error", "0..1", nullable=True),
        Column("temperature_fidelity", pl.Float64, "divides the head's logits"),
        Column("temperature_alignment", pl.Float64, "divides the head's logits"),
        Column("threshold_fidelity", pl.Float64, "least probability to accept", "0..1"),
        Column("threshold_alignment", pl.Float64, "least probability to accept", "0..1"),
        Column("target_precision", pl.Float64, "precision that thresholds aim at", "0..1"),
        Column("idle_head", pl.String, "the head that rejects nothing, if any", nullable=True),
        Column("target_met", pl.Boolean, "the target is met on the validation split"),
        Column("precision", pl.Float64, "of accepted pairs", "0..1", nullable=True),
        Column("recall", pl.Float64, "of good pairs", "0..1", nullable=True),
        Column("base_rate", pl.Float64, "share of good pairs", "0..1"),
        Column("best_step", pl.Int64, "the step whose weights these are; 0: before training"),
        Column("train_pairs", pl.Int64, "pairs trained on"),
        Column("validation_pairs", pl.Int64, "pairs for calibration and thresholds"),
        Column("test_pairs", pl.Int64, "pairs measured on"),
    ),
)
TABLES = (VERIFIER_LOG, VERIFIER_QUALITY, VERIFIER_RELIABILITY, VERIFIER_SUMMARY)


NOT_CALIBRATED = (
    "not calibrated on your pictures: the verifier learns from renders of the tiny world, and "
    "prompts use any words"
)
CALIBRATE = (
    "Label some 300 candidates (`hoi rate make first --suite labels --prompts 300`, "
    "`hoi rate links`, `hoi rate serve`), write them with `hoi rate labels first --out FOLDER`, "
    "and set verifier.labels_folder to it: it is then trained and measured on people's labels. "
    "See docs/full-size.md."
)


@dataclass(frozen=True)
class TrainedVerifier:
    """A verifier's folder (`load_verifier` opens it) and its tables, one per `TABLES`.

    Attributes:
        quality, reliability: on the test split.
        summary: one row.
    """

    folder: Path
    log: pl.DataFrame
    quality: pl.DataFrame
    reliability: pl.DataFrame
    summary: pl.DataFrame


def is_uncalibrated(settings: Settings) -> bool:
    """Whether the verifier has seen nothing like the pictures and captions that it judges."""
    return settings.prompter.vocabulary == "open" and settings.verifier.labels_folder is None


def calibration_note(settings: Settings) -> str | None:
    """That the verifier is not calibrated, and what to do; None where it is."""
    return f"{NOT_CALIBRATED}. {CALIBRATE}" if is_uncalibrated(settings) else None


def train_calibrated_verifier(
    store: Store, settings: Settings, pairs: pl.DataFrame, log: Log
) -> TrainedVerifier:
    """Train both heads, choose temperatures and thresholds on validation, measure on test.

    A verifier trained from the same inputs before is found again.

    Args:
        pairs: rows of `verifier_training_pairs`.

    Raises:
        HoiError: an empty split, or one with only good or only bad pairs.
    """
    splits = {
        split: _pairs(store, pairs.filter(pl.col("split") == split))
        for split in ("train", "validation", "test")
    }
    for split, rows in splits.items():
        if not rows:
            raise HoiError(
                f"verifier_training_pairs has no {split} pair",
                "label more pictures, or use the pool",
            )
    named = ("pair_id", "pixels", "prompt", "fidelity", "alignment", "split", "defect_map")
    labels = pairs.select(*named, pl.col("defects").list.join("|"))
    key = digest(
        {
            "fitting": TRAINING_VERSION,
            "pairs": labels.sort("pair_id", "pixels").rows(),
            "config": digested(settings.verifier),
            "start": model_digest(settings.models.verifier),
        }
    )

    def train(work: Path, result: Path) -> None:
        _train(settings, splits, work, result, log)

    folder = trained(store, "verifier", key, train)
    tables = {table.name: pl.read_parquet(folder / f"{table.name}.parquet") for table in TABLES}
    return TrainedVerifier(folder / "model", **tables)


def _pairs(store: Store, rows: pl.DataFrame) -> list[LabelledPair]:
    def opener(pixels: str) -> Callable[[], Any]:
        return lambda: store.images.open(pixels)

    return [
        LabelledPair(
            pair_id=row["pair_id"],
            open=opener(row["pixels"]),
            text=row["prompt"],
            fidelity=row["fidelity"],
            alignment=row["alignment"],
            category=row["category"],
            defects=tuple(row["defects"]),
            open_map=opener(row["defect_map"]) if row["defect_map"] else None,
            lies=tuple(row["lies"]),
            groups={
                "shown_as": row["shown_as"],
                "combination": "seen" if row["seen"] else "unseen",
            },
        )
        for row in rows.iter_rows(named=True)
    ]


def fresh_heads_note(settings: Settings) -> str | None:
    """What is said where the ViLT named by the profile comes without the two heads; else None."""
    from hoi_assets.engines.vilt.verifier import HEADS, has_heads

    if has_heads(settings.models.verifier):
        return None
    return (
        f"{settings.models.verifier.source} comes without the heads {' and '.join(HEADS)}; "
        f"they were drawn anew with seed {settings.verifier.seed}"
    )


def _train(
    settings: Settings,
    splits: dict[str, list[LabelledPair]],
    work: Path,
    result: Path,
    log: Log,
) -> None:
    from hoi_assets.engines.vilt.calibration import (
        calibrate,
        quality_table,
        reliability_table,
    )
    from hoi_assets.engines.vilt.training import labels_of, logits_of, train_verifier
    from hoi_assets.engines.vilt.verifier import load_verifier, probabilities, save_verifier

    config = settings.verifier
    start = load_verifier(settings.models.verifier, settings.device, config.seed)
    if start.fresh_heads:
        log(f"verifier training: {fresh_heads_note(settings)}")
    done = train_verifier(start, splits["train"], splits["validation"], config, work, log)
    verifier = calibrate(done.verifier, splits["validation"], config.target_precision, log).verifier
    save_verifier(verifier, result / "model")
    test = splits["test"]
    p = probabilities(logits_of(verifier, test), verifier.temperature)
    quality = quality_table(p, test, verifier.thresholds)
    VERIFIER_LOG.frame(done.log).write_parquet(result / "log.parquet")
    quality.write_parquet(result / "quality.parquet")
    reliability_table(p, labels_of(test)).write_parquet(result / "reliability.parquet")
    whole = {row["head"]: row for row in quality.filter(pl.col("slice_kind") == "all").to_dicts()}
    summary = {
        "auc_fidelity": whole["fidelity"]["auc"],
        "auc_alignment": whole["alignment"]["auc"],
        "auc_pair": whole["pair"]["auc"],
        "ece_fidelity": whole["fidelity"]["ece"],
        "ece_alignment": whole["alignment"]["ece"],
        "temperature_fidelity": verifier.temperature[0],
        "temperature_alignment": verifier.temperature[1],
        "threshold_fidelity": verifier.thresholds.fidelity,
        "threshold_alignment": verifier.thresholds.alignment,
        "target_precision": config.target_precision,
        "idle_head": verifier.thresholds.idle_head,
        "target_met": verifier.thresholds.target_met,
        "precision": whole["pair"]["precision"],
        "recall": whole["pair"]["recall"],
        "base_rate": whole["pair"]["positives"] / whole["pair"]["n"],
        "best_step": done.best_step,
        "train_pairs": len(splits["train"]),
        "validation_pairs": len(splits["validation"]),
        "test_pairs": len(test),
    }
    VERIFIER_SUMMARY.frame([summary]).write_parquet(result / "summary.parquet")
