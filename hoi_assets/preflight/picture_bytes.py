"""Bytes of a stored picture, by format: measured on pictures of that size."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from hoi_assets.errors import HoiError
from hoi_assets.picture_files import PICTURE_SUFFIXES, open_picture, picture_size
from hoi_assets.settings import Settings, resolve_path
from hoi_assets.store.images import FORMATS, encode_picture

if TYPE_CHECKING:
    from PIL import Image

SAMPLES = 6
LOOKED_AT = 400


@dataclass(frozen=True)
class PictureBytes:
    """Mean bytes of a picture of `size`.

    Attributes:
        by_format: png and webp, both lossless.
        samples: how many pictures were encoded.
        source: what they were.
    """

    size: tuple[int, int]
    by_format: dict[str, int]
    samples: int
    source: str


def measure_picture_bytes(
    settings: Settings, home: Path, size: tuple[int, int]
) -> PictureBytes | None:
    """Bytes of pictures of that size; None where there is none to measure.

    Taken are pictures of the home, else the instance pictures, cropped at the centre and scaled
    down to the size; smaller ones are not scaled up.
    """
    for source, pictures in (
        ("pictures of this home", _of_home(home, size)),
        ("instance pictures, scaled to this size", _of_photos(settings, size)),
        ("renders of the pool, scaled to this size", _of_pool(settings, size)),
    ):
        samples = list(islice(pictures, SAMPLES))
        if samples:
            by_format = {
                name: round(sum(len(encode_picture(one, name)) for one in samples) / len(samples))
                for name in FORMATS
            }
            return PictureBytes(size, by_format, len(samples), source)
    return None


def _of_home(home: Path, size: tuple[int, int]) -> Iterator["Image.Image"]:
    for path in islice(sorted((home / "images").glob("*/*")), LOOKED_AT):
        picture = _picture(path, size)
        if picture is not None and picture.size == size:
            yield picture


def _of_photos(settings: Settings, size: tuple[int, int]) -> Iterator["Image.Image"]:
    from PIL import ImageOps

    for path in islice(_photo_paths(settings), LOOKED_AT):
        picture = _picture(path, size)
        if picture is not None:
            yield ImageOps.fit(picture, size)


def _of_pool(settings: Settings, size: tuple[int, int]) -> Iterator["Image.Image"]:
    from PIL import ImageOps

    from hoi_assets.store.scene_pool import open_image, read_pool

    if settings.instance_images.folder is not None:
        return
    folder = resolve_path(settings.instance_images.pool)
    try:
        scenes = read_pool(folder, "instance")
    except HoiError:
        return
    for row in scenes.head(SAMPLES).iter_rows(named=True):
        picture = open_image(folder, row)
        if picture.width >= size[0] and picture.height >= size[1]:
            yield ImageOps.fit(picture, size)


def _photo_paths(settings: Settings) -> Iterator[Path]:
    if settings.instance_images.folder is None:
        return
    folder = resolve_path(settings.instance_images.folder)
    if folder.is_dir():
        paths = sorted(path for path in folder.glob("*/*") if path.is_file())
        yield from (path for path in paths if path.suffix.lower() in PICTURE_SUFFIXES)


def _picture(path: Path, least: tuple[int, int]) -> "Image.Image | None":
    """The picture of a file; None where there is none, or one that is smaller than `least`."""
    try:
        width, height = picture_size(path)
        return open_picture(path) if width >= least[0] and height >= least[1] else None
    except (ValueError, HoiError):
        return None
