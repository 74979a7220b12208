"""What happens when a device's memory is full: halve the batch and say so, or name the remedy.

An image or score belongs to its own row, noise included, so a smaller batch gives the same ones, up
to the last bits; the batch size that was used is recorded beside each image.
"""

import gc
import logging
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from hoi_assets.errors import HoiError

SMALLER_MODEL = (
    "set `offload: model` (or `sequential`) or `quantization: nf4` of models.benchmark, choose a "
    "smaller dtype, lower the size of the images, or use a device with more memory"
)

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch could not allocate memory, on a GPU or on the CPU."""
    import torch

    # The CPU's allocator raises a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    )


def release() -> None:
    """Give memory that is no longer used back to the GPU."""
    import torch

    gc.collect()  # pipelines hold reference cycles
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def naming_out_of_memory(what: str, remedy: str) -> Iterator[None]:
    """Turn a full memory into a HoiError.

    Args:
        what: that did not fit, e.g. "training step 3".
    """
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise _does_not_fit(what, remedy, error) from error


def in_fitting_parts(
    places: Sequence[Item | None],
    run: Callable[[list[Item | None]], Result],
    limits: MutableMapping[Any, int],
    key: Any,
    what: str,
    remedy: str = SMALLER_MODEL,
) -> tuple[int, list[tuple[int, Result]]]:
    """Run a batch as a whole, or in equal parts where its memory does not suffice.

    Args:
        places: of the batch; None is empty.
        run: takes a part, filled up with None.
        limits: by `key` the size that has fitted so far; later batches begin with it.
        what: one of the batch, e.g. "image of 1024x1024 px", for the messages.

    Returns:
        The size of the parts, and for each that is not empty its first place and its result.

    Raises:
        HoiError: not even one fits.
    """
    size = min(len(places), limits.get(key, len(places)))
    while True:
        try:
            found = []
            for start in range(0, len(places), size):
                part = list(places[start : start + size])
                if any(one is not None for one in part):
                    found.append((start, run(part + [None] * (size - len(part)))))
            return size, found
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if size == 1:
                raise _does_not_fit(f"a batch of one {what}", remedy, error) from error
        # Outside of the except block, whose traceback keeps the tensors alive.
        release()
        limits[key] = size // 2
        logger.warning(
            "out of memory: a batch of %d (%s) does not fit; going on with batches of %d",
            size,
            what,
            size // 2,
        )
        size //= 2


def _does_not_fit(what: str, remedy: str, error: BaseException) -> HoiError:
    first_line = str(error).strip().splitlines()[0] if str(error).strip() else "out of memory"
    return HoiError(f"{what} does not fit into memory: {first_line}", remedy)
