"""`hoi run` of one scenario in processes of its own: again, unchanged, and killed on its way.

With little work in each step: what is counted (pictures, equal versions) does not depend on it.
"""

import signal
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.common import (
    LITTLE_WORK,
    environment,
    hoi,
    hoi_command,
    images,
    report,
    versions,
    write_profile,
)
from hoi_assets.settings import ROOT

SCENARIO = "functional"
# Shares of an unbroken run after which the broken one is killed; it resumes each time.
KILLED_AT = (0.4, 0.3)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        _measure(Path(folder))


def _measure(folder: Path) -> None:
    profile = write_profile(folder, LITTLE_WORK)
    home, broken = folder / "home", folder / "broken"
    first = hoi(home, profile, "run", SCENARIO)
    drawn, made = images(home), versions(home)
    again = hoi(home, profile, "run", SCENARIO)
    report(
        "runs/unchanged",
        f"{images(home) - drawn} images, {len(versions(home).items() - made.items())} versions, "
        f"{again / first:.0%} of the first run's time ({again:.0f} of {first:.0f} s)",
        "0 images, 0 versions",
    )
    killed = sum(_killed_run(broken, profile, share * first) for share in KILLED_AT)
    hoi(broken, profile, "run", SCENARIO)
    found = versions(broken)
    equal = sum(found.get(name) == version for name, version in made.items())
    report(
        "runs/killed",
        f"{equal} of {len(made)} versions equal to an unbroken run's after {killed} kills",
        "all equal",
    )


def _killed_run(home: Path, profile: Path, seconds: float) -> bool:
    """Start a run and SIGKILL it; False where it ended before."""
    process = subprocess.Popen(
        hoi_command("run", SCENARIO),
        cwd=ROOT,
        env=environment(home, profile),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(seconds)
    process.kill()
    return process.wait() == -signal.SIGKILL


if __name__ == "__main__":
    main()
