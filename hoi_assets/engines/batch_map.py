"""Maps batches of pictures over processes: by default over this one alone.

A heavy step gives a task and its batches to `map_batches`, and stores and records what comes back.
Where the batches are computed is not its business: `use` puts another map in place, such as the
workers of a Ray cluster. A batch has a fixed shape and its items have their own places, so a
result does not depend on the process that computed it.
"""

import platform
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from hoi_assets.errors import HoiError
from hoi_assets.settings import ModelRef
from hoi_assets.store.weights import model_digest

if TYPE_CHECKING:
    from hoi_assets.settings import Settings

Item = TypeVar("Item")
Batch = TypeVar("Batch")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Compute:
    """What models run on; see `Settings`."""

    device: str
    threads: int

    @classmethod
    def of(cls, settings: "Settings") -> "Compute":
        """As the settings have it."""
        return cls(settings.device, settings.threads)

    def set_threads(self) -> None:
        """Have torch use so many threads: kernels round differently by their number."""
        import torch

        torch.set_num_threads(self.threads)


@dataclass(frozen=True, kw_only=True)
class BatchTask(ABC, Generic[Item, Result]):
    """What is done with a batch. It is pickled, and so are its items and results.

    Attributes:
        folders: folders of this machine that it reads, by the digest of their content; another
            machine is given copies. Models that the profile names are not among them: every
            machine has its own.
    """

    compute: Compute
    folders: Mapping[str, str] = field(default_factory=dict)

    @abstractmethod
    def run(self, batch: Sequence[Item]) -> Iterator[Result]:
        """Results of a batch, in any order; models come from the process's model cache."""


class BatchMap:
    """How batches are mapped: here, in this process, one after the other."""

    def begin(self, asset: str) -> None:
        """Take note that what follows is computed for this asset."""

    def map(
        self,
        task: BatchTask[Item, Result],
        batches: Sequence[Batch],
        load: Callable[[Batch], Sequence[Item]],
    ) -> Iterator[Result]:
        """See `map_batches`."""
        for batch in batches:
            yield from task.run(load(batch))


_current = BatchMap()


def use(batch_map: BatchMap) -> None:
    """Have this process map batches by `batch_map` from now on."""
    global _current
    _current = batch_map


def in_use() -> BatchMap:
    """How this process maps batches."""
    return _current


def map_batches(
    task: BatchTask[Item, Result],
    batches: Sequence[Batch],
    load: Callable[[Batch], Sequence[Item]],
) -> Iterator[Result]:
    """Results of all batches, in any order, by the map in use.

    Args:
        load: gives the items of a batch, in this process, when the batch can be computed.

    Raises:
        HoiError: as the task, or the workers of the map cannot be had.
    """
    return _current.map(task, batches, load) if batches else iter(())


def in_chunks(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """Items in batches of `size`, the last one shorter.

    >>> in_chunks([1, 2, 3], 2)
    [[1, 2], [3]]
    """
    return [items[start : start + size] for start in range(0, len(items), size)]


def require_model(ref: ModelRef, digest: str) -> None:
    """Refuse a model that is not the one whose digest is in the keys of a step.

    Raises:
        HoiError: it is another on this machine, or was changed since.
    """
    if model_digest(ref) != digest:
        raise HoiError(
            f"model {ref.source!r} on {platform.node()} is not the one that the step began with",
            "have every machine read the same files, and leave them alone during a run",
        )
