"""`python -m proofs [name ...]`: run the campaigns, print each lost trial, then one table.

Exit code 0 where nothing was lost, 1 where something was, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from proofs.campaign import Campaign

# Each is a module of this package with a constant CAMPAIGN.
NAMES: tuple[str, ...] = (
    *("crash", "concurrency", "resources"),
    *("planted_defects", "hostile", "properties", "cluster", "machines"),
)
INTERRUPTED = 130


@dataclass
class Result:
    """A row of the table."""

    campaign: str
    trials: int = 0
    survived: int = 0
    lost: int = 0
    seconds: float = 0.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m proofs", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(NAMES)}")
    parser.add_argument("--trials", type=int, help="of each campaign; without it, its own number")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn at random")
    parser.add_argument("--json", type=Path, help="also write the table to this file")
    arguments = parser.parse_args()
    for name in arguments.names:
        if name not in NAMES:
            raise SystemExit(f"no campaign {name!r}; name one of: {', '.join(NAMES)}")
    results: list[Result] = []
    try:
        for name in arguments.names or NAMES:
            campaign: Campaign = importlib.import_module(f"proofs.{name}").CAMPAIGN
            results.append(_run(campaign, arguments.seed, arguments.trials))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    finally:
        _print_table(results)
        if arguments.json:
            rows = [asdict(result) for result in results]
            arguments.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return int(any(result.lost for result in results))


def _run(campaign: Campaign, seed: int, trials: int | None) -> Result:
    result = Result(campaign.name)
    start = time.monotonic()
    print(f"{campaign.name}: {campaign.promise}", flush=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        try:
            for trial in campaign.run(Path(folder), seed, trials):
                result.trials += 1
                result.lost += bool(trial.fault)
                if trial.fault:
                    print(f"  LOST {trial.name}: {trial.fault}", flush=True)
                elif result.trials % 10 == 0:
                    print(f"  {result.trials} trials, {time.monotonic() - start:.0f} s", flush=True)
        except Exception as error:  # A campaign that breaks off proves nothing.
            result.trials += 1
            result.lost += 1
            print(f"  LOST the campaign broke off: {type(error).__name__}: {error}", flush=True)
    result.survived = result.trials - result.lost
    result.seconds = round(time.monotonic() - start, 1)
    return result


def _print_table(results: list[Result]) -> None:
    print("\n| campaign | trials | survived | lost | seconds |\n| --- | --- | --- | --- | --- |")
    for row in results:
        counts = f"{row.trials} | {row.survived} | {row.lost} | {row.seconds:.0f}"
        print(f"| {row.campaign} | {counts} |")


if __name__ == "__main__":
    sys.exit(main())
