"""Progress of long work: rate and remaining time, said to the terminal or Dagster's log."""

import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TypeVar

Item = TypeVar("Item")
Log = Callable[[str], None]


def track(
    items: Iterable[Item],
    label: str,
    total: int | None = None,
    log: Log = print,
    every_s: float = 10.0,
) -> Iterator[Item]:
    """Yield `items`, saying done/total, rate (items per second) and ETA at most every `every_s`.

    Args:
        total: number of items; taken from `len(items)` where that is known.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    start = last = time.monotonic()
    done = 0
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last >= every_s:
            last = now
            log(_line(label, done, total, now - start))
    if done:
        log(_line(label, done, total, time.monotonic() - start))


def _line(label: str, done: int, total: int | None, seconds: float) -> str:
    rate = done / seconds if seconds > 0 else float("inf")
    of = f"/{total}" if total is not None else ""
    eta = f", {(total - done) / rate:.0f} s left" if total is not None and done < total else ""
    return f"{label}: {done}{of}, {rate:.2f}/s, {seconds:.0f} s{eta}"
