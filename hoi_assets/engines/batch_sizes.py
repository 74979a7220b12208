"""How many images fit into a batch: found once for a model, a size and a device, and kept.

What was found lies in the home, in no version and no key: an image records the size that it was
drawn with. The next run begins with it, so that the same home gives the same bits.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

from filelock import FileLock

from hoi_assets.engines.diffusion_pipeline import LoadedPipeline
from hoi_assets.engines.model_cache import free_bytes
from hoi_assets.engines.out_of_memory import release
from hoi_assets.errors import HoiError
from hoi_assets.hashing import digest
from hoi_assets.progress import Log
from hoi_assets.settings import AUTO, BatchSize, ModelRef
from hoi_assets.store.disk import replace_bytes, writing

FILE = "batch_sizes.json"
FILE_MODE = 0o644
LOCK_TIMEOUT_S = 60.0
# Larger batches are hardly faster, and the empty places of one that is not full cost as much.
MOST = 16
# Denoising steps of a batch that is tried: more of them need no more memory.
TRIED_STEPS = 2
# Of the free memory, what a batch may take by the estimate from smaller ones.
USABLE_SHARE = 0.9
MEASURED_EVERY_S = 0.01

# Kind of work, width and height in pixels.
DRAW = "draw"
Work = tuple[str, int, int]
Entry = Mapping[str, Any]


def settle_batch_size(
    loaded: LoadedPipeline,
    home: Path,
    wanted: BatchSize,
    work: Work,
    attempt: Callable[[int], Any],
    log: Log,
) -> int:
    """The size of the batches that a run draws on this device.

    A number holds unless a batch of it did not fit before. `auto` doubles the size, from 1 to
    `MOST`, while the next one fits by the memory that the last ones took, and by trying it. Either
    is kept in the home; where memory runs short later, the size that is kept is lowered.

    Args:
        loaded: from now on keeps its `batch_limits` in `home`.
        attempt: draws a full batch of so many images.

    Raises:
        HoiError: not even one image fits, or the file of the home cannot be read.
    """
    kept = KeptBatchSizes(home, loaded)
    known = work in kept.found
    loaded.batch_limits = kept
    size = kept.settle(wanted, work, loaded.device, attempt)
    if wanted == AUTO and not known:
        log(found_line(loaded.ref, work, kept.found[work], home))
    return size


def found_line(ref: ModelRef, work: Work, size: int, home: Path) -> str:
    """What is logged when `auto` found a size."""
    return f"{ref.source}: batches of {size} ({_words(work)}), kept in {home / FILE}"


def facts_of(loaded: LoadedPipeline) -> dict[str, Any]:
    """What a size holds for: the model, and the device; with the model's name, see `identity`."""
    device = loaded.environment(0)["device"]
    return model_facts(loaded.ref, loaded.digest) | {"device": device}


def model_facts(ref: ModelRef, digest: str) -> dict[str, Any]:
    """What a size holds for, except the device."""
    return {"model": ref.source, "digest": digest, "offload": ref.offload}


def identity(facts: Entry) -> dict[str, Any]:
    """Facts without the model's name: equal weights that lie in two folders are one model."""
    return {name: value for name, value in facts.items() if name != "model"}


class BatchSizes(dict[Work, int]):
    """By work the largest batch where a larger one did not fit.

    Attributes:
        found: by work the size that `auto` found.

    Args:
        entries: of the file in a home; those of other models and devices are left aside.
        facts: see `facts_of`.
    """

    def __init__(self, entries: Iterable[Entry], facts: Entry) -> None:
        own = [one for one in entries if identity(facts).items() <= one.items()]
        works = {(one["work"], one["width"], one["height"]): one for one in own}
        super().__init__({work: one["limit"] for work, one in works.items() if "limit" in one})
        self.found = {work: one["found"] for work, one in works.items() if "found" in one}

    def keep(self, work: Work, size: int) -> None:
        """Keep the size that `auto` found."""
        self.found[work] = size

    def settle(
        self, wanted: BatchSize, work: Work, device: str, attempt: Callable[[int], Any]
    ) -> int:
        """As `settle_batch_size`; this must be the model's `batch_limits`."""
        if wanted == AUTO and work not in self.found:
            self.keep(work, _largest_that_fits(self, work, device, attempt))
        size = self.found[work] if wanted == AUTO else wanted
        return min(size, self.get(work, size))


