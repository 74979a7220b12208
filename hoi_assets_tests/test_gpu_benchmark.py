"""The command for a lent GPU, tried at a small size: every figure is there, printed and kept."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hoi_assets.settings import ROOT

pytestmark = pytest.mark.slow
NAMES = ["sampling", "training", "refinement", "eviction"]


def run(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    out = folder / "figures.json"
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--json", str(out), *arguments],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(folder)},
        text=True,
        capture_output=True,
        check=False,
    )


def left_in(folder: Path) -> list[str]:
    """Names in the folder; torch's compiler makes a cache of its own wherever TMPDIR is."""
    names = [path.name for path in folder.iterdir()]
    return [name for name in names if not name.startswith("torchinductor_")]


def test_each_figure_stands_beside_plain_diffusers_and_nothing_is_left(tmp_path: Path) -> None:
    done = run(tmp_path, "--size", "tiny")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    assert [one["name"] for one in found["figures"]] == NAMES and found["failed"] == {}
    for one in found["figures"]:
        assert one["ours"] > 0 and one["plain"] > 0
        assert one["ratio"] == pytest.approx(one["ours"] / one["plain"])
        # A CPU's peak is not measured, and the goals are for full size.
        assert one["peak_gib"] is None and one["reached"] is None
    for name in NAMES:
        assert f"\n{name}: " in done.stdout
    assert left_in(tmp_path) == ["figures.json"]


def test_time_limit_ends_it_and_keeps_what_is_known(tmp_path: Path) -> None:
    done = run(tmp_path, "--size", "tiny", "--limit", "0.5")
    assert done.returncode == 124 and "stopped after 0 s" in done.stdout
    kept = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    assert kept["stopped_after_s"] == 0.5
    assert left_in(tmp_path) == ["figures.json"]


def test_full_size_asks_for_a_gpu(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode != 0 and "--size tiny" in done.stderr
