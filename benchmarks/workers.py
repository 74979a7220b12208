"""`candidate_images` drawn by one and by two workers of a Ray cluster on this machine, and without.

Workers have loaded their model before they are measured, and have one thread each.
"""

import importlib.util
import os
import tempfile
from pathlib import Path

import dagster as dg

from benchmarks.common import LITTLE_WORK, report, write_profile
from benchmarks.orchestration import CATEGORY, forget_images, read_taxonomy, run_assets, timed
from hoi_assets.cluster.batch_map import RayBatchMap
from hoi_assets.defs.project import load_project
from hoi_assets.engines import batch_map

ROUNDS = 2
BEFORE = ("detailed_prompts", "instance_images", "category_loras")
# More batches than workers, small enough that two workers end at about the same time.
WORK = {**LITTLE_WORK, "candidates": {"per_prompt": 2}}
BATCH = 4


def main() -> None:
    if importlib.util.find_spec("ray") is None:
        print("workers: skipped, Ray is not installed: pip install 'hoi-assets[ray]'", flush=True)
        return
    with (
        tempfile.TemporaryDirectory() as folder,
        # The path of a socket below it may have 107 bytes.
        tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as ray_folder,
        dg.DagsterInstance.local_temp(folder) as instance,
    ):
        os.environ["RAY_TMPDIR"] = ray_folder
        here, one, two = (_rate(Path(folder), instance, workers) for workers in (0, 1, 2))
    report(
        "workers/two against one",
        f"{two / one:.2f} ({two:.2f} and {one:.2f} images/s; {here:.2f} without Ray)",
        "at least 1.6, on two free cores",
    )


def _rate(folder: Path, instance: dg.DagsterInstance, workers: int) -> float:
    """Images per second, best of some rounds.

    Args:
        workers: 0 draws in this process.
    """
    import ray

    os.environ |= {"HOI_EXECUTOR": "ray" if workers else "in_process", "RAY_ADDRESS": "local"}
    if workers and not ray.is_initialized():
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    own = {"sampling": {"batch_size": BATCH}, "ray": {"max_workers": max(1, workers)}}
    project = load_project(str(write_profile(folder, {**WORK, **own})), folder / "home")
    store = project.platform.store
    read_taxonomy(project, instance)
    run_assets(project, instance, *BEFORE, force=False)
    seconds = []
    for number in range(1 + ROUNDS):
        forget_images(store)
        seconds.append(timed(lambda: run_assets(project, instance, "candidate_images")))
        if number == 0:
            seconds.clear()  # models were loaded
    current = batch_map.in_use()
    if isinstance(current, RayBatchMap):
        current.close()
    return int(store.require("candidate_images", CATEGORY).table("rows").height) / min(seconds)


if __name__ == "__main__":
    main()
