"""Runs the small pipeline by `hoi run` again and again on a disk with a little more room each time.

`python -m hoi_assets_tests.publishing.full_disk_run FOLDER STEP` prints a JSON line per run. FOLDER
holds `taxonomy/` and `small.yaml`; `home` in it is on a disk of its own. STEP: bytes by which the
room grows; 0 fills nothing.
"""

import contextlib
import io
import json
import shutil
import sys
from pathlib import Path

from hoi_assets.cli.main import main
from hoi_assets.defs import project
from hoi_assets.store.versions import Store
from hoi_assets_tests.publishing.small_pipeline import small_project

MOST_RUNS = 60
BLOCK = 1 << 20


def fill(home: Path, room: int) -> None:
    """Leave so many bytes of the disk free."""
    filler = home / "filler"
    filler.unlink(missing_ok=True)
    left = shutil.disk_usage(home).free - room
    with contextlib.suppress(OSError), filler.open("wb") as file:
        for start in range(0, left, BLOCK):
            file.write(bytes(min(BLOCK, left - start)))


def versions(home: Path) -> dict[str, str]:
    """Every version in force, each checked against its name."""
    found = Store(home).all_current()
    for one in found:
        one.verify()
    return {one.name: one.version for one in found}


def run(folder: Path, step: int) -> None:
    """Run until a run has room enough, and print how each ended."""
    # The one thing that is not the command's own: which pipeline it runs.
    project.load_project = lambda: small_project(folder)  # type: ignore[misc,assignment]
    for number in range(MOST_RUNS):
        if step:
            fill(folder / "home", number * step)
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = int(main(["run", "hook", "worn"]))
        (folder / "home" / "filler").unlink(missing_ok=True)
        said = {"code": code, "said": out.getvalue() + err.getvalue()}
        print(json.dumps({**said, "versions": versions(folder / "home")}), flush=True)
        if code == 0:
            break


if __name__ == "__main__":
    run(Path(sys.argv[1]), int(sys.argv[2]))
