"""Promises of the measurements: they run, and one line each says what was found."""

import re
import subprocess
import sys
from importlib import import_module

import pytest

from benchmarks.__main__ import NAMES
from hoi_assets.settings import ROOT


@pytest.mark.parametrize("name", NAMES)
def test_each_measurement_can_be_started(name: str) -> None:
    assert callable(import_module(f"benchmarks.{name}").main)


@pytest.mark.slow
def test_definitions_load_without_the_heavy_libraries_and_the_line_says_so() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "definitions"],
        cwd=ROOT,
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(
        r"definitions/load: [\d.]+ s, heavy imports: none \(goal .*\)\n", done.stdout
    )


def test_unknown_measurement_is_refused_by_name() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "speed"], cwd=ROOT, text=True, capture_output=True
    )
    assert done.returncode != 0
    assert "no benchmark 'speed'; name one of: definitions" in done.stderr
