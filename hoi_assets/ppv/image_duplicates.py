"""Images that repeat an earlier one, exactly or perceptually."""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hoi_assets.hashing import digest_pixels

if TYPE_CHECKING:
    from PIL import Image

# A perceptual hash sees shapes only. Images whose 8 x 8 thumbnails differ by more than this
# (mean over pixels and channels, 0..255) are not duplicates: a red ball is not a blue ball.
MAX_COLOUR_DIFFERENCE = 10.0


@dataclass(frozen=True)
class DuplicateImage:
    """`image_id` repeats the earlier image `of`; `kind` is exact or perceptual."""

    image_id: str
    of: str
    kind: str

    @property
    def reason(self) -> str:
        """The reason for its rejection."""
        return f"{self.kind}_duplicate of {self.of}"


def find_duplicate_images(
    images: Iterable[tuple[str, "Image.Image"]], distance: int
) -> list[DuplicateImage]:
    """Find images that repeat an earlier one.

    Exact: equal pixels. Perceptual: 64-bit pHash (DCT of brightness; Zauner 2010) at most
    `distance` bits apart, and similar in colour. The first of a kind stays, so the order matters:
    an image added at the end never displaces one before it.

    Args:
        images: (id, image), read one at a time.
        distance: 0..64 bits.
    """
    import imagehash

    seen: dict[str, tuple[str, str]] = {}
    originals: list[str] = []
    hashes = array("Q")
    colours: list[np.ndarray] = []
    found = []
    for image_id, image in images:
        pixels = digest_pixels(image)
        if pixels in seen:
            found.append(DuplicateImage(image_id, *seen[pixels]))
            continue
        rgb = image.convert("RGB")
        bits = int(str(imagehash.phash(rgb)), 16)
        colour = np.asarray(rgb.resize((8, 8)), dtype=np.float32)
        apart = np.bitwise_count(np.array(hashes, dtype=np.uint64) ^ np.uint64(bits))
        near = next(
            (
                number
                for number in np.flatnonzero(apart <= distance)
                if np.abs(colours[number] - colour).mean() <= MAX_COLOUR_DIFFERENCE
            ),
            None,
        )
        if near is not None:
            seen[pixels] = originals[near], "perceptual"
            found.append(DuplicateImage(image_id, *seen[pixels]))
            continue
        seen[pixels] = image_id, "exact"
        originals.append(image_id)
        hashes.append(bits)
        colours.append(colour)
    return found
