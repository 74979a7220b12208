"""Promises of the mark of AI generation."""

import io
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from hoi_assets.errors import HoiError
from hoi_assets.picture_marks import ALGORITHMIC, TRAINED, encode_marked, mark_png, read_mark


def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 24, 3), dtype=np.uint8))


def png(image: Image.Image, **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, format="PNG", **options)
    return data.getvalue()


def test_marked_png_has_the_pixels_it_had_and_says_how_it_came_to_be() -> None:
    plain = png(picture())
    assert read_mark(plain) is None
    marked = mark_png(plain)
    assert (
        read_mark(marked)
        == TRAINED
        == ("http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia")
    )
    assert Image.open(io.BytesIO(marked)).tobytes() == picture().tobytes()


def test_other_readers_find_the_property_under_its_name() -> None:
    packet = Image.open(io.BytesIO(mark_png(png(picture())))).info["xmp"]
    found = ElementTree.fromstring(packet.decode()).iter(
        "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType"
    )
    assert [one.text for one in found] == [TRAINED]


def test_a_second_mark_takes_the_place_of_the_first() -> None:
    twice = mark_png(mark_png(png(picture()), ALGORITHMIC), TRAINED)
    assert twice == mark_png(png(picture()), TRAINED)


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP"])
def test_mark_is_there_again_after_every_encoding(image_format: str) -> None:
    once = encode_marked(picture(), TRAINED, "PNG")
    decoded = Image.open(io.BytesIO(once)).convert("RGB")
    again = encode_marked(decoded, TRAINED, image_format)
    assert read_mark(again) == TRAINED
    assert Image.open(io.BytesIO(again)).format == image_format


@pytest.mark.parametrize("data", [b"", b"GIF89a", png(Image.new("RGB", (4, 4)))[:-20]])
def test_what_is_no_whole_png_is_refused(data: bytes) -> None:
    with pytest.raises(HoiError, match="PNG"):
        mark_png(data)
