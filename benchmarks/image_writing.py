"""Images stored while the next ones are drawn, against one after the other: same model, rows and
process, in turn.

On a CPU the drawing takes the cores that the storing would use, so that the gain is that of the
second core only; on a GPU the drawing leaves them free.
"""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean

from benchmarks.common import ONE_THREAD, report, tiny
from hoi_assets.engines.device import configure_torch
from hoi_assets.engines.image_spec import ImageSpec, image_key
from hoi_assets.engines.image_writing import ImageWriter, NewImage
from hoi_assets.engines.sdxl.loading import LoadedSDXL, load_sdxl
from hoi_assets.engines.sdxl.sampling import generate_images, make_image_spec
from hoi_assets.settings import Sampling
from hoi_assets.store.versions import Store

SIDE, STEPS, BATCH_SIZE, BATCHES, ROUNDS = 384, 1, 2, 3, 2


def main() -> None:
    settings = tiny().model_copy(update={"threads": ONE_THREAD, "picture_format": "png"})
    loaded = load_sdxl(settings.models.base, configure_torch(settings))
    sampling = Sampling(
        width=SIDE, height=SIDE, num_inference_steps=STEPS, batch_size=BATCH_SIZE, scheduler="euler"
    )
    rows = [
        make_image_spec(sampling, "a right hand holds a red cup", n, n)
        for n in range(BATCHES * BATCH_SIZE)
    ]
    list(_drawn(loaded, rows[:BATCH_SIZE]))  # the first call is slower
    drawing: list[float] = []
    in_turn: list[float] = []
    at_once: list[float] = []
    for _ in range(ROUNDS):
        drawing.append(_seconds(lambda store: list(_drawn(loaded, rows))))
        in_turn.append(_seconds(lambda store: _write_in_turn(store, loaded, rows)))
        at_once.append(_seconds(lambda store: _write_at_once(store, loaded, rows)))
    alone, turn, once = fmean(drawing), fmean(in_turn), fmean(at_once)
    report(
        "image_writing/stored while the next are drawn, against in turn",
        f"{once / turn:.2f} of the time ({once:.2f} and {turn:.2f} s, drawing alone {alone:.2f} s; "
        f"{len(rows)} images of {SIDE}x{SIDE} px, {STEPS} steps, batch {BATCH_SIZE})",
        "below 1",
    )


def _drawn(loaded: LoadedSDXL, rows: list[ImageSpec]) -> Iterator[NewImage]:
    environment = loaded.environment(BATCH_SIZE)
    for one in generate_images(loaded, rows, BATCH_SIZE):
        key = image_key(one.row, loaded.digest)
        yield NewImage(key, one.row.slot, one.image, one.reason, environment)


def _write_in_turn(store: Store, loaded: LoadedSDXL, rows: list[ImageSpec]) -> None:
    for one in _drawn(loaded, rows):
        with ImageWriter(store, BATCH_SIZE) as writer:  # its end waits for the image
            writer.add(one)


def _write_at_once(store: Store, loaded: LoadedSDXL, rows: list[ImageSpec]) -> None:
    with ImageWriter(store, BATCH_SIZE) as writer:
        for one in _drawn(loaded, rows):
            writer.add(one)


def _seconds(work: Callable[[Store], object]) -> float:
    home = Path(tempfile.mkdtemp())
    try:
        store = Store(home)
        store.ledger.get("image", ["opened"])
        start = time.perf_counter()
        work(store)
        return time.perf_counter() - start
    finally:
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
