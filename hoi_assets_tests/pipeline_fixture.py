"""Both pipelines on the stored weights and pool, small enough for a test."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from hoi_assets.settings import PROFILES, ROOT, Settings, load_settings

CATEGORIES = ("power_sphere", "worn")
SCENARIO = "functional"

# Steps are few: what is tested is the way, not the quality.
SMALL: dict[str, Any] = {
    # A second thread waits for the first where tests share the cores.
    "threads": 1,
    "prompter": {"per_base_prompt": 1},
    "instance_images": {"per_category": 4},
    "lora": {
        "max_train_steps": 4,
        "train_batch_size": 2,
        "num_class_images": 4,
        "checkpointing_steps": 2,
    },
    "finetuning": {
        "max_train_steps": 4,
        "train_batch_size": 2,
        "validation_steps": 2,
        "checkpointing_steps": 2,
        "min_train_rows": 1,
    },
    "sampling": {"num_inference_steps": 3, "batch_size": 8},
    "interacting": {"rows_per_scenario": 2},
    # However good the weights, something is to be corrected.
    "critic": {"threshold": 0.99},
    "redenoising": {"num_inference_steps": 4, "switch_steps": [0, 1, 2], "batch_size": 2},
    "verifier": {
        "train_steps": 2,
        "batch_size": 8,
        "training_pairs": 32,
        "generator_view_share": 0.1,
        "target_precision": 0.05,
    },
    "evaluation": {
        "images_per_prompt": 1,
        "hoi_prompts_per_category": 2,
        "general_prompts": 2,
        "bootstrap_samples": 200,
    },
    "gates": {
        "min_auc_fidelity": 0.0,
        "min_auc_alignment": 0.0,
        "min_accepted_share": 0.0,
        "max_accepted_share": 1.0,
        "min_accepted_per_category": 0,
        "min_dataset_rows": 1,
        "max_loss": 100.0,
        "max_duplicate_share": 1.0,
        "min_pixel_std": 0.0,
        # Models of the tests read few tokens.
        "warn_cut_share": 1.0,
        "max_cut_share": 1.0,
    },
}


# Of each split; the stored pool has up to 239, and the verifier judges each several times.
TWINS = 16


def write_pool(folder: Path) -> Path:
    """The stored pool with `TWINS` twins of each split."""
    import polars as pl

    stored, pool = ROOT / "data/pool", folder / "pool"
    pool.mkdir()
    (pool / "images").symlink_to(stored / "images")
    shutil.copy(stored / "scenes.parquet", pool)
    twins = pl.read_parquet(stored / "twins.parquet")
    twins.filter(pl.int_range(pl.len()).over("split") < TWINS).write_parquet(pool / "twins.parquet")
    return pool


def write_profile(folder: Path, **changes: Any) -> Path:
    """The tiny profile with `SMALL` and `changes` on top, as a file of its own, and its pool."""
    pool = folder / "pool"
    if not pool.exists():
        write_pool(folder)
    changes = {"instance_images": {}} | changes
    changes["instance_images"] = {"pool": str(pool)} | changes["instance_images"]
    profile = yaml.safe_load((PROFILES / "tiny.yaml").read_text(encoding="utf-8"))
    for section, values in {**SMALL, **changes}.items():
        if isinstance(values, dict):
            profile[section] = {**profile.get(section, {}), **SMALL.get(section, {}), **values}
        else:
            profile[section] = values
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(profile), encoding="utf-8")
    return path


def settings_of(profile: Path) -> Settings:
    """The settings of a profile file."""
    return load_settings(str(profile))


def environment(home: Path, profile: Path) -> dict[str, str]:
    """Environment of a `hoi` process with its own home."""
    return os.environ | {"HOI_HOME": str(home), "HOI_PROFILE": str(profile), "OMP_NUM_THREADS": "1"}


def hoi(home: Path, profile: Path, *arguments: str, check: bool = True) -> str:
    """Run the command `hoi` in a process of its own and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "hoi_assets.cli.main", *arguments],
        cwd=ROOT,
        env=environment(home, profile),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=1500,
    )
    if check and done.returncode:
        raise AssertionError(
            f"hoi {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}"
        )
    return done.stdout


def materialize(home: Path, profile: Path, select: str, partition: str | None = None) -> None:
    """`dagster asset materialize` of a selection in a process of its own, as `hoi ui` would."""
    from hoi_assets.defs.dagster_home import prepare_dagster_home

    command = [sys.executable, "-m", "dagster", "asset", "materialize", "--select", select]
    command += ["-m", "hoi_assets.definitions", *(["--partition", partition] if partition else [])]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment(home, profile) | {"DAGSTER_HOME": str(prepare_dagster_home(home))},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=1500,
    )
    if done.returncode:
        raise AssertionError(f"{select} ended with {done.returncode}:\n{done.stdout}")
