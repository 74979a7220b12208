import io
import os
from pathlib import Path

import pytest
from PIL import Image

from hoi_assets.hashing import canonical_json, digest, digest_folder, digest_pixels, files_below


def test_digest_ignores_key_order_and_tells_values_apart() -> None:
    assert digest({"a": 1, "b": [2, None]}) == digest({"b": (2, None), "a": 1})
    assert len({digest(value) for value in (1, 1.0, "1", [1], True, None)}) == 6


def test_digest_is_the_published_sha256_of_canonical_json() -> None:
    assert canonical_json({"b": "é", "a": 1}) == '{"a":1,"b":"\\u00e9"}'
    assert digest({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": [float("-inf")]}])
def test_numbers_without_a_json_word_are_refused(value: object) -> None:
    with pytest.raises(ValueError):
        digest(value)


def test_folder_digest_is_of_names_and_contents_only(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub" / "a.txt").write_text("a", encoding="utf-8")
    (tmp_path / "two" / "empty").mkdir()
    os.utime(tmp_path / "two" / "sub" / "a.txt", (0, 0))
    before = digest_folder(tmp_path / "one")
    assert digest_folder(tmp_path / "two") == before

    (tmp_path / "two" / "sub" / "a.txt").rename(tmp_path / "two" / "sub" / "b.txt")
    assert digest_folder(tmp_path / "two") != before


def test_folder_digest_sees_what_lies_behind_links(tmp_path: Path) -> None:
    (tmp_path / "real" / "sub").mkdir(parents=True)
    (tmp_path / "real" / "sub" / "a").write_text("a", encoding="utf-8")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "sub").symlink_to(tmp_path / "real" / "sub")
    assert digest_folder(tmp_path / "linked") == digest_folder(tmp_path / "real")


def test_folder_digest_ends_where_links_lead_in_circles(tmp_path: Path) -> None:
    for name in ("looped", "plain"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub" / "a").write_text("a", encoding="utf-8")
    (tmp_path / "looped" / "sub" / "up").symlink_to(tmp_path / "looped")
    (tmp_path / "looped" / "here").symlink_to(".")
    assert digest_folder(tmp_path / "looped") == digest_folder(tmp_path / "plain")
    assert files_below(tmp_path / "nowhere") == []


def test_pixel_digest_is_independent_of_encoding_mode_and_metadata() -> None:
    image = Image.linear_gradient("L").resize((16, 8))
    expected = digest_pixels(image)
    assert digest_pixels(image.convert("RGB")) == expected
    for form in ("PNG", "BMP", "TIFF"):
        data = io.BytesIO()
        image.save(data, format=form)
        assert digest_pixels(Image.open(data)) == expected
    assert digest_pixels(image.resize((8, 16))) != expected


def test_pixel_digest_tells_shapes_of_equal_bytes_apart() -> None:
    assert digest_pixels(Image.new("RGB", (2, 3))) != digest_pixels(Image.new("RGB", (3, 2)))
