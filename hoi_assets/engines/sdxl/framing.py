"""How pictures are cut for training: their size, the crop's place, mirrored copies."""

from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageOps

from hoi_assets.engines.seeds import generator, seed_of


@dataclass(frozen=True)
class Framing:
    """How every picture of a training is cut.

    Attributes:
        sizes: (height, width) in pixels; a picture takes the one nearest in aspect ratio.
        crop_seed: of crops at a random place; None: from the centre.
        mirrored: whether each picture is there mirrored too.
    """

    sizes: tuple[tuple[int, int], ...]
    crop_seed: int | None = None
    mirrored: bool = False

    def bucket(self, image: Image.Image) -> int:
        """Number of the picture's size in `sizes`."""
        from diffusers.training_utils import find_nearest_bucket

        if len(self.sizes) == 1:
            return 0
        return int(find_nearest_bucket(image.height, image.width, self.sizes))

    def cut(
        self, image: Image.Image, number: int, mirrored: bool = False
    ) -> tuple[Image.Image, list[int]]:
        """The picture in its size, with SDXL's time ids: original size, the crop's top left
        corner, target size.

        As in diffusers' scripts: resized so that it covers the size, mirrored, then cropped.

        Args:
            number: of the picture; a random crop follows from it and the seed.
        """
        height, width = self.sizes[self.bucket(image)]
        original = [image.height, image.width]
        scale = max(height / image.height, width / image.width)
        wide = max(width, round(image.width * scale))
        high = max(height, round(image.height * scale))
        if (wide, high) != image.size:
            image = image.resize((wide, high), Image.Resampling.LANCZOS)
        if mirrored:
            image = ImageOps.mirror(image)
        if self.crop_seed is None:
            top, left = (high - height) // 2, (wide - width) // 2
        else:
            seed = seed_of(self.crop_seed, "crop", number, int(mirrored))
            top, left = _random_corner(high - height, wide - width, generator(seed))
        cut = image.crop((left, top, left + width, top + height))
        return cut, [*original, top, left, height, width]


def _random_corner(most_top: int, most_left: int, randomness: Any) -> tuple[int, int]:
    import torch

    top, left = (
        int(torch.randint(0, most + 1, (1,), generator=randomness))
        for most in (most_top, most_left)
    )
    return top, left
