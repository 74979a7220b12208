"""`python -m benchmarks.gpu`: the platform beside plain diffusers at full size, on one GPU, within
12 minutes. Prints each figure as it is known and keeps all of them in a JSON file.

`--size tiny` does the same with small models, also on a CPU, to try the command itself.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

LIMIT_S = 720.0
BUDGET_GB = 24.0
# The random weights of both pipelines, and room to write them.
FULL_BYTES = 40 << 30
RAM_DISK = Path("/dev/shm")
TIMED_OUT = 124


def main() -> int:
    arguments = _arguments()
    began = time.monotonic()
    report = _Report(arguments.json)
    temporary: list[Path] = []
    _stop_after(arguments.limit, report, temporary)

    from benchmarks.gpu.measurements import MEASUREMENTS, Bench, free
    from benchmarks.gpu.models import SIZES, make_sd3, make_sdxl

    size = SIZES[arguments.size]
    device = _device(arguments.device)
    if arguments.size == "full" and device == "cpu":
        raise SystemExit("no GPU here: try the command with --size tiny")
    names = arguments.names or list(MEASUREMENTS)
    unknown = [name for name in names if name not in MEASUREMENTS]
    if unknown:
        raise SystemExit(f"no measurement {unknown[0]!r}; name some of: {', '.join(MEASUREMENTS)}")
    report.put(environment=_environment(device), size=arguments.size, figures=[], failed={})
    with tempfile.TemporaryDirectory(dir=_roomy(arguments.size), prefix="gpu-bench-") as folder:
        temporary.append(Path(folder))
        bench = Bench(size, Path(folder), device, arguments.budget_gb)
        for name, make in (("sdxl", make_sdxl), ("sd3", make_sd3)):
            start = time.monotonic()
            make(size, Path(folder) / name, device)
            free()
            print(f"random weights of {name}: {time.monotonic() - start:.1f} s", flush=True)
        for name in names:
            try:
                figure = MEASUREMENTS[name](bench)
                if arguments.size != "full":  # the goals are for full size
                    figure = replace(figure, reached=None)
            except Exception as error:  # one that fails leaves the others their time
                problem = f"{type(error).__name__}: {str(error).splitlines()[0][:300]}"
                report.content["failed"][name] = problem
                print(f"{name}: failed: {problem}", flush=True)
            else:
                report.content["figures"].append(asdict(figure) | {"ratio": figure.ratio})
                print(figure.line(), flush=True)
            report.put(seconds=round(time.monotonic() - began, 1))
    print(f"{len(report.content['figures'])} figures in {arguments.json}", flush=True)
    return 1 if report.content["failed"] else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="measurements; all when left out")
    parser.add_argument("--size", choices=("full", "tiny"), default="full")
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto")
    parser.add_argument("--limit", type=float, default=LIMIT_S, help="seconds for everything")
    parser.add_argument(
        "--budget-gb", type=float, default=BUDGET_GB, help="memory of the card to evict for, in GB"
    )
    parser.add_argument("--json", type=Path, default=Path("gpu-bench.json"), help="where to write")
    return parser.parse_args()


class _Report:
    """The JSON file, written anew whenever something is known."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.content: dict[str, Any] = {}

    def put(self, **content: Any) -> None:
        self.content |= content
        temporary = self.path.with_suffix(".unfinished")
        temporary.write_text(json.dumps(self.content, indent=2) + "\n", encoding="utf-8")
        temporary.replace(self.path)


def _stop_after(limit_s: float, report: _Report, temporary: Sequence[Path]) -> None:
    """End the process at the limit, whatever it is doing; what was measured stays in the file.

    Args:
        temporary: folders to remove; others may be added until then.
    """

    def stop() -> None:
        print(f"stopped after {limit_s:.0f} s", flush=True)
        report.put(stopped_after_s=limit_s)
        for folder in temporary:
            shutil.rmtree(folder, ignore_errors=True)
        os._exit(TIMED_OUT)

    timer = threading.Timer(limit_s, stop)
    timer.daemon = True
    timer.start()


def _device(name: str) -> str:
    from hoi_assets.engines.device import resolve_device

    return resolve_device(name)


def _environment(device: str) -> dict[str, Any]:
    from importlib.metadata import version

    import torch

    on_gpu = device.startswith("cuda")
    return {
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        **{name: version(name) for name in ("torch", "diffusers", "transformers", "peft")},
    }


def _roomy(size: str) -> Path | None:
    """A RAM disk for full-size weights where it has room; None: the temporary folder."""
    if size == "full" and RAM_DISK.is_dir() and shutil.disk_usage(RAM_DISK).free > FULL_BYTES:
        return RAM_DISK
    return None


if __name__ == "__main__":
    sys.exit(main())
