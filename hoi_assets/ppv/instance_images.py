"""The DreamBooth reference images: from the pool of rendered scenes, or a user's own folder.

A user's folder is `<folder>/<category>/*.png|jpg|jpeg|webp`; the caption of `a.png` is the text of
`a.txt` beside it, where there is one.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl

from hoi_assets.errors import HoiError
from hoi_assets.hashing import digest, digest_file
from hoi_assets.settings import InstanceImages, resolve_path, restore_remedy
from hoi_assets.store.images import ImageStore
from hoi_assets.store.tables import Column, Table

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})


INSTANCE_IMAGE_ROWS = Table(
    "rows",
    "one reference image of the category, or a file that was rejected",
    (
        Column("pixels", pl.String, "digest of the pixels; null where rejected", nullable=True),
        Column("caption", pl.String, "null where there is none", nullable=True),
        Column("category", pl.String, "hand-pose category"),
        Column("object", pl.String, "the object; null where unknown", nullable=True),
        Column("source", pl.String, "scene of the pool, or file name"),
        Column("width", pl.Int64, "null where unreadable", "px", nullable=True),
        Column("height", pl.Int64, "null where unreadable", "px", nullable=True),
        Column("status", pl.String, "accepted or rejected"),
        Column("reason", pl.String, "why it was rejected", nullable=True),
    ),
    key=("source",),
)


@dataclass(frozen=True)
class InstanceImage:
    """A row of `INSTANCE_IMAGE_ROWS`."""

    pixels: str | None
    caption: str | None
    category: str
    object: str | None
    source: str
    width: int | None
    height: int | None
    status: str
    reason: str | None


def instance_images_digest(category: str, settings: InstanceImages) -> str:
    """Digest of the files the category's instance images come from.

    Raises:
        HoiError: the folder or pool is missing or empty.
    """
    if settings.folder is None:
        return digest_file(_pool_folder(settings) / "scenes.parquet")
    return digest([[path.name, digest_file(path)] for path in _files(category, settings)])


def read_instance_images(
    category: str, settings: InstanceImages, images: ImageStore
) -> pl.DataFrame:
    """Put the category's reference images into the image store.

    Returns:
        Table `INSTANCE_IMAGE_ROWS`; unreadable or unsuitable files are rejected rows.

    Raises:
        HoiError: the folder or pool is missing, or holds nothing for the category.
    """
    rows = (
        _from_pool(category, settings, images)
        if settings.folder is None
        else _from_folder(category, settings, images)
    )
    return INSTANCE_IMAGE_ROWS.frame(asdict(row) for row in rows)


def _pool_folder(settings: InstanceImages) -> Path:
    folder = resolve_path(settings.pool)
    if not (folder / "scenes.parquet").is_file():
        raise HoiError(
            f"no pool of rendered scenes at {folder}",
            f"{restore_remedy(settings.pool, 'world')}; or name your own pictures under "
            "instance_images.folder in the profile",
        )
    return folder


def _from_pool(
    category: str, settings: InstanceImages, images: ImageStore
) -> Iterator[InstanceImage]:
    from hoi_assets.store.scene_pool import open_image, read_pool

    folder = _pool_folder(settings)
    scenes = read_pool(folder, "instance").filter(pl.col("category") == category).sort("scene_id")
    if scenes.is_empty():
        raise HoiError(
            f"the pool {folder} holds no instance images of {category!r}",
            f"render them with `make world`, or put your own pictures of {category!r} into a "
            "folder and name it under instance_images.folder in the profile",
        )
    for row in scenes.head(settings.per_category).iter_rows(named=True):
        picture = open_image(folder, row)
        yield InstanceImage(
            pixels=images.put(picture),
            caption=row["caption"],
            category=category,
            object=row["object"],
            source=row["scene_id"],
            width=picture.width,
            height=picture.height,
            status="accepted",
            reason=None,
        )


def _files(category: str, settings: InstanceImages) -> list[Path]:
    folder = resolve_path(settings.folder or "") / category
    if not folder.is_dir():
        raise HoiError(
            f"instance folder {folder} does not exist",
            f"make it and put reference pictures of {category!r} into it, or unset "
            "instance_images.folder in the profile",
        )
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name[0] != ".")
    if not any(path.suffix.lower() in IMAGE_SUFFIXES for path in files):
        raise HoiError(
            f"instance folder {folder} holds no pictures",
            f"put {settings.per_category} pictures (png, jpg or webp) of {category!r} into it",
        )
    return files


def _from_folder(
    category: str, settings: InstanceImages, images: ImageStore
) -> Iterator[InstanceImage]:
    accepted = 0
    for path in _files(category, settings):
        if path.suffix.lower() == ".txt" or accepted == settings.per_category:
            continue
        row = _read_file(path, category, settings, images)
        accepted += row.status == "accepted"
        yield row


def _read_file(
    path: Path, category: str, settings: InstanceImages, images: ImageStore
) -> InstanceImage:
    from PIL import Image

    from hoi_assets.pictures import BROKEN, as_rgb

    def rejected(reason: str, width: int | None = None, height: int | None = None) -> InstanceImage:
        return InstanceImage(
            None, None, category, None, path.name, width, height, "rejected", reason
        )

    if path.suffix.lower() not in IMAGE_SUFFIXES:
        return rejected(f"{path.name}: not a picture (png, jpg or webp)")
    try:
        with Image.open(path) as opened:
            width, height = opened.size
            # The header is enough to refuse an image that would fill the memory.
            if max(width, height) > settings.max_side_px:
                return rejected(
                    f"{path.name}: {width}x{height} px is over {settings.max_side_px} px a side",
                    width,
                    height,
                )
            if min(width, height) < settings.min_side_px:
                return rejected(
                    f"{path.name}: {width}x{height} px is under {settings.min_side_px} px a side",
                    width,
                    height,
                )
            picture = as_rgb(opened)
    except (Image.DecompressionBombError, *BROKEN) as error:
        return rejected(f"{path.name}: unreadable picture: {error}")
    text = path.with_suffix(".txt")
    caption = text.read_text(encoding="utf-8").strip() if text.is_file() else None
    return InstanceImage(
        pixels=images.put(picture),
        caption=caption or None,
        category=category,
        object=None,
        source=path.name,
        width=picture.width,
        height=picture.height,
        status="accepted",
        reason=None,
    )
