"""SDXL fine-tuned on the dataset of accepted pairs."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from hoi_assets.engines.sdxl.sampling import lora_digest
from hoi_assets.errors import HoiError
from hoi_assets.ppv.cut_captions import find_cut_captions
from hoi_assets.ppv.validation_images import (
    ValidationImage,
    draw_validation_images,
    keep_snapshots,
)
from hoi_assets.progress import Log
from hoi_assets.settings import Settings
from hoi_assets.store.tables import Column, Table
from hoi_assets.store.trained import TRACKED, trained
from hoi_assets.store.versions import Store
from hoi_assets.store.weights import model_digest

FINETUNING_LOG = Table(
    "log",
    "one training step; step 0 is the base model",
    (
        Column("step", pl.Int64, "step, from 0"),
        Column("loss", pl.Float64, "training loss; null at step 0", nullable=True),
        Column("validation_loss", pl.Float64, "null where it was not measured", nullable=True),
        Column("learning_rate", pl.Float64, "of the step; null at step 0", nullable=True),
    ),
    key=("step",),
)
FINETUNING_SUMMARY = Table(
    "summary",
    "the fine-tuned LoRA",
    (
        Column("lora_digest", pl.String, "hash of the LoRA file"),
        Column("base_digest", pl.String, "hash of the base model"),
        Column("steps", pl.Int64, "steps until early stopping or the last one"),
        Column("best_step", pl.Int64, "the step whose weights these are; 0 is the base model"),
        Column("train_rows", pl.Int64, "pairs trained on"),
        Column("validation_rows", pl.Int64, "pairs that the validation loss is measured on"),
        Column("first_validation_loss", pl.Float64, "of the base model"),
        Column("best_validation_loss", pl.Float64, "of the best step"),
    ),
)


@dataclass(frozen=True)
class FinetunedLora:
    """A fine-tuned LoRA.

    Attributes:
        folder: in diffusers' layout.
        log: table `FINETUNING_LOG`.
        summary: table `FINETUNING_SUMMARY`, one row.
        cut_captions: table `CUT_CAPTIONS`; usually empty.
        validation_images: of every snapshot; none without `finetuning.validation_prompt`.
    """

    folder: Path
    log: pl.DataFrame
    summary: pl.DataFrame
    cut_captions: pl.DataFrame
    validation_images: list[ValidationImage]


def finetune(store: Store, settings: Settings, dataset: pl.DataFrame, log: Log) -> FinetunedLora:
    """Fine-tune on the dataset's train split with early stopping on its validation split.

    Args:
        dataset: rows of `hoi_dataset`.

    Raises:
        HoiError: fewer than `finetuning.min_train_rows` train rows, or no validation row.
    """
    from hoi_assets.engines.sdxl.lora import lora_key

    accepted = dataset.filter(pl.col("status") == "accepted").sort("image_id")
    splits = {
        split: [
            (row["pixels"], row["prompt"])
            for row in accepted.filter(pl.col("split") == split).iter_rows(named=True)
        ]
        for split in ("train", "validation")
    }
    config = settings.finetuning
    if len(splits["train"]) < config.min_train_rows or not splits["validation"]:
        raise HoiError(
            f"hoi_dataset has {len(splits['train'])} train and {len(splits['validation'])} "
            f"validation rows; fine-tuning needs {config.min_train_rows} and 1",
            "propose more candidates (candidates.accepted_goal), materialise more categories, or "
            "lower finetuning.min_train_rows in the profile",
        )
    texts = [text for pairs in splits.values() for _, text in pairs]
    cut = find_cut_captions(store, settings, texts, "captions of hoi_dataset", log)
    base = model_digest(settings.models.base)
    key = lora_key(splits["train"], splits["validation"], config, base, settings.models.base.dtype)

    def train(work: Path, result: Path) -> None:
        from hoi_assets.engines.device import configure_torch
        from hoi_assets.engines.sdxl.examples import StoredPairs
        from hoi_assets.engines.sdxl.loading import load_sdxl
        from hoi_assets.engines.sdxl.lora import finetune_lora

        done = finetune_lora(
            load_sdxl(settings.models.base, configure_torch(settings)),
            StoredPairs(store.images, splits["train"]),
            StoredPairs(store.images, splits["validation"]),
            config,
            work,
            result / "lora",
            log,
            store.home / TRACKED / f"finetuned-{key[:8]}",
        )
        FINETUNING_LOG.frame(done.log).write_parquet(result / "log.parquet")
        keep_snapshots(done.snapshots, result / "snapshots")

    folder = trained(store, "finetuned", key, train)
    training_log = pl.read_parquet(folder / "log.parquet")
    measured = training_log.filter(pl.col("validation_loss").is_not_null())
    best = measured.sort("validation_loss", "step").row(0, named=True)
    validation = []
    if config.validation_prompt:
        validation = draw_validation_images(
            store, settings, config, config.validation_prompt, folder / "snapshots", log
        )
    summary = {
        "lora_digest": lora_digest(folder / "lora"),
        "base_digest": base,
        "steps": int(training_log["step"].max()),  # type: ignore[arg-type]
        "best_step": best["step"],
        "train_rows": len(splits["train"]),
        "validation_rows": len(splits["validation"]),
        "first_validation_loss": measured.sort("step")["validation_loss"][0],
        "best_validation_loss": best["validation_loss"],
    }
    return FinetunedLora(
        folder=folder / "lora",
        log=training_log,
        summary=FINETUNING_SUMMARY.frame([summary]),
        cut_captions=cut,
        validation_images=validation,
    )
