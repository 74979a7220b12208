"""Picture files of a user: which formats are read, and why a file is not.

The content decides, never the name: PNG, JPEG, WebP, TIFF and BMP. A file of several frames, a
camera's raw file and any other format is refused in words.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP")  # as Pillow names them
FORMAT_NAMES = "PNG, JPEG, WebP, TIFF or BMP"
# How the names of such files end. Only where nothing else says that a file is a picture.
PICTURE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jfif", ".webp", ".tif", ".tiff", ".bmp", ".dib"}
)
MAX_SIDE_PX = 16384

HEAD_BYTES = 64
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
HEIC_HINT = (
    "a HEIC picture: convert it to JPEG or PNG; an iPhone takes JPEG with Settings > Camera > "
    "Formats > Most Compatible"
)
RAW_HINT = "a camera's raw file, whose first image is a preview: develop it to TIFF, JPEG or PNG"
# Formats that are told apart to name them, and how their files begin.
OTHER_FORMATS = {
    b"GIF8": "a GIF",
    b"%PDF": "a PDF",
    b"%!PS": "PostScript",
    b"8BPS": "a Photoshop file",
    b"<svg": "an SVG",
    b"<?xml": "an XML file",
    b"FUJIFILMCCD-RAW": RAW_HINT,
}
# Tags of TIFF: reduced-resolution images are marked in the one, the other stands in each DNG.
NEW_SUBFILE_TYPE, DNG_VERSION = 254, 50706
EXIF_ORIENTATION = 274


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels as the header says, before any rotation.

    Raises:
        ValueError: the file is in no format that is read, or its header is damaged. The words hold
            no path.
    """
    with _opened(path) as picture:
        return picture.size


def open_picture(path: Path, max_side_px: int = MAX_SIDE_PX) -> "Image.Image":
    """A picture as RGB, rotated by its EXIF tag; see `hoi_assets.pictures.as_rgb`.

    Raises:
        ValueError: as `picture_size`, or it cannot be decoded or has a side over `max_side_px`.
    """
    from hoi_assets.pictures import as_rgb

    with _opened(path) as picture:
        # The header is enough to refuse a picture that would fill the memory.
        if max(picture.size) > max_side_px:
            raise ValueError(f"{picture.width}x{picture.height} px, at most {max_side_px} a side")
        return as_rgb(picture)


def picture_rotated(path: Path) -> bool:
    """Whether a picture's EXIF tag turns it; no for what is no picture."""
    try:
        with _opened(path) as picture:
            return picture.getexif().get(EXIF_ORIENTATION, 1) != 1
    except ValueError:
        return False


@contextmanager
def _opened(path: Path) -> Iterator["Image.Image"]:
    from PIL import Image, UnidentifiedImageError

    from hoi_assets.pictures import BROKEN

    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
            _check_head(head)
            file.seek(0)
            with Image.open(file, formats=FORMATS) as picture:
                _check_frames(picture)
                yield picture
    except UnidentifiedImageError as error:
        # Pillow's own words hold the path.
        raise ValueError(f"no picture in {FORMAT_NAMES}, or damaged at its start") from error
    except (Image.DecompressionBombError, *BROKEN) as error:
        raise ValueError(_words(error)) from error


def _check_head(head: bytes) -> None:
    if not head:
        raise ValueError("the file is empty")
    if head[4:8] == b"ftyp":
        raise ValueError(_container(head[8:12]))
    if head[:2] in (b"II", b"MM") and head[8:10] == b"CR":
        raise ValueError(RAW_HINT)
    for start, name in OTHER_FORMATS.items():
        if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(start):
            raise ValueError(_other(name))


def _container(brand: bytes) -> str:
    if brand in HEIC_BRANDS:
        return HEIC_HINT
    if brand in (b"avif", b"avis"):
        return _other("an AVIF picture")
    return RAW_HINT if brand == b"crx " else _other("a video")


def _other(name: str) -> str:
    return name if name == RAW_HINT else f"{name}, not {FORMAT_NAMES}: convert it"


def _check_frames(picture: "Image.Image") -> None:
    tags = getattr(picture, "tag_v2", {})
    kind = tags.get(NEW_SUBFILE_TYPE, 0)
    if DNG_VERSION in tags or (isinstance(kind, int) and kind & 1):
        raise ValueError(RAW_HINT)
    # The further frames of a JPEG (MPO) are previews and depth maps of the same picture.
    frames = 1 if picture.format == "MPO" else getattr(picture, "n_frames", 1)
    if frames > 1:
        raise ValueError(f"holds {frames} frames: save the one you mean as a file of its own")


def _words(error: BaseException) -> str:
    """What went wrong, on one line and without the path that the system's own errors name."""
    known = error.strerror if isinstance(error, OSError) else None
    return known or " ".join(str(error).split()) or type(error).__name__
