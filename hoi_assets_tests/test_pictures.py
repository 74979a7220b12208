"""Contact sheets show every picture, and files that are opened come as they look."""

import io
import os

import numpy as np
import pytest
from PIL import Image

from hoi_assets.pictures import (
    as_rgb,
    contact_sheet,
    to_webp,
)

RED, BLUE = Image.new("RGB", (32, 32), (200, 0, 0)), Image.new("RGB", (32, 32), (0, 0, 200))


def opened(raw: bytes) -> Image.Image:
    return Image.open(io.BytesIO(raw)).convert("RGB")


def colours(image: Image.Image) -> set[tuple[int, int, int]]:
    return {colour for _, colour in image.getcolors(image.width * image.height) or []}  # type: ignore[misc]


def test_every_picture_is_on_the_sheet_in_its_order() -> None:
    sheet = contact_sheet([RED, BLUE, RED], columns=2, cell_px=40)
    middles = [(28, 28), (76, 28), (28, 84)]
    assert sheet.getpixel(middles[0]) == (200, 0, 0)
    assert sheet.getpixel(middles[1]) == (0, 0, 200)
    assert {(200, 0, 0), (0, 0, 200)} <= colours(sheet)
    assert sheet.width < 3 * 48


def test_long_label_is_cut_and_keeps_the_cell_width() -> None:
    short = contact_sheet([RED], ["three words here"], cell_px=120)
    long = contact_sheet([RED], ["word " * 100], cell_px=120)
    unbroken = contact_sheet([RED], ["w" * 500], cell_px=120)
    assert short.width == long.width == unbroken.width
    assert short.height < long.height < short.height + 40


def test_frames_tell_good_from_bad_by_more_than_colour() -> None:
    sheet = contact_sheet([RED, RED], good=[True, False], cell_px=80).convert("L")
    left, right = sheet.crop((8, 8, 88, 88)), sheet.crop((96, 8, 176, 88))
    # The cross in the corner of what was rejected has white in it; a plain frame has none.
    assert left.getextrema()[1] < 250 <= right.getextrema()[1]


def test_sheet_of_no_pictures_says_so() -> None:
    assert contact_sheet([]).width > 0


def test_wide_and_grey_pictures_fit_their_cell() -> None:
    sheet = contact_sheet([Image.new("L", (300, 20), 90)], cell_px=60)
    assert sheet.size == (76, 84)
    assert sheet.getpixel((38, 38)) == (90, 90, 90)


def test_sixteen_bit_grey_is_scaled_and_what_is_transparent_is_white() -> None:
    ramp = Image.fromarray(np.arange(0, 65536, 256, dtype=np.uint16).reshape(16, 16))
    stream = io.BytesIO()
    ramp.save(stream, "PNG")
    grey = np.asarray(as_rgb(Image.open(stream)))
    assert grey.mean() == pytest.approx(127, abs=1) and (grey[0, 0] == 0).all()
    hidden = Image.new("RGBA", (2, 2), (255, 0, 0, 0))
    assert as_rgb(hidden).getpixel((0, 0)) == (255, 255, 255)
    assert as_rgb(Image.new("LA", (2, 2), (0, 128))).getpixel((0, 0)) == (127, 127, 127)
    with pytest.raises(ValueError, match="no known range"):
        as_rgb(Image.new("F", (2, 2)))


def test_webp_stays_below_its_byte_cap() -> None:
    noise = Image.frombytes("RGB", (700, 500), os.urandom(700 * 500 * 3))
    raw = to_webp(noise, max_bytes=30_000)
    assert len(raw) <= 30_000
    assert opened(raw).width >= 64
    assert opened(to_webp(RED)).size == RED.size
    with pytest.raises(ValueError, match="fits into 10 bytes"):
        to_webp(noise, max_bytes=10)
