"""A disk that fills in the middle of a run: the message says where, and nothing is half there."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hoi_assets.cli.exit_codes import ExitCode
from hoi_assets.settings import ROOT
from hoi_assets.store.disk import DiskFull, is_full

SIZE, STEP = 16 * 2**20, 320 * 2**10


@pytest.fixture
def disk(folder: Path) -> Iterator[Path]:
    """`folder`, in which `home` is a small disk."""
    home = folder / "home"
    home.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", str(home)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(home)], check=True)


def runs(folder: Path, step: int) -> list[dict[str, Any]]:
    environment = os.environ | {
        "HOI_HOME": str(folder / "home"),
        "HOI_PROFILE": str(folder / "small.yaml"),
        "PYTHONPATH": str(ROOT),
    }
    environment.pop("DAGSTER_HOME", None)
    done = subprocess.run(
        [sys.executable, "-m", "hoi_assets_tests.publishing.full_disk_run", str(folder), str(step)],
        env=environment,
        text=True,
        capture_output=True,
        check=False,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"code"')]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_disk_that_fills_anywhere_is_said_and_the_run_resumes_to_the_same_versions(
    disk: Path,
) -> None:
    found = runs(disk, STEP)
    whole = found[-1]
    assert whole["code"] == ExitCode.OK and len(found) > 3
    for one in found[:-1]:
        assert one["code"] in (ExitCode.PROBLEM, ExitCode.USER_ERROR), one
        assert "disk full while writing" in one["said"], one
        assert "bytes free in" in one["said"] and "Traceback" not in one["said"], one
        # What is in force was published whole, and stays.
        assert one["versions"].items() <= whole["versions"].items()
    assert not list((disk / "home" / "quarantine").glob("*/*/*"))
    for name in ("taxonomy", "small.yaml"):
        (disk / "roomy").mkdir(exist_ok=True)
        (disk / "roomy" / name).symlink_to(disk / name)
    (disk / "roomy" / "home").mkdir()
    (only,) = runs(disk / "roomy", 0)
    assert only["versions"] == whole["versions"]


def test_full_disk_is_known_by_whoever_says_it() -> None:
    for said in (
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("I/O error: No space left on device (os error 28)"),
        RuntimeError("File too large (os error 27)"),
        DiskFull(Path("/nowhere/x")),
    ):
        assert is_full(said)
    try:
        try:
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        except OSError as error:
            raise ValueError("cannot save") from error
    except ValueError as error:
        assert is_full(error)
    assert not is_full(RuntimeError("os error 280"))


def test_message_names_the_folder_and_its_room(tmp_path: Path) -> None:
    said = str(DiskFull(tmp_path / "a" / "b.parquet"))
    assert f"disk full while writing {tmp_path}/a/b.parquet: " in said
    assert f"bytes free in {tmp_path}," in said
