"""The verifier from labelled pairs in the store: trained, calibrated, measured, saved."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from hoi_assets.engines.vilt.training import LabelledPair
from hoi_assets.errors import HoiError
from hoi_assets.hashing import digest
from hoi_assets.progress import Log
from hoi_assets.settings import Settings
from hoi_assets.store.trained import trained
from hoi_assets.store.versions import Store
from hoi_assets.store.weights import model_digest

FITTING_VERSION = "2"  # part of the training's key: raise it when the same pairs give another one
TABLES = ("log", "quality", "reliability", "summary")


@dataclass(frozen=True)
class Fitted:
    """A verifier's folder (`load_verifier` opens it) and the tables that describe it.

    Attributes:
        quality, reliability: on the test split.
        summary: one row.
    """

    folder: Path
    log: pl.DataFrame
    quality: pl.DataFrame
    reliability: pl.DataFrame
    summary: pl.DataFrame


def fit_verifier(store: Store, settings: Settings, pairs: pl.DataFrame, log: Log) -> Fitted:
    """Train both heads, choose temperatures and thresholds on validation, measure on test; or find
    the verifier fitted from the same inputs.

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
    labels = pairs.select("pair_id", "pixels", "prompt", "fidelity", "alignment", "split")
    key = digest(
        {
            "fitting": FITTING_VERSION,
            "pairs": labels.sort("pair_id", "pixels").rows(),
            "config": settings.verifier.model_dump(),
            "start": model_digest(settings.models.verifier),
        }
    )

    def train(work: Path, result: Path) -> None:
        _fit(settings, splits, work, result, log)

    folder = trained(store, "verifier", key, train)
    return Fitted(
        folder / "model", **{name: pl.read_parquet(folder / f"{name}.parquet") for name in TABLES}
    )


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
            lies=tuple(row["lies"]),
            groups={
                "shown_as": row["shown_as"],
                "combination": "seen" if row["seen"] else "unseen",
            },
        )
        for row in rows.iter_rows(named=True)
    ]


def _fit(
    settings: Settings,
    splits: dict[str, list[LabelledPair]],
    work: Path,
    result: Path,
    log: Log,
) -> None:
    from hoi_assets.engines.vilt.calibration import calibrate, quality_table, reliability_table
    from hoi_assets.engines.vilt.training import labels_of, logits_of, train_verifier
    from hoi_assets.engines.vilt.verifier import load_verifier, probabilities, save_verifier

    config = settings.verifier
    start = load_verifier(settings.models.verifier, settings.device)
    done = train_verifier(start, splits["train"], splits["validation"], config, work, log)
    verifier = calibrate(done.verifier, splits["validation"], config.target_precision, log).verifier
    save_verifier(verifier, result / "model")
    test = splits["test"]
    p = probabilities(logits_of(verifier, test), verifier.temperature)
    quality = quality_table(p, test, verifier.thresholds)
    pl.DataFrame(done.log, infer_schema_length=None).write_parquet(result / "log.parquet")
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
    table = pl.DataFrame([summary], schema_overrides={"idle_head": pl.String})
    table.write_parquet(result / "summary.parquet")
