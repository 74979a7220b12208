"""Pictures of the store, checked and marked, for exports."""

from hoi_assets.picture_marks import TRAINED, mark_png
from hoi_assets.store.versions import Store


def marked_picture(store: Store, pixels: str, source_type: str = TRAINED) -> bytes:
    """The stored picture of a pixel digest as a marked PNG file.

    Raises:
        HoiError: missing.
        Damaged: it is not the picture that was stored.
    """
    store.images.open(pixels)  # checks its pixels
    return mark_png(store.images.png_bytes(pixels), source_type)
