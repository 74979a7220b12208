"""Whether the instance pictures can be trained on: format, size, captions, rotation."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import polars as pl

from hoi_assets.hashing import digest_pixels
from hoi_assets.picture_files import picture_rotated
from hoi_assets.ppv.instance_images import instance_images_digest, read_instance_images
from hoi_assets.preflight.findings import Finding, guarded, ok, problem, warning
from hoi_assets.settings import Settings, resolve_path
from hoi_assets.store.images import ImageStore
from hoi_assets.taxonomy import Category

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

SHOWN = 3


class _Unstored(ImageStore):
    """Takes pictures for their digest, and stores none."""

    def put(self, image: "Image.Image") -> str:
        return digest_pixels(image)


def check_photos(settings: Settings, categories: Sequence[Category]) -> Iterator[Finding]:
    """The pictures of each category; folders that are missing are named together."""
    root, missing = settings.instance_images.folder, set()
    if root is not None:
        folders = {one.key: resolve_path(root) / one.key for one in categories}
        missing = {key for key, folder in folders.items() if not folder.is_dir()}
    if missing:
        yield problem(
            "photos",
            "instance_images.folder",
            f"{resolve_path(root or '')} has no folder for {len(missing)} of {len(categories)} "
            f"categories: {', '.join(sorted(missing))}",
            "make a folder of that name for each and put reference pictures into it, or name the "
            "categories that you have in run_categories",
        )
    for category in categories:
        if category.key not in missing:
            own = partial(_check_category, settings, category)
            yield from guarded("photos", category.key, own)


def _check_category(settings: Settings, category: Category) -> Iterator[Finding]:
    """The pictures of one category, as `instance_images` will read them.

    Raises:
        HoiError: the folder or the pool is missing, or holds nothing for the category.
    """
    options = settings.instance_images
    if options.folder is None:
        instance_images_digest(category.key, options)
        yield ok("photos", category.key, "renders of the pool")
        return
    folder = resolve_path(options.folder) / category.key
    rows = read_instance_images(category.key, options, _Unstored(folder, folder))
    accepted = rows.filter(pl.col("status") == "accepted")
    different, wanted = accepted["pixels"].n_unique(), settings.gates.min_instance_images
    remedy = f"put more pictures into {folder}"
    count = f"{accepted.height} usable, {different} different"
    if different < wanted:
        what = f"{count}; the gate wants {wanted} (gates.min_instance_images)"
        yield problem("photos", category.key, what, remedy)
    else:
        yield ok("photos", category.key, f"{count}{_rotated(folder, accepted)}")
    reasons = rows["reason"].drop_nulls().to_list()
    if reasons:
        more = f"; and {len(reasons) - SHOWN} more" if len(reasons) > SHOWN else ""
        yield warning(
            "photos",
            category.key,
            f"{len(reasons)} files are not used: {'; '.join(reasons[:SHOWN])}{more}",
            "convert, replace or remove them",
        )
    yield from _sizes_and_captions(settings, category, accepted)


def _rotated(folder: "Path", accepted: pl.DataFrame) -> str:
    turned = sum(picture_rotated(folder / name) for name in accepted["source"])
    return f", {turned} turned upright by their EXIF tag" if turned else ""


def _sizes_and_captions(
    settings: Settings, category: Category, accepted: pl.DataFrame
) -> Iterator[Finding]:
    side = min(settings.sampling.width, settings.sampling.height)
    small = accepted.filter(pl.min_horizontal("width", "height") < side)
    if small.height:
        yield warning(
            "photos",
            category.key,
            f"{small.height} of {accepted.height} are under {side} px a side, and are scaled up",
            "use larger pictures",
        )
    named = accepted.filter(
        pl.col("caption").fill_null("").str.contains(category.identifier, literal=True)
    )
    if named.height:
        yield warning(
            "photos",
            category.key,
            f"{named.height} captions hold the identifier {category.identifier!r}, which is put in "
            "front of every caption",
            "leave it out of the captions",
        )
    bare = accepted["caption"].null_count()
    if bare:
        yield ok("photos", category.key, f"{bare} without a caption: the class prompt serves")
