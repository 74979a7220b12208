"""Drawing images as a task for `map_batches`: which model, and in batches of which size."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from hoi_assets.engines.batch_map import BatchTask, map_batches, require_model
from hoi_assets.engines.batch_sizes import (
    DRAW,
    BatchSizes,
    Entry,
    KeptBatchSizes,
    Work,
    facts_of,
    found_line,
    identity,
    model_facts,
    read_entries,
)
from hoi_assets.engines.image_spec import ImageSpec, Lora
from hoi_assets.engines.image_writing import NewImage
from hoi_assets.progress import Log
from hoi_assets.settings import AUTO, BatchSize, ModelRef

if TYPE_CHECKING:
    from hoi_assets.engines.diffusion_pipeline import LoadedPipeline

Item = TypeVar("Item")
Drawn = TypeVar("Drawn")


@dataclass(frozen=True, kw_only=True)
class DrawingTask(BatchTask[Item, Drawn], Generic[Item, Drawn]):
    """Draws images by one model.

    Attributes:
        digest: of the model; another one is refused.
        batch_size: number of slots; 0: not settled yet.
        folders: of the items' LoRAs, by `Lora.digest`.
    """

    ref: ModelRef
    digest: str
    batch_size: int = 0

    def load(self) -> Any:
        """The model, from the model cache.

        Raises:
            HoiError: it cannot be loaded, or is another.
        """
        from hoi_assets.engines.device import configure_torch

        require_model(self.ref, self.digest)
        return self._load(configure_torch(self.compute))

    @abstractmethod
    def _load(self, device: str) -> "LoadedPipeline": ...

    @abstractmethod
    def try_batch(self, loaded: Any, row: ImageSpec, size: int) -> None:
        """Draw a full batch of images like `row`, to see whether it fits."""

    def here(self, row: ImageSpec) -> ImageSpec:
        """The row with its LoRA's folder on this machine."""
        if row.lora is None or row.lora.digest not in self.folders:
            return row
        return replace(row, lora=Lora(self.folders[row.lora.digest], row.lora.digest))


def lora_folders(rows: Iterable[ImageSpec]) -> dict[str, str]:
    """Folders of the LoRAs of these rows, by digest."""
    return {row.lora.digest: row.lora.folder for row in rows if row.lora is not None}


@dataclass(frozen=True)
class FoundSize:
    """What `SizeSearch` found, and for which model and device (`facts`)."""

    size: int
    facts: Entry
    found: Mapping[Work, int]
    limits: Mapping[Work, int]


@dataclass(frozen=True, kw_only=True)
class SizeSearch(BatchTask[ImageSpec, FoundSize]):
    """Finds the size of batches of images like the one row of its batch.

    Attributes:
        entries: what the home keeps.
    """

    drawing: DrawingTask[Any, Any]
    wanted: BatchSize
    entries: Sequence[Entry]

    def run(self, batch: Sequence[ImageSpec]) -> Iterator[FoundSize]:
        (row,) = batch
        drawing = replace(self.drawing, folders=self.folders)
        loaded, row = drawing.load(), drawing.here(row)
        sizes = BatchSizes(self.entries, facts_of(loaded))
        loaded.batch_limits = sizes
        size = sizes.settle(
            self.wanted,
            work_of(row),
            loaded.device,
            lambda count: drawing.try_batch(loaded, row, count),
        )
        yield FoundSize(size, facts_of(loaded), sizes.found, dict(sizes))


def work_of(row: ImageSpec) -> Work:
    """The kind of work that drawing the row is."""
    return (DRAW, row.width, row.height)


Task = TypeVar("Task", bound=DrawingTask[Any, Any])


def with_batch_size(drawing: Task, home: Path, wanted: BatchSize, row: ImageSpec, log: Log) -> Task:
    """The task with the size of its batches: what `settle_batch_size` says of the device that it
    is computed on.

    Args:
        row: one of those to draw; all have its width and height.
        home: keeps the sizes.

    Raises:
        HoiError: not even one image fits, or the file of the home cannot be read.
    """
    model = identity(model_facts(drawing.ref, drawing.digest))
    entries = [one for one in read_entries(home) if model.items() <= one.items()]
    if wanted != AUTO and not entries:
        return replace(drawing, batch_size=wanted)
    search = SizeSearch(
        compute=drawing.compute,
        folders=lora_folders([row]),
        drawing=drawing,
        wanted=wanted,
        entries=entries,
    )
    (answer,) = map_batches(search, [row], lambda only: [only])
    kept, work = KeptBatchSizes(home, answer.facts), work_of(row)
    for one, limit in answer.limits.items():
        if kept.get(one) != limit:
            kept[one] = limit
    if work in answer.found and kept.found.get(work) != answer.found[work]:
        kept.keep(work, answer.found[work])
        log(found_line(drawing.ref, work, answer.found[work], home))
    return replace(drawing, batch_size=answer.size)


def noting_limits(
    images: Iterable[NewImage], drawing: DrawingTask[Any, Any], home: Path, work: Work
) -> Iterator[NewImage]:
    """The images; where one was drawn in a smaller batch, the home keeps that size as the limit."""
    limits: dict[str, KeptBatchSizes] = {}
    for one in images:
        size, device = one.environment["batch_size"], one.environment["device"]
        if size < drawing.batch_size:
            if device not in limits:
                facts = model_facts(drawing.ref, drawing.digest) | {"device": device}
                limits[device] = KeptBatchSizes(home, facts)
            if size < limits[device].get(work, drawing.batch_size):
                limits[device][work] = size
        yield one
