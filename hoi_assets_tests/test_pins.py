"""`pins.py`: what was installed is what was tried."""

import json
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
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
    url = f"https://index.test/{name}-{version}-py3-none-any.whl"
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
    assert done.stdout.split() == [name]


def test_the_project_and_torch_may_come_from_elsewhere(tmp_path: Path) -> None:
    project = {
        "metadata": {"name": "hoi-assets", "version": "0.1"},
        "download_info": {"url": "file:///somewhere", "dir_info": {"editable": True}},
    }
    done = check(tmp_path, project, wheel("torch", "2.13.0+cpu", "1" * 64))
    assert done.returncode == 0


FILES = {
    "a-b": ("a_b-1.0-py3-none-any.whl", "a_b-1.0.tar.gz", "a_b-1.0-cp38-cp38-win32.whl"),
    "c": ("c-2.1-cp311-cp311-any.whl", "c-2.10-py3-none-any.whl"),
}


class Index(BaseHTTPRequestHandler):
    """A package index (simple API, JSON)."""

    def do_GET(self) -> None:
        names = FILES[self.path.strip("/").rpartition("/")[2]]
        files = [
            {"filename": name, "hashes": {"sha256": f"{number:064x}"}}
            for number, name in enumerate(names)
        ]
        body = json.dumps({"files": files}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)


@pytest.mark.parametrize(("version", "ends_with"), [("2.1", 0), ("3.0", 1)])
def test_lock_takes_the_files_of_the_pinned_versions_that_these_pythons_can_use(
    version: str, ends_with: int, tmp_path: Path
) -> None:
    shutil.copy(ROOT / "pins.py", tmp_path)
    (tmp_path / "constraints.txt").write_text(f"A.b==1.0\nc=={version}\n", encoding="utf-8")
    with HTTPServer(("127.0.0.1", 0), Index) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        index = f"http://127.0.0.1:{server.server_port}/simple/"
        done = subprocess.run(
            [sys.executable, "pins.py", "lock", index], cwd=tmp_path, text=True, capture_output=True
        )
        server.shutdown()
    assert done.returncode == ends_with, done.stderr
    if ends_with:
        assert f"c=={version}: the index has no file of this version" in done.stderr
        assert not (tmp_path / "hashes.txt").exists()
        return
    first, second = (tmp_path / "hashes.txt").read_text(encoding="utf-8").splitlines()
    assert first == f"A.b==1.0 {0:064x} {1:064x}"
    assert second == f"c==2.1 {0:064x}"
