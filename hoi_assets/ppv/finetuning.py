"""SDXL fine-tuned on the dataset of accepted pairs."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from hoi_assets.engines.sdxl.sampling import lora_digest
from hoi_assets.errors import HoiError
from hoi_assets.progress import Log
from hoi_assets.settings import Settings
from hoi_assets.store.trained import trained
from hoi_assets.store.versions import Store
from hoi_assets.store.weights import model_digest


@dataclass(frozen=True)
class Tuned:
    """A fine-tuned LoRA: its folder, the log, and one row of facts."""

    folder: Path
    log: pl.DataFrame
    summary: pl.DataFrame


def finetune(store: Store, settings: Settings, dataset: pl.DataFrame, log: Log) -> Tuned:
    """Fine-tune on the dataset's train split, stop early on its validation split.

    Args:
        dataset: rows of `hoi_dataset`.

    Raises:
        HoiError: fewer than `finetuning.min_train_rows` train rows, or no validation row.
    """
    from hoi_assets.engines.sdxl.lora import lora_key

    kept = dataset.filter(pl.col("status") == "accepted").sort("image_id")
    splits = {
        split: [
            (row["pixels"], row["prompt"])
            for row in kept.filter(pl.col("split") == split).iter_rows(named=True)
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
    base = model_digest(settings.models.base)
    key = lora_key(splits["train"], splits["validation"], config, base)

    def train(work: Path, result: Path) -> None:
        from hoi_assets.engines.device import configure_torch
        from hoi_assets.engines.sdxl.loading import load_sdxl
        from hoi_assets.engines.sdxl.lora import finetune_lora

        done = finetune_lora(
            load_sdxl(settings.models.base, configure_torch(settings)),
            [(store.images.open(pixels), text) for pixels, text in splits["train"]],
            [(store.images.open(pixels), text) for pixels, text in splits["validation"]],
            config,
            work,
            result / "lora",
            log,
        )
        pl.DataFrame(done.log, infer_schema_length=None).write_parquet(result / "log.parquet")

    folder = trained(store, "finetuned", key, train)
    training_log = pl.read_parquet(folder / "log.parquet")
    checked = training_log.filter(pl.col("validation_loss").is_not_null())
    best = checked.sort("validation_loss", "step").row(0, named=True)
    summary = {
        "lora_digest": lora_digest(folder / "lora"),
        "base_digest": base,
        "steps": int(training_log["step"].max()),  # type: ignore[arg-type]
        "best_step": best["step"],
        "train_rows": len(splits["train"]),
        "validation_rows": len(splits["validation"]),
        "first_validation_loss": checked.sort("step")["validation_loss"][0],
        "best_validation_loss": best["validation_loss"],
    }
    return Tuned(folder=folder / "lora", log=training_log, summary=pl.DataFrame([summary]))