class KeptBatchSizes(BatchSizes):
    """Those of a home; each change is written.

    Args:
        of: the model, or its facts.

    Attributes:
        path: of the file in the home.

    Raises:
        HoiError: the file cannot be read.
    """

    def __init__(self, home: Path, of: LoadedPipeline | Entry) -> None:
        self.path = home / FILE
        self._facts = dict(of) if isinstance(of, Mapping) else facts_of(of)
        super().__init__(read_entries(home), self._facts)

    def __setitem__(self, work: Work, limit: int) -> None:
        super().__setitem__(work, limit)
        self._write(work, {"limit": limit})

    def keep(self, work: Work, size: int) -> None:
        """Keep the size that `auto` found."""
        super().keep(work, size)
        self._write(work, {"found": size})

    def _write(self, work: Work, sizes: dict[str, int]) -> None:
        own = {**self._facts, "work": work[0], "width": work[1], "height": work[2]}
        same, home = identity(own), self.path.parent
        lock = home / "locks" / f"{FILE}.lock"
        with writing(self.path):
            lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock, timeout=LOCK_TIMEOUT_S):
            entries = _read(self.path)
            there = (key for key, one in entries.items() if same.items() <= one.items())
            key = next(there, digest(same)[:16])
            entries[key] = {**entries.get(key, {}), **own, **sizes}
            data = (json.dumps(entries, indent=2, sort_keys=True) + "\n").encode()
            replace_bytes(self.path, data, home, durable=False, mode=FILE_MODE)


def read_entries(home: Path) -> list[dict[str, Any]]:
    """What a home keeps of all models and devices.

    Raises:
        HoiError: the file cannot be read.
    """
    return list(_read(home / FILE).values())


def _read(path: Path) -> dict[str, dict[str, Any]]:
    if not path.exists():
        return {}
    try:
        entries: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        for one in entries.values():
            sizes = [int(one[name]) for name in ("found", "limit") if name in one]
            if min(sizes) < 1 or not {"work", "width", "height"} <= one.keys():
                raise ValueError("an entry lacks something")
    except (ValueError, TypeError, AttributeError) as error:
        raise HoiError(
            f"{path} cannot be read: {error}", "remove it; the sizes are found again"
        ) from error
    return entries


def recorded_at_once(wanted: BatchSize) -> int:
    """How many finished images are recorded at a time: a batch, as far as its size is known."""
    return MOST if wanted == AUTO else wanted


def _largest_that_fits(
    kept: BatchSizes, work: Work, device: str, attempt: Callable[[int], Any]
) -> int:
    size, free = 1, free_bytes(device)
    with _taken_bytes(device) as taken:
        attempt(size)
        last = taken()
        grown = last // 2
        while 2 * size <= MOST and last + 2 * grown <= USABLE_SHARE * free:
            attempt(2 * size)
            if kept.get(work, 2 * size) < 2 * size:  # it was halved
                break
            size *= 2
            last, grown = taken(), max(0, taken() - last)
    release()
    return size


@contextmanager
def _taken_bytes(device: str) -> Iterator[Callable[[], int]]:
    """Gives a function: the most memory taken at once since the start, in bytes."""
    if device.startswith("cuda"):
        import torch

        begin = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        yield lambda: torch.cuda.max_memory_allocated(device) - begin
        return
    import psutil

    # torch does not count the CPU's memory, so the process is looked at from a thread.
    process, done = psutil.Process(), Event()
    begin = process.memory_info().rss
    most = begin

    def watch() -> None:
        nonlocal most
        while not done.wait(MEASURED_EVERY_S):
            most = max(most, process.memory_info().rss)

    thread = Thread(target=watch, name="memory", daemon=True)
    thread.start()
    try:
        yield lambda: most - begin
    finally:
        done.set()
        thread.join()


def _words(work: Work) -> str:
    kind, width, height = work
    return f"{kind}, {width}x{height} px"
