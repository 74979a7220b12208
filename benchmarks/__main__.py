"""`python -m benchmarks [name ...]`: run the measurements; each prints its lines as it finds them.

Every measurement is a process group of its own. Ctrl-C, SIGTERM and the time limit end the whole
group, whatever it is doing, and remove its temporary files.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType

from hoi_assets.settings import ROOT

NAMES = (
    "definitions",
    "examiner",
    "scenes",
    "refine",
    "image_writing",
    "runs",
    "orchestration",
)
# Takes minutes by itself, and needs Ray: only where it is named.
ALONE = ("workers",)
LIMIT_S = 600.0
# Of the time left, so that the slow ones leave something to those after them.
FAIR_SHARES = 2.0
INTERRUPTED = 130
TERMINATED = 128 + signal.SIGTERM


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(NAMES + ALONE)}")
    parser.add_argument("--limit", type=float, default=LIMIT_S, help="seconds for all of them")
    arguments = parser.parse_args()
    for name in arguments.names:
        if name not in NAMES + ALONE:
            raise SystemExit(f"no benchmark {name!r}; name one of: {', '.join(NAMES + ALONE)}")
    signal.signal(signal.SIGTERM, _terminate)
    end = time.monotonic() + arguments.limit
    names = arguments.names or NAMES
    failed = False
    try:
        for number, name in enumerate(names):
            left = max(0.0, end - time.monotonic())
            most = min(left, FAIR_SHARES * left / (len(names) - number))
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
                failed |= not _measure(name, Path(folder), most)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    return int(failed)


def _measure(name: str, temporary: Path, most_s: float) -> bool:
    """Run one measurement until it or its time is over; False where it came to no end."""
    process = subprocess.Popen(
        [sys.executable, "-m", f"benchmarks.{name}"],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    try:
        ended = process.wait(timeout=most_s)
    except subprocess.TimeoutExpired:
        print(f"{name}: stopped after {most_s:.0f} s: the machine is too busy", flush=True)
        return False
    finally:
        # Also what it started: nothing here has anything to save.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if ended:
        print(f"{name}: failed, see above", flush=True)
    return ended == 0


def _terminate(number: int, frame: FrameType | None) -> None:
    print("terminated", file=sys.stderr, flush=True)
    raise SystemExit(TERMINATED)


if __name__ == "__main__":
    sys.exit(main())
