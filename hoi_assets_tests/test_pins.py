"""`pins.py`: what was installed is what was tried."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hoi_assets.settings import ROOT


def pinned() -> dict[str, list[str]]:
    lines = (ROOT / "hashes.txt").read_text(encoding="utf-8").splitlines()
    return {line.split()[0]: line.split()[1:] for line in lines}


def check(folder: Path, *installed: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """Hand a report as pip writes it to `pins.py check`."""
    report = folder / "installed.json"
    report.write_text(json.dumps({"version": "1", "install": installed}), encoding="utf-8")
    return subprocess.run(
        [sys.executable, "pins.py", "check", str(report)],
        cwd=ROOT,
        text=True,
        capture_output=True,
    )


def wheel(name: str, version: str, sha256: str) -> dict[str, Any]:
    url = f"https://files.pythonhosted.org/{name}-{version}-py3-none-any.whl"
    archive = {"hash": f"sha256={sha256}", "hashes": {"sha256": sha256}}
    return {
        "metadata": {"name": name, "version": version},
        "download_info": {"url": url, "archive_info": archive},
    }


def test_every_constraint_has_hashes() -> None:
    wanted = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    found = pinned()
    assert list(found) == [line for line in wanted if "==" in line]
    assert all(len(sha) == 64 for shas in found.values() for sha in shas)
    assert all(found.values())


@pytest.mark.parametrize("name", ["Jinja2", "jinja2"])
def test_a_file_that_is_known_passes_under_either_spelling(name: str, tmp_path: Path) -> None:
    pin = next(pin for pin in pinned() if pin.lower().startswith("jinja2=="))
    done = check(tmp_path, wheel(name, pin.split("==")[1], pinned()[pin][0]))
    assert done.returncode == 0 and not done.stderr


@pytest.mark.parametrize(("name", "version"), [("six", None), ("six", "0.1"), ("strange", "1")])
def test_another_file_version_or_package_is_named(
    name: str, version: str | None, tmp_path: Path
) -> None:
    pin = next(pin for pin in pinned() if pin.startswith("six=="))
    good = wheel("six", pin.split("==")[1], pinned()[pin][0])
    bad = wheel(name, version or pin.split("==")[1], "0" * 64)
    done = check(tmp_path, good, bad)
    assert done.returncode == 1
    assert f"{name} {version or pin.split('==')[1]} from https://" in done.stderr
    assert "hashes.txt" in done.stderr and done.stderr.count("SHA-256") == 1


def test_the_project_and_torch_may_come_from_elsewhere(tmp_path: Path) -> None:
    project = {
        "metadata": {"name": "hoi-assets", "version": "0.1"},
        "download_info": {"url": "file:///somewhere", "dir_info": {"editable": True}},
    }
    done = check(tmp_path, project, wheel("torch", "2.13.0+cpu", "1" * 64))
    assert done.returncode == 0
