"""How many pictures of the tiny world one core draws in a second, grasps solved and truth read."""

import os
import time

from benchmarks.common import report
from hoi_assets.settings import ROOT

GROUPS = 10


def main() -> None:
    # Read when the numerical libraries are loaded, which is below.
    os.environ["OMP_NUM_THREADS"] = "1"
    from hoi_assets.tinyworld.scenes.groups import plan_stream
    from hoi_assets.tinyworld.scenes.render import SAMPLES_PER_PIXEL
    from hoi_assets.tinyworld.scenes.sample import render_group
    from hoi_assets.tinyworld.scenes.solving import load_world

    world = load_world(ROOT / "data" / "taxonomy")
    groups = plan_stream(world.taxonomy, "pretrain", 0, 64)
    # The first group pays for loading the hand and the renderer.
    list(render_group(world, groups[0]))
    start, cpu, drawn = time.perf_counter(), time.process_time(), 0
    for group in groups[1 : GROUPS + 1]:
        drawn += sum(1 for _ in render_group(world, group))
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    report(
        "scenes/one core",
        f"{drawn / cpu_seconds:.2f} pictures a second of CPU, {drawn / seconds:.2f} of the clock "
        f"({drawn} pictures, {SAMPLES_PER_PIXEL} samples a pixel)",
        "at least 2 at 16 samples",
    )


if __name__ == "__main__":
    main()
