"""Drawing and re-denoising with Stable Diffusion 3 as tasks for `map_batches`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hoi_assets.engines.drawing import DrawingTask, Drawn, Item
from hoi_assets.engines.image_spec import ImageSpec, image_key, in_batches_of
from hoi_assets.engines.image_writing import NewImage
from hoi_assets.engines.sd3.redenoising import (
    Redenoising,
    generate_initial_images,
    generate_variants,
    try_batch,
    variant_key,
)


@dataclass(frozen=True)
class DrawnWithLatents:
    """An image and, by number of steps done, its latents (channels, height, width) on the CPU."""

    image: NewImage
    latents: Mapping[int, Any]


@dataclass(frozen=True, kw_only=True)
class SD3Task(DrawingTask[Item, Drawn]):
    """What both tasks share; see `generate_initial_images` for the attributes."""

    switch_steps: Sequence[int]
    s_reference: bool

    def _load(self, device: str) -> Any:
        from hoi_assets.engines.sd3.loading import load_sd3

        return load_sd3(self.ref, device)

    def try_batch(self, loaded: Any, row: ImageSpec, size: int) -> None:
        """See `DrawingTask`."""
        try_batch(loaded, row, size)


@dataclass(frozen=True, kw_only=True)
class SD3Drawing(SD3Task[ImageSpec, DrawnWithLatents]):
    """Draws the images of rows, with their latents at the switch steps."""

    def run(self, batch: Sequence[ImageSpec]) -> Iterator[DrawnWithLatents]:
        """See `BatchTask`."""
        loaded, size = self.load(), self.batch_size
        environment = loaded.environment(size)
        rows = [in_batches_of(row, size) for row in batch]
        drawn = generate_initial_images(loaded, rows, size, self.switch_steps, self.s_reference)
        for one in drawn:
            image = NewImage(
                image_key(one.row, self.digest),
                one.row.slot % one.batch_size,
                one.image,
                one.reason,
                environment | {"batch_size": one.batch_size},
                one.compute.seconds,
            )
            yield DrawnWithLatents(image, one.latents)


@dataclass(frozen=True, kw_only=True)
class SD3Redenoising(SD3Task[Redenoising, NewImage]):
    """Draws one variant per switch step; slots are those of batches of the settled size."""

    def run(self, batch: Sequence[Redenoising]) -> Iterator[NewImage]:
        """See `BatchTask`."""
        loaded, size = self.load(), self.batch_size
        environment = loaded.environment(size)
        steps, s_reference = self.switch_steps, self.s_reference
        for one in generate_variants(loaded, batch, size, steps, s_reference):
            yield NewImage(
                variant_key(one.redenoising, one.switch_step, s_reference, self.digest),
                one.redenoising.row.slot % one.batch_size,
                one.image,
                one.reason,
                environment | {"batch_size": one.batch_size},
                one.compute.seconds,
            )
