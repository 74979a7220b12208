"""How many pictures of the tiny world one core renders in a second, truth included."""

import os
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from benchmarks.common import report
from hoi_assets.settings import ROOT

GROUPS, ITEMS, PAIRS = 5, 12, 12


def main() -> None:
    # Read when the numerical libraries are loaded, which is below.
    os.environ["OMP_NUM_THREADS"] = "1"
    from hoi_assets.tinyworld.scenes.groups import plan_stream, plan_twins
    from hoi_assets.tinyworld.scenes.interactions.picture import render_item
    from hoi_assets.tinyworld.scenes.interactions.stream import plan_interactions
    from hoi_assets.tinyworld.scenes.render import FAST, STANDARD
    from hoi_assets.tinyworld.scenes.sample import render_group
    from hoi_assets.tinyworld.scenes.solving import load_world
    from hoi_assets.tinyworld.scenes.twins.picture import render_twins

    world = load_world(ROOT / "data" / "taxonomy")
    groups = plan_stream(world.taxonomy, "pretrain", 0, 64)
    items = plan_interactions("interactions", 0, 90)
    # The first group pays for loading the hand and the renderer.
    list(render_group(world, groups[0]))
    for name, quality in (("standard", STANDARD), ("fast", FAST)):
        poses = [render_group(world, group, quality) for group in groups[1 : GROUPS + 1]]
        _measure(f"hand poses, {name}", poses, "at least 2, fast 4")
        # Other items each time: solved grasps are kept for the process.
        part = items[:ITEMS] if quality is STANDARD else items[ITEMS : 2 * ITEMS]
        scenes = [_later(partial(render_item, world, item, quality)) for item in part]
        _measure(f"interactions, {name}", scenes, "fast twice the standard")
    pairs = plan_twins(world.taxonomy, "twins", 0, PAIRS)
    _measure("pairs of twins", [render_twins(world, group) for group in pairs], "1 pair")


def _later(render: Callable[[], Any]) -> Iterable[Any]:
    yield render()


def _measure(name: str, batches: Iterable[Iterable[Any]], goal: str) -> None:
    start, cpu = time.perf_counter(), time.process_time()
    count = sum(1 for batch in batches for _ in batch)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    report(
        f"scenes/{name}",
        f"{count / cpu:.2f} pictures a second of CPU, {count / seconds:.2f} of the clock "
        f"({count} pictures)",
        goal,
    )


if __name__ == "__main__":
    main()
