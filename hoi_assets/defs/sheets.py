"""Contact sheets for the metadata of assets."""

from collections.abc import Iterable, Sequence
from typing import Any

from hoi_assets.publishing.metadata import Image
from hoi_assets.store.versions import Store


def image_sheet(store: Store, pixels: Iterable[str], captions: Sequence[str], **more: Any) -> Image:
    """A contact sheet of stored images, as WebP.

    Args:
        pixels: digests of the images.
        more: `good` and `columns`, see `pictures.contact_sheet`.
    """
    from hoi_assets.pictures import contact_sheet, to_webp

    images = [store.images.open(one) for one in pixels]
    return Image(to_webp(contact_sheet(images, captions, **more)), "image/webp")
