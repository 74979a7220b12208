"""A home of its own for a measurement, and a profile with little work in each step."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from hoi_assets.settings import PROFILES, ROOT, Settings, load_settings
from hoi_assets.store.versions import Store

# On a busy machine a second thread mostly waits for the first.
ONE_THREAD = 1
# What is measured is what runs around the models, so that few steps are enough; and gates that
# hold although nothing was learnt.
LITTLE_WORK: dict[str, Any] = {
    "threads": ONE_THREAD,
    "instance_images": {"per_category": 4},
    "lora": {
        "max_train_steps": 4,
        "train_batch_size": 2,
        "with_prior_preservation": False,
        "checkpointing_steps": 2,
    },
    "candidates": {"per_prompt": 1},
    "interacting": {"rows_per_scenario": 2},
    "redenoising": {"num_inference_steps": 4, "switch_steps": [0, 1, 2], "batch_size": 2},
    "evaluation": {"bootstrap_samples": 200, "reference_pool": None},
    "gates": {"max_loss": 100.0, "max_duplicate_share": 1.0, "min_pixel_std": 0.0},
}


def write_profile(folder: Path, changes: Mapping[str, Any]) -> Path:
    """The tiny profile with changes on top, field by field, as a file in `folder`."""
    profile = yaml.safe_load((PROFILES / "tiny.yaml").read_text(encoding="utf-8"))
    for section, fields in changes.items():
        both = isinstance(fields, dict) and isinstance(profile.get(section), dict)
        profile[section] = {**profile[section], **fields} if both else fields
    path = folder / "bench.yaml"
    path.write_text(yaml.safe_dump(profile), encoding="utf-8")
    return path


def hoi_command(*arguments: str) -> list[str]:
    """The command `hoi` for a process of its own."""
    return [sys.executable, "-m", "hoi_assets.cli.main", *arguments]


def environment(home: Path, profile: Path) -> dict[str, str]:
    """Environment of a `hoi` process with its own home."""
    return os.environ | {"HOI_HOME": str(home), "HOI_PROFILE": str(profile), "DAGSTER_HOME": ""}


def hoi(home: Path, profile: Path, *arguments: str) -> float:
    """Run the command `hoi` in a process of its own; returns its seconds."""
    start = time.monotonic()
    done = subprocess.run(
        hoi_command(*arguments),
        cwd=ROOT,
        env=environment(home, profile),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode:
        raise SystemExit(f"hoi {' '.join(arguments)} failed:\n{done.stdout}")
    return time.monotonic() - start


def report(name: str, figure: str, goal: str) -> None:
    """Print one line of `make bench`."""
    print(f"{name}: {figure} (goal {goal})", flush=True)


def versions(home: Path) -> dict[str, str]:
    """Versions in force, by asset and partition."""
    return {one.name: one.version for one in Store(home).all_current()}


def images(home: Path) -> int:
    """Number of pictures in the image store."""
    return sum(1 for _ in (home / "images").rglob("*.png"))


def tiny() -> Settings:
    """The tiny profile, in one thread."""
    return load_settings("tiny").model_copy(update={"threads": ONE_THREAD})
