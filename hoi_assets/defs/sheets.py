"""Contact sheets for the metadata of assets."""

from collections.abc import Iterable, Sequence
from typing import Any

from hoi_assets.ppv.validation_images import ValidationImage
from hoi_assets.publishing.metadata import Image
from hoi_assets.store.versions import Store


def validation_sheet(
    store: Store, images: Sequence[ValidationImage], per_step: int
) -> dict[str, Image]:
    """Metadata of a training: a row of pictures per step; empty where none were drawn."""
    if not images:
        return {}
    captions = [f"step {one.step}" if one.step else "base" for one in images]
    sheet = image_sheet(store, [one.pixels for one in images], captions, columns=per_step)
    return {"validation_images": sheet}


def image_sheet(
    store: Store,
    pixels: Iterable[str],
    captions: Sequence[str],
    maps: Sequence[str | None] | None = None,
    **more: Any,
) -> Image:
    """A contact sheet of stored images, as WebP.

    Args:
        pixels: digests of the images.
        maps: digests of their defect maps, which are outlined; None: no outline.
        more: `good` and `columns`, see `pictures.contact_sheet`.
    """
    from hoi_assets.map_overlay import outlined
    from hoi_assets.pictures import contact_sheet, to_webp

    images = [store.images.open(one) for one in pixels]
    if maps is not None:
        images = [
            image if one is None else outlined(image, store.images.open(one))
            for image, one in zip(images, maps, strict=True)
        ]
    return Image(to_webp(contact_sheet(images, captions, **more)), "image/webp")
