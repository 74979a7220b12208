"""Drawing with SDXL as a task for `map_batches`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hoi_assets.engines.drawing import DrawingTask
from hoi_assets.engines.image_spec import ImageSpec, image_key, in_batches_of
from hoi_assets.engines.image_writing import NewImage


@dataclass(frozen=True, kw_only=True)
class SDXLDrawing(DrawingTask[ImageSpec, NewImage]):
    """Draws the images of rows."""

    def _load(self, device: str) -> Any:
        from hoi_assets.engines.sdxl.loading import load_sdxl

        return load_sdxl(self.ref, device)

    def try_batch(self, loaded: Any, row: ImageSpec, size: int) -> None:
        """See `DrawingTask`."""
        from hoi_assets.engines.sdxl.sampling import try_batch

        try_batch(loaded, row, size)

    def run(self, batch: Sequence[ImageSpec]) -> Iterator[NewImage]:
        """See `BatchTask`."""
        from hoi_assets.engines.sdxl.sampling import generate_images

        loaded, size = self.load(), self.batch_size
        environment = loaded.environment(size)
        rows = [in_batches_of(self.here(row), size) for row in batch]
        for one in generate_images(loaded, rows, size):
            slot, used = one.row.slot % one.batch_size, {"batch_size": one.batch_size}
            key = image_key(one.row, self.digest)
            yield NewImage(key, slot, one.image, one.reason, environment | used)
