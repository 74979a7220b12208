"""Promises of the exported folder: complete or absent, resumed, equal bytes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

from hoi_assets.errors import HoiError
from hoi_assets.export.folder import Draft, Plan, export, read_manifest
from hoi_assets.hashing import digest_folder

PLAN = Plan("dataset", {"hoi_dataset": "ab12"})

# Writes five files of its name, and stops for ever in the middle of the fourth.
KILLED = """
import sys, time
from pathlib import Path
from hoi_assets.export.folder import Plan, export

def slow(path):
    path.write_text("half")
    print("inside", flush=True)
    time.sleep(600)

def write(draft):
    for number in range(5):
        draft.add(f"part-{number}", slow if number == 3 else lambda path, n=number: (
            path.write_text(f"part {n}"), None)[1])

export(Path(sys.argv[1]), Plan("dataset", {"hoi_dataset": "ab12"}), write)
"""


class Writer:
    """Writes the files that `KILLED` would have written, and notes which."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def __call__(self, draft: Draft) -> None:
        for number in range(5):
            draft.add(f"part-{number}", lambda path, number=number: self._write(path, number))

    def _write(self, path: Path, number: int) -> None:
        self.made.append(f"part-{number}")
        path.write_text(f"part {number}", encoding="utf-8")


def test_killed_export_is_absent_says_it_is_unfinished_and_goes_on(tmp_path: Path) -> None:
    target = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(target)],
        env=os.environ,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline().strip() == "inside"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not target.exists()
    draft = tmp_path / "out.unfinished"
    assert "unfinished" in json.loads((draft / "UNFINISHED.json").read_text())["state"]
    writer = Writer()
    made = export(target, PLAN, writer)
    assert writer.made == ["part-3", "part-4"]
    assert made.made and not draft.exists()
    export(tmp_path / "whole", PLAN, Writer())
    assert digest_folder(target) == digest_folder(tmp_path / "whole")
    assert not (target / "UNFINISHED.json").exists()


def test_equal_export_is_found_and_not_made_again(tmp_path: Path) -> None:
    export(tmp_path / "out", PLAN, Writer())
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    again = Writer()
    assert not export(tmp_path / "out", PLAN, again).made
    assert again.made == []
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before


def test_altered_file_of_a_finished_export_is_named(tmp_path: Path) -> None:
    export(tmp_path / "out", PLAN, Writer())
    time.sleep(0.1)
    (tmp_path / "out" / "part-2").write_text("other", encoding="utf-8")
    with pytest.raises(HoiError, match="part-2 is not the file that was exported"):
        export(tmp_path / "out", PLAN, Writer())


def test_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(HoiError, match="holds something else"):
        export(tmp_path / "out", PLAN, Writer())
    (tmp_path / "new.unfinished").mkdir()
    (tmp_path / "new.unfinished" / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(HoiError, match="no unfinished export"):
        export(tmp_path / "new", PLAN, Writer())
    assert (tmp_path / "new.unfinished" / "thesis.txt").read_text() == "mine"


def test_unfinished_export_of_other_versions_begins_anew(tmp_path: Path) -> None:
    def fails(draft: Draft) -> None:
        draft.add_text("part-0", "of another version")
        raise HoiError("no more", "stop")

    with pytest.raises(HoiError, match="no more"):
        export(tmp_path / "out", Plan("dataset", {"hoi_dataset": "cd34"}), fails)
    export(tmp_path / "out", PLAN, Writer())
    assert (tmp_path / "out" / "part-0").read_text() == "part 0"
    with pytest.raises(HoiError, match="of other versions"):
        export(tmp_path / "out", Plan("dataset", {"hoi_dataset": "cd34"}), fails)


def test_two_processes_do_not_export_to_one_folder(tmp_path: Path) -> None:
    with (
        FileLock(tmp_path / ".out.lock"),
        pytest.raises(HoiError, match="another process exports"),
    ):
        export(tmp_path / "out", PLAN, Writer())


def test_manifest_names_versions_and_digests_and_no_place_or_time(tmp_path: Path) -> None:
    made = export(tmp_path / "out", PLAN, Writer())
    found = read_manifest(tmp_path / "out")
    assert found is not None
    assert found["plan"]["made_from"] == {"hoi_dataset": "ab12"}
    assert found["files"] == made.files and len(made.files) == 5
    assert str(tmp_path) not in (tmp_path / "out" / "export.json").read_text()
