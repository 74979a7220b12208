"""A run killed halfway, again and again, against an unbroken one: are the hashes the same?"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common import hoi, report, tiny, versions
from hoi_assets.settings import ROOT

KILLS_AFTER_S = (20, 40, 60)


def main() -> None:
    category = tiny().run_categories[0]
    with tempfile.TemporaryDirectory() as folder:
        unbroken, broken = Path(folder) / "unbroken", Path(folder) / "broken"
        hoi(unbroken, "run", category)
        killed = sum(_kill_after(broken, category, seconds) for seconds in KILLS_AFTER_S)
        hoi(broken, "run", category)
        wanted, found = versions(unbroken), versions(broken)
        equal = sum(found.get(name) == version for name, version in wanted.items())
        report(
            "resume/killed run",
            f"{equal} of {len(wanted)} versions equal after {killed} kills",
            "all equal",
        )


def _kill_after(home: Path, category: str, seconds: float) -> bool:
    """Start a run and SIGKILL it; False where it ended before."""
    process = subprocess.Popen(
        [sys.executable, "-m", "hoi_assets.cli.main", "run", category],
        cwd=ROOT,
        env=os.environ | {"HOI_HOME": str(home), "HOI_PROFILE": "tiny"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    time.sleep(seconds)
    if process.poll() is not None:
        return False
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return True


if __name__ == "__main__":
    main()
