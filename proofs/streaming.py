"""`python -m proofs.streaming HOME N`: peak memory (bytes) of stages over N pictures, as JSON.

Each stage runs in a process of its own, and reads its pictures one at a time or in batches: drawing
into the store, looking for duplicates, packaging as a dataset, querying.
"""

import json
import multiprocessing
import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

SIDE, BATCH = 96, 8
ENVIRONMENT = {"batch_size": BATCH, "dtype": "float32", "device": "cpu", "threads": 1}


def _keys(count: int) -> list[str]:
    return [f"{number:064x}" for number in range(count)]


def _draw(home: Path, count: int) -> None:
    from PIL import Image

    from hoi_assets.engines.image_cache import NewImage, get_or_generate
    from hoi_assets.store.versions import Store

    def generate(todo: Sequence[int]) -> Iterator[NewImage]:
        for number in todo:
            shape = (SIDE, SIDE, 3)
            noise = np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)
            facts = {**ENVIRONMENT, "cpu_capability": "none"}
            yield NewImage(
                f"{number:064x}", number % BATCH, Image.fromarray(noise), None, facts, 0.1
            )

    store = Store(home, "proof")
    wanted = dict(zip(_keys(count), range(count), strict=True))
    get_or_generate(store, wanted, generate, BATCH, "pictures", lambda _: None)
    store.images.flush()


def _pixels(home: Path, count: int) -> list[str]:
    from hoi_assets.store.versions import Store

    made = Store(home).ledger.get("image", _keys(count))
    return [value["pixels"] for value in made.values()]


def _compare(home: Path, count: int) -> None:
    from hoi_assets.ppv.image_duplicates import find_duplicate_images
    from hoi_assets.store.versions import Store

    images = Store(home).images
    found = find_duplicate_images(((one, images.open(one)) for one in _pixels(home, count)), 0)
    assert not found


def _package(home: Path, count: int) -> None:
    import polars as pl

    from hoi_assets.ppv.dataset_files import write_dataset_files
    from hoi_assets.store.versions import Store

    store = Store(home)
    rows = [
        {"image_id": name[:16], "pixels": name, "prompt": "a hand", "split": "train"}
        for name in _pixels(home, count)
    ]
    with store.stage("hoi_dataset") as staging:
        write_dataset_files(
            staging.path / "dataset",
            pl.DataFrame(rows),
            lambda name: store.images.path(name).read_bytes(),
        )
        store.publish(staging, {}, None)


def _query(home: Path, count: int) -> None:
    import polars as pl

    from hoi_assets.store import catalogue
    from hoi_assets.store.versions import Store

    store = Store(home, "proof")
    with store.stage("pictures", "hook") as staging:
        staging.write_table("rows", pl.DataFrame({"pixels": _pixels(home, count)}))
        store.publish(staging, {}, None)
    assert catalogue.query(store, "select count(*) as n from pictures")["n"][0] == count


def _peak(stage: Callable[[Path, int], None], home: Path, count: int, answer: Any) -> None:
    stage(home, count)
    answer.put(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def main() -> None:
    home, count = Path(sys.argv[1]), int(sys.argv[2])
    context = multiprocessing.get_context("spawn")
    peaks = {}
    for stage in (_draw, _compare, _package, _query):
        answer = context.Queue()
        process = context.Process(target=_peak, args=(stage, home, count, answer))
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(f"{stage.__name__} ended with {process.exitcode}")
        peaks[stage.__name__.strip("_")] = answer.get(timeout=10)
    print(json.dumps(peaks))


if __name__ == "__main__":
    main()
