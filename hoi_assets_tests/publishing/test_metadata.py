"""What a stage may show: pictures within the cap, tables, plain values."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image as PILImage

from hoi_assets.errors import HoiError
from hoi_assets.publishing.metadata import (
    IMAGE_BYTES_CAP,
    Image,
    Markdown,
    Table,
    plain,
    table_markdown,
)


def decoded(markdown: str) -> PILImage.Image:
    match = re.search(r"!\[.*?\]\(data:image/\w+;base64,([^)]+)\)", markdown)
    assert match
    return PILImage.open(io.BytesIO(base64.b64decode(match.group(1))))


def noise(side: int) -> PILImage.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return PILImage.fromarray(pixels)


def test_small_picture_is_shown_bit_for_bit():
    picture = noise(16)
    shown = decoded(plain("sheet", Image.of(picture))["value"])
    assert shown.tobytes() == picture.tobytes()


def test_large_picture_is_scaled_down_below_the_cap_and_keeps_its_shape():
    large = Image.of(noise(1200))
    assert len(large.data) > IMAGE_BYTES_CAP
    markdown = plain("sheet", large)["value"]
    assert len(markdown) < IMAGE_BYTES_CAP * 4 / 3 + 200
    shown = decoded(markdown)
    assert 150 <= shown.width == shown.height < 1200


def test_caption_stands_below_the_picture():
    assert Image(b"x", "image/webp", "all accepted").markdown("sheet").endswith("all accepted")


def test_bytes_that_are_no_picture_are_named():
    with pytest.raises(HoiError, match="unreadable"):
        Image(b"no picture" * 100_000).within()


def test_other_values_stay_what_they_are():
    assert plain("n", 3) == {"kind": "value", "value": 3}
    assert plain("t", Markdown("**x**")) == {"kind": "markdown", "value": "**x**"}
    with pytest.raises(HoiError, match="metadata 'x' is a set"):
        plain("x", {1})  # type: ignore[arg-type]


def test_table_escapes_bars_and_says_how_many_rows_it_left_out():
    text = table_markdown([{"a": "x|y", "b": 0.123456}] * 60)
    assert "x\\|y" in text
    assert "0.1235" in text
    assert text.endswith("… and 10 more")
    assert plain("t", Table([]))["value"] == "(no rows)"
