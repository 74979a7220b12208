"""Batches of one fixed shape, so that a score does not depend on what else is scored.

Kernels choose their arithmetic by batch shape and, on some processors, by the place in the batch.
So every batch is full (free places repeat another item) and an item keeps its place.
"""

from collections.abc import Callable, Sequence

import numpy as np

from hoi_assets.engines.out_of_memory import in_fitting_parts


def fixed_batches(slots: Sequence[int], batch_size: int) -> list[list[int | None]]:
    """Lay items into batches of `batch_size` places; item i lies at place `slots[i] % batch_size`.

    Returns:
        Batches of item numbers; None is a free place.

    >>> fixed_batches([0, 1, 5], 4)
    [[0, 1, None, None], [None, 2, None, None]]
    """
    queues: list[list[int]] = [[] for _ in range(batch_size)]
    for item, slot in enumerate(slots):
        queues[slot % batch_size].append(item)
    return [
        [queue[row] if row < len(queue) else None for queue in queues]
        for row in range(max((len(queue) for queue in queues), default=0))
    ]


def map_fixed(
    count: int,
    batch_size: int,
    compute: Callable[[list[int]], np.ndarray],
    slots: Sequence[int] | None = None,
) -> np.ndarray:
    """Apply `compute` to items 0..count-1 in fixed batches.

    Args:
        compute: takes item numbers, `batch_size` or where memory is short fewer of them, and
            returns an array of as many rows.
        slots: the place of each item, e.g. its row in the whole table when only part of the table
            is scored; None lays them in order.

    Returns:
        Array (count, ...); (0,) when there is nothing to do.

    Raises:
        HoiError: not even one item fits into memory.
    """
    limits: dict[int, int] = {}
    rows: list[np.ndarray | None] = [None] * count
    for batch in fixed_batches(range(count) if slots is None else slots, batch_size):
        filler = next(item for item in batch if item is not None)
        full = [filler if item is None else item for item in batch]

        def run(items: list[int | None], filler: int = filler) -> np.ndarray:
            return compute([filler if item is None else item for item in items])

        _, parts = in_fitting_parts(full, run, limits, batch_size, "item")
        values = np.concatenate([part for _, part in parts])
        for place, item in enumerate(batch):
            if item is not None:
                rows[item] = values[place]
    return np.stack([row for row in rows if row is not None]) if count else np.zeros(0)
