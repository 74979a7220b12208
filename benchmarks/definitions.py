"""How long the definitions take to load in a fresh process, and what they drag in."""

import subprocess
import sys

from benchmarks.common import report
from hoi_assets.settings import ROOT

RUNS = 3
SCRIPT = """
import sys, time
start = time.perf_counter()
from hoi_assets.definitions import defs
defs.load_fn()
seconds = time.perf_counter() - start
heavy = ("torch", "great_expectations", "transformers", "diffusers")
print(seconds, *[name for name in heavy if name in sys.modules])
"""


def main() -> None:
    runs = [
        subprocess.run(
            [sys.executable, "-c", SCRIPT], cwd=ROOT, text=True, capture_output=True, check=True
        ).stdout.split()
        for _ in range(RUNS)
    ]
    seconds = sorted(float(run[0]) for run in runs)[RUNS // 2]
    heavy = sorted({name for run in runs for name in run[1:]})
    report(
        "definitions/load",
        f"{seconds:.2f} s, heavy imports: {', '.join(heavy) or 'none'}",
        "at most 2 s, none",
    )


if __name__ == "__main__":
    main()
