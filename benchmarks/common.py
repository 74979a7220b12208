"""A home of its own for a measurement, with what it needs already made."""

import os
import subprocess
import sys
import time
from pathlib import Path

from hoi_assets.settings import ROOT, Settings, load_settings
from hoi_assets.store.versions import Store


def hoi(home: Path, *arguments: str, profile: Path | str = "tiny") -> tuple[float, str]:
    """Run the command `hoi` in a process of its own; returns (seconds, what it printed)."""
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "hoi_assets.cli.main", *arguments],
        cwd=ROOT,
        env=os.environ | {"HOI_HOME": str(home), "HOI_PROFILE": str(profile)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode:
        raise SystemExit(f"hoi {' '.join(arguments)} failed:\n{done.stdout}")
    return time.monotonic() - start, done.stdout


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
    """The tiny profile."""
    return load_settings("tiny")
