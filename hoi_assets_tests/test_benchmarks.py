"""Promises of the measurements: each says what it found when it knows it, and all of them stop."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import psutil
import pytest

from benchmarks.__main__ import ALONE, INTERRUPTED, NAMES, TERMINATED
from hoi_assets.settings import ROOT

STOP_S = 20


def start(temporary: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(temporary)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize("name", NAMES + ALONE)
def test_each_measurement_can_be_started(name: str) -> None:
    assert callable(import_module(f"benchmarks.{name}").main)


@pytest.mark.slow
def test_first_line_is_there_before_the_second_measurement_ends(tmp_path: Path) -> None:
    process = start(tmp_path, "definitions", "runs")
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert process.poll() is None
        assert re.fullmatch(r"definitions/load: [\d.]+ s, heavy imports: none \(goal .*\)\n", line)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=STOP_S)


def test_unknown_measurement_is_refused_by_name(tmp_path: Path) -> None:
    process = start(tmp_path, "speed")
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "no benchmark 'speed'; name one of: definitions" in errors


def deep_family(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    """The process and what it started, once a command that its child started is there."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        family = psutil.Process(process.pid).children(recursive=True)
        if len(family) > 1:
            return family
        time.sleep(0.1)
    raise AssertionError("the measurement started nothing")


@pytest.fixture
def running(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    process = start(tmp_path, "runs")
    yield process
    if process.poll() is None:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, INTERRUPTED), (signal.SIGTERM, TERMINATED)]
)
def test_signal_stops_all_at_once_and_leaves_no_process_and_no_file(
    running: "subprocess.Popen[str]", sent: signal.Signals, code: int, tmp_path: Path
) -> None:
    family = deep_family(running)
    running.send_signal(sent)
    _, errors = running.communicate(timeout=STOP_S)
    assert running.returncode == code and "Traceback" not in errors
    assert psutil.wait_procs(family, timeout=STOP_S)[1] == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_time_limit_ends_what_is_running_and_says_so(tmp_path: Path) -> None:
    process = start(tmp_path, "--limit", "5", "runs", "definitions")
    out, _ = process.communicate(timeout=5 + 2 * STOP_S)
    assert process.returncode == 1
    lines = out.splitlines()
    assert re.fullmatch(r"runs: stopped after 5 s: .*", lines[0])
    assert len(lines) == 2 and lines[1].startswith("definitions: stopped after 0 s: ")


@pytest.mark.slow
def test_scale_measures_every_operation(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.scale", "240", f"--out={tmp_path}"],
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    found = {one["operation"]: one for one in json.loads((tmp_path / "scale.json").read_text())}
    assert set(found) == {
        *("catalogue", "queries", "scorecards", "duplicates", "packaging", "stale")
    }
    assert all(one["rows"] == 240 and one["peak_mib"] > 0 for one in found.values())
    assert (tmp_path / "scale.png").stat().st_size > 1000
