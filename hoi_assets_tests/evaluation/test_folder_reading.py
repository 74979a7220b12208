"""Folders and prompts for `hoi score`: what says two things is refused with its line; each picture
is read once."""

import json
import os
from pathlib import Path

import pytest

from hoi_assets.errors import HoiError
from hoi_assets.evaluation.folder_reading import MAX_PROMPTS_BYTES, FolderImage, read_folder
from hoi_assets_tests.engines.small_judges import picture


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in (1, 2, 3):
        picture(number).save(folder / f"{number}.png")
    return folder


def read(images: Path, name: str, text: str | bytes) -> dict[tuple[str, int | None], FolderImage]:
    """By file and line."""
    path = images.parent / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return {(one.file, one.line): one for one in read_folder(images, path)}


def line_about(file: str) -> str:
    return json.dumps({"file": file, "prompt": "a hand"})


@pytest.mark.parametrize(
    ("heading", "line", "file", "reason"),
    [
        (
            "file,prompt",
            "2.png,a hand with tan skin, gripping a cup",
            "2.png",
            "too_many_fields: 3",
        ),
        ("prompt,file", "a hand with tan skin, gripping a cup,2.png", "", "too_many_fields: 3"),
        ("file,prompt,note", '2.png, "a hand, a cup"', "2.png", "space_before_quote"),
        ("file,prompt", '2.png, "a hand"', "2.png", "space_before_quote"),
        ("file,prompt", "2.png,a hand,", "2.png", "too_many_fields: 3"),
        ("file,prompt", "2.png", "2.png", "missing_key: prompt"),
    ],
)
def test_csv_line_that_reads_in_two_ways_is_refused_alone(
    images: Path, heading: str, line: str, file: str, reason: str
) -> None:
    good = {"file,prompt": "{},{}", "prompt,file": "{1},{0}", "file,prompt,note": "{},{},x"}[
        heading
    ]
    text = [heading, good.format("1.png", "a hand"), "", line, good.format("3.png", '"a, b"')]
    found = read(images, "p.csv", "\n".join(text))
    assert (found[file, 4].reason or "").startswith(reason)
    assert found["1.png", 2].prompt == "a hand" and found["3.png", 5].prompt == "a, b"
    assert found["1.png", 2].pixels and found["3.png", 5].pixels


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('file,prompt\n1.png,"a hand\n2.png,a cup\n', "p.csv, line 3: unexpected end of data"),
        ('file,prompt\n1.png,"a "hand" open"\n', "p.csv, line 2: ',' expected after"),
        ("file,prompt,prompt\n1.png,a,b\n", "names twice the column 'prompt'"),
        ("file;prompt\n1.png;a\n", "has no column 'file'"),
        ("", "has no column 'file'"),
        ("file,prompt\n1.png,a\n".encode("utf-16"), "p.csv is not UTF-8: byte 1"),
    ],
)
def test_csv_that_reads_in_two_ways_as_a_whole_is_refused(
    images: Path, text: str | bytes, told: str
) -> None:
    with pytest.raises(HoiError, match=told):
        read(images, "p.csv", text)


@pytest.mark.parametrize(
    ("line", "file", "reason"),
    [
        ('{"file": "2.png", "prompt": "a", "prompt": "b"}', "2.png", "repeated_key: 'prompt'"),
        ('{"file": "2.png", "file": "3.png", "prompt": "a"}', "", "repeated_key: 'file'"),
        ('{"file": "2.png", "x": 1, "x": 1, "prompt": "a"}', "2.png", "repeated_key: 'x'"),
        ('{"file": ["2.png"], "prompt": "a", "prompt": "a"}', "", "repeated_key: 'prompt'"),
        ('{"file": "2.png" "prompt": "a"}', "", "broken_line: Expecting ',' delimiter at char"),
        ("[" * 100_000, "", "broken_line"),
        ('{"file": "2.png", "prompt": ' + "9" * 5000 + "}", "", "broken_line"),
    ],
)
def test_json_line_that_says_two_things_is_refused_alone(
    images: Path, line: str, file: str, reason: str
) -> None:
    good = '{"file": "%s.png", "prompt": "a hand", "more": {"x": 1, "x": 2}}'
    found = read(images, "p.jsonl", "\n".join([good % 1, line, good % 3]))
    assert (found[file, 2].reason or "").startswith(reason)
    assert found["1.png", 1].pixels and found["3.png", 3].pixels


def test_picture_behind_a_link_loop_is_read_once(images: Path) -> None:
    (images / "sub").mkdir()
    picture(4).save(images / "sub" / "4.png")
    (images / "loop").symlink_to(images)
    (images / "sub" / "up").symlink_to(images)
    (images / "twin").symlink_to(images / "sub")
    (images / "self.png").symlink_to(images / "self.png")
    outside = images.parent / "outside"
    outside.mkdir()
    picture(5).save(outside / "5.png")
    (outside / "back").symlink_to(images)
    (images / "out").symlink_to(outside)
    found = read(images, "p.jsonl", '{"file": "twin/4.png", "prompt": "a hand"}')
    assert {file for file, _ in found} == {
        *("1.png", "2.png", "3.png", "sub/4.png", "twin/4.png", "out/5.png", "self.png")
    }
    assert found["twin/4.png", 1].pixels


def test_picture_that_a_line_names_is_judged_by_content_not_by_name(images: Path) -> None:
    for name, kind in (("a.tiff", "TIFF"), ("b", "PNG"), ("c.bmp", "BMP"), ("d.png", "GIF")):
        picture(6).save(images / name, kind)
    lines = [line_about(name) for name in ("a.tiff", "b", "c.bmp", "d.png")]
    found = read(images, "p.jsonl", "\n".join(lines))
    assert found["a.tiff", 1].pixels and found["b", 2].pixels and found["c.bmp", 3].pixels
    assert found["d.png", 4].reason == (
        "unreadable_picture: a GIF, not PNG, JPEG, WebP, TIFF or BMP: convert it"
    )


def test_reasons_hold_no_path(images: Path) -> None:
    (images / "a.png").write_text("no picture", encoding="utf-8")
    (images / "b.png").symlink_to(images / "gone")
    (images / "c.png").write_bytes((images / "1.png").read_bytes()[:80])
    (images / os.fsdecode(b"caf\xe9.png")).write_bytes(b"x")
    lines = [line_about(f"{name}.png") for name in "abc"]
    found = read(images, "p.jsonl", "\n".join(lines))
    reasons = [one.reason for one in found.values() if one.reason]
    assert len(reasons) == 7
    assert not any(str(images.parent) in reason for reason in reasons)
    assert "file_name: control_character: U+DCE9" in str(found["caf\\xe9.png", None].reason)


def test_prompts_too_large_to_hold_are_refused(images: Path) -> None:
    path = images.parent / "p.jsonl"
    with path.open("wb") as file:
        file.truncate(MAX_PROMPTS_BYTES + 1)
    with pytest.raises(HoiError, match=r"p\.jsonl is larger than 64 MiB"):
        read_folder(images, path)
