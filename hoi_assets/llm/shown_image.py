"""An image for a vision endpoint."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

    from hoi_assets.store.versions import Store


@dataclass(frozen=True)
class ShownImage:
    """Opened only when it is sent, since thousands may be queued.

    Attributes:
        pixels: digest of its pixels.
    """

    pixels: str
    open: Callable[[], "Image.Image"]

    @staticmethod
    def of_store(store: "Store", pixels: str) -> "ShownImage":
        """An image of the store."""
        return ShownImage(pixels, lambda: store.images.open(pixels))
