"""Contact sheets for Dagster's metadata and the report, and how pictures are opened.

No meaning rests on colour alone.
"""

import io
import math
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from hoi_assets.palette import INK, PAPER, SOFT

# Okabe and Ito's green and vermilion, darkened for thin lines; also those of the report.
GOOD, BAD = "#00796b", "#b3541e"

GAP_PX, BORDER_PX, LABEL_LINES, LABEL_PX = 8, 4, 3, 12
# What Pillow raises for files that are truncated or damaged.
BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    MemoryError,
    struct.error,
    zlib.error,
)
MAX_PICTURE_BYTES = 300_000
SMALLEST_SIDE_PX = 64


def as_rgb(picture: Image.Image) -> Image.Image:
    """A user's picture as 8-bit RGB: rotated by its EXIF tag, 16-bit grey scaled, transparency on
    white.

    Raises:
        ValueError: grey values of no known range. Damaged files raise one of BROKEN.
    """
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I;16"):
        picture = Image.fromarray((np.asarray(picture) // 257).astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise ValueError(
            f"grey values of no known range (mode {picture.mode}): save it with 8 or 16 bits"
        )
    if picture.has_transparency_data:
        paper = Image.new("RGBA", picture.size, PAPER)
        picture = Image.alpha_composite(paper, picture.convert("RGBA"))
    return picture.convert("RGB")


def channel_deviation(picture: Image.Image) -> float:
    """The largest standard deviation of a colour channel, 0 to 255, to three decimals.

    About 0 is a blank picture, whatever its colour.
    """
    values = np.asarray(picture.convert("RGB"))
    return round(float(values.std(axis=(0, 1)).max()), 3)


def contact_sheet(
    images: Sequence[Image.Image],
    labels: Sequence[str] | None = None,
    columns: int = 6,
    cell_px: int = 160,
    good: Sequence[bool] | None = None,
) -> Image.Image:
    """Pictures in rows, each in a cell of `cell_px` with its label of up to three lines.

    Args:
        labels: one per picture; a longer one is cut with "…".
        good: one per picture: a green frame marks True, a vermilion one with a cross False.
    """
    images = list(images)
    labels = [""] * len(images) if labels is None else list(labels)
    marks: Sequence[bool | None] = [None] * len(images) if good is None else list(good)
    if not images:
        return _notice("no pictures")
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    font = ImageFont.load_default(LABEL_PX)
    line_px = LABEL_PX + 3
    wrapped = [_wrap(label, font, cell_px) for label in labels]
    label_px = line_px * max(len(lines) for lines in wrapped)
    step_x, step_y = cell_px + GAP_PX, cell_px + label_px + 2 * GAP_PX
    sheet = Image.new("RGB", (columns * step_x + GAP_PX, rows * step_y + GAP_PX), PAPER)
    pen = ImageDraw.Draw(sheet)
    for place, (image, lines, mark) in enumerate(zip(images, wrapped, marks, strict=True)):
        left = GAP_PX + place % columns * step_x
        top = GAP_PX + place // columns * step_y
        _paste(sheet, image, left, top, cell_px)
        if mark is not None:
            box = (left, top, left + cell_px - 1, top + cell_px - 1)
            pen.rectangle(box, outline=GOOD if mark else BAD, width=BORDER_PX)
        if mark is False:
            _cross(pen, left + cell_px, top)
        for number, line in enumerate(lines):
            height = top + cell_px + GAP_PX // 2 + number * line_px
            pen.text((left, height), line, fill=INK, font=font)
    return sheet


def to_webp(image: Image.Image, max_bytes: int = MAX_PICTURE_BYTES) -> bytes:
    """WebP of at most `max_bytes`: quality is lowered first, then size.

    Raises:
        ValueError: `max_bytes` is too little for any legible picture.
    """
    picture = image.convert("RGB")
    while min(picture.size) >= min(SMALLEST_SIDE_PX, *image.size):
        for quality in (85, 70, 55):
            stream = io.BytesIO()
            picture.save(stream, "WEBP", quality=quality, method=4)
            if stream.tell() <= max_bytes:
                return stream.getvalue()
        width, height = (max(1, length * 3 // 4) for length in picture.size)
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    raise ValueError(f"no legible picture of {image.size} fits into {max_bytes} bytes")


def _paste(sheet: Image.Image, image: Image.Image, left: int, top: int, cell_px: int) -> None:
    scale = cell_px / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    small = image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
    sheet.paste(small, (left + (cell_px - width) // 2, top + (cell_px - height) // 2))


def _cross(pen: ImageDraw.ImageDraw, right: int, top: int) -> None:
    side = 22
    left, bottom = right - side, top + side
    pen.rectangle((left, top, right - 1, bottom - 1), fill=BAD)
    for ends in (
        (left + 6, top + 6, right - 7, bottom - 7),
        (left + 6, bottom - 7, right - 7, top + 6),
    ):
        pen.line(ends, fill=PAPER, width=3)


def _wrap(text: str, font: Any, width_px: int) -> list[str]:
    """Lines of at most `width_px`; past LABEL_LINES the last one ends with "…"."""
    lines: list[str] = []
    words = text.split()
    while words:
        line = words.pop(0)
        while words and font.getlength(f"{line} {words[0]}") <= width_px:
            line += f" {words.pop(0)}"
        if len(lines) == LABEL_LINES - 1 and words:
            line, words = f"{line}…", []
        if font.getlength(line) > width_px:
            while line and font.getlength(f"{line}…") > width_px:
                line = line[:-1]
            line += "…"
        lines.append(line)
    return lines


def _notice(text: str) -> Image.Image:
    sheet = Image.new("RGB", (240, 60), PAPER)
    ImageDraw.Draw(sheet).text((16, 20), text, fill=SOFT, font=ImageFont.load_default(16))
    return sheet
