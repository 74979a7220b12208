"""Images that repeat an earlier one, exactly or perceptually."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hoi_assets.hashing import digest_pixels
from hoi_assets.near_hashes import NearHashes

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

# A perceptual hash sees shapes only. Images whose 8 x 8 thumbnails differ by more than this
# (mean over pixels and channels, 0..255) are not duplicates: a red ball is not a blue ball.
MAX_COLOUR_DIFFERENCE = 10.0
THUMBNAIL = (8, 8)
DIGEST_BYTES = 16  # enough to tell the pixels of alike images apart


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

    originals: list[str] = []
    digests = bytearray()
    colours = bytearray()
    hashes = NearHashes(distance)
    found = []
    for image_id, image in images:
        rgb = image.convert("RGB")
        pixels = bytes.fromhex(digest_pixels(rgb))[:DIGEST_BYTES]
        bits = int(str(imagehash.phash(rgb)), 16)
        colour = rgb.resize(THUMBNAIL).tobytes()
        near = _first_alike(hashes.near(bits), colour, colours)
        if near is None:
            originals.append(image_id)
            digests += pixels
            colours += colour
            hashes.add(bits)
            continue
        # An image equal to an original finds that one: any before it would have kept it out.
        equal = digests[near * DIGEST_BYTES : (near + 1) * DIGEST_BYTES] == pixels
        found.append(DuplicateImage(image_id, originals[near], "exact" if equal else "perceptual"))
    return found


def _first_alike(near: "NDArray[np.int64]", colour: bytes, colours: bytearray) -> int | None:
    """The first of the originals `near` that is similar in colour."""
    own = np.frombuffer(colour, dtype=np.uint8).astype(np.float32)
    for number in near:
        start = int(number) * len(colour)
        other = np.frombuffer(colours, dtype=np.uint8, count=len(colour), offset=start)
        if np.abs(other.astype(np.float32) - own).mean() <= MAX_COLOUR_DIFFERENCE:
            return int(number)
    return None
