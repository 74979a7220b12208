"""A user's folder of reference pictures: every odd thing in it is a row, none is an accident."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from PIL import Image

from hoi_assets.hashing import digest
from hoi_assets.ppv.instance_images import instance_images_digest, read_instance_images
from hoi_assets.settings import ROOT, InstanceImages
from hoi_assets.store.versions import Store
from hoi_assets_tests.pipeline_fixture import environment, write_profile
from hoi_assets_tests.ppv.test_instance_images import CATEGORY, picture

Rows = dict[str, tuple[str | None, str | None]]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A category's folder with one good picture."""
    folder = tmp_path / "pictures" / CATEGORY
    folder.mkdir(parents=True)
    picture(1).save(folder / "good.png")
    return folder


def rows(own: Path, per_category: int = 100) -> Rows:
    """Caption and reason of each row, by source."""
    settings = InstanceImages(folder=str(own.parent), per_category=per_category)
    instance_images_digest(CATEGORY, settings)
    table = read_instance_images(CATEGORY, settings, Store(own.parent.parent / "home").images)
    return {
        row["source"]: (row["caption"], row["reason"])
        for row in table.iter_rows(named=True)
        if (row["status"] == "accepted") == (row["reason"] is None)
    }


def reason(own: Path, source: str) -> str:
    found = rows(own)
    assert found["good.png"] == (None, None)
    why = found[source][1]
    assert why is not None and why.startswith(f"{source}: ")
    assert str(own.parent.parent) not in why
    return why


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.tiff", "TIFF"),
        ("a.tif", "TIFF"),
        ("a.BMP", "BMP"),
        ("a.webp", "WEBP"),
        ("a.jfif", "JPEG"),
        ("a.png", "JPEG"),
        ("a.gif", "PNG"),
        ("a", "PNG"),
    ],
)
def test_content_decides_whatever_the_name_says(own: Path, name: str, kind: str) -> None:
    picture(2).save(own / name, kind)
    (own / "a.TXT").write_text("a bag", encoding="utf-8")
    assert rows(own) == {"good.png": (None, None), name: ("a bag", None)}


def gif(path: Path) -> None:
    picture(2).save(path, "GIF")


def frames(kind: str) -> Callable[[Path], None]:
    def save(path: Path) -> None:
        picture(2).save(path, kind, save_all=True, append_images=[picture(3)])

    return save


def raw_file(path: Path) -> None:
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    tags = ImageFileDirectory_v2()
    tags[254] = 1  # a preview, as in DNG and NEF
    picture(2).save(path, "TIFF", tiffinfo=tags)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize(
    ("name", "make", "words"),
    [
        ("a.png", gif, "a GIF, not PNG, JPEG, WebP, TIFF or BMP: convert it"),
        ("a.webp", frames("WEBP"), "holds 2 frames"),
        ("a.tiff", frames("TIFF"), "holds 2 frames"),
        ("a.dng", raw_file, "a camera's raw file"),
        ("a.cr2", b"II*\0\x10\0\0\0CR\x02\0", "a camera's raw file"),
        ("a.jpg", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC picture: convert it to JPEG"),
        ("a.heic", b"\0\0\0\x1cftypmif1\0\0\0\0mif1heic", "a HEIC picture: convert it to JPEG"),
        ("a.avif", b"\0\0\0\x1cftypavif\0\0\0\0", "an AVIF picture, not PNG"),
        ("a.mov", b"\0\0\0\x14ftypqt  \0\0\0\0", "a video, not PNG"),
        ("a.svg", b'<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG, not PNG"),
        ("a.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript, not PNG"),
        ("a.png", b"", "the file is empty"),
        ("a.png", b"\x89PNG\r\n\x1a\n" + b"x" * 40, "unreadable picture: Truncated File Read"),
        ("a.png", b"this is no picture", "no picture in PNG"),
        ("a.tif", b"II*\0\x08\0\0\0\xff\xff" + b"\0" * 40, "no picture in PNG"),
    ],
)
def test_other_formats_are_named_with_a_remedy(
    own: Path, name: str, make: bytes | Callable[[Path], None], words: str
) -> None:
    if isinstance(make, bytes):
        (own / name).write_bytes(make)
    else:
        make(own / name)
    assert words in reason(own, name)


def test_picture_of_a_phone_with_a_second_image_inside_is_taken(own: Path) -> None:
    picture(2).save(own / "a.jpg", "MPO", save_all=True, append_images=[picture(3, 64)])
    assert rows(own)["a.jpg"] == (None, None)


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("a café bag".encode("latin-1"), "is not UTF-8 (byte 6): save it as UTF-8"),
        ("a bag".encode("utf-16"), "is not UTF-8 (byte 1)"),
        ("a bag".encode("utf-16-le"), "control_character: U+0000 at character 2"),
        (b"a\0bag", "control_character: U+0000 at character 2"),
        (b"a bag\nand a hand", "holds more than one line"),
        (b"a bag\rand a hand", "holds more than one line"),
        ("a bag\u2028and a hand".encode(), "holds more than one line"),
        ("a bag\u0085and a hand".encode(), "holds more than one line"),
        ("a \ufeffbag".encode(), "control_character: U+FEFF"),
        (b"a \x1b[31mbag", "control_character: U+001B"),
        (b"a" * 5000, "is longer than 4096 bytes"),
    ],
)
def test_caption_that_is_no_plain_line_rejects_its_picture(
    own: Path, caption: bytes, words: str
) -> None:
    picture(2).save(own / "a.png")
    (own / "a.txt").write_bytes(caption)
    said = reason(own, "a.png")
    assert said.startswith("a.png: caption a.txt: ") and words in said


@pytest.mark.parametrize(
    ("caption", "kept"),
    [
        (b"\xef\xbb\xbfa bag\r\n", "a bag"),
        (b"\xef\xbb\xbf", None),
        (b" \t\r\n\n", None),
        ("une poignée 🖐️\n".encode(), "une poignée 🖐️"),
    ],
)
def test_plain_caption_is_kept_without_its_edges(
    own: Path, caption: bytes, kept: str | None
) -> None:
    (own / "good.txt").write_bytes(caption)
    assert rows(own) == {"good.png": (kept, None)}


def test_caption_is_found_however_the_letters_of_its_name_are_composed(own: Path) -> None:
    picture(2).save(own / "caf\u00e9.png")
    (own / "cafe\u0301.txt").write_text("a cup", encoding="utf-8")
    assert rows(own)["caf\u00e9.png"] == ("a cup", None)


def test_captions_without_a_picture_and_twice_have_a_row(own: Path) -> None:
    for name in ("good.TXT", "good.txt", "lone.txt", "good.png.txt"):
        (own / name).write_text(name, encoding="utf-8")
    found = rows(own)
    assert found["good.png"] == ("good.TXT", None)
    assert "a second caption beside good.TXT" in str(found["good.txt"][1])
    for name in ("lone.txt", "good.png.txt"):
        assert "a caption without a picture" in str(found[name][1])


def test_folders_links_and_what_is_no_file_have_a_row(own: Path) -> None:
    (own / "sub").mkdir()
    picture(2).save(own / "sub" / "inner.png")
    (own / "link").symlink_to(own / "sub")
    (own / "up").symlink_to(own)
    (own / "loop.png").symlink_to(own / "loop.png")
    (own / "gone.png").symlink_to(own / "nowhere.png")
    (own / "linked.png").symlink_to(own / "sub" / "inner.png")
    (own / ".DS_Store").write_bytes(b"of the system")
    os.mkfifo(own / "pipe.png")
    found = rows(own)
    assert found.keys() == {
        *("good.png", "sub", "link", "up", "loop.png", "gone.png", "linked.png", "pipe.png")
    }
    assert found["linked.png"] == (None, None)
    for name in ("sub", "link", "up"):
        assert "a folder: only files directly" in str(found[name][1])
    for name in ("loop.png", "gone.png"):
        assert "a link that leads nowhere, or to itself" in str(found[name][1])
    assert "no regular file" in str(found["pipe.png"][1])


def test_names_that_are_no_text_are_read_and_stay_apart(own: Path) -> None:
    for seed, name in enumerate(
        (b"caf\xe9.png", rb"caf\xe9.png", b"a\nb.png", "\u2028.png".encode())
    ):
        picture(seed + 2).save(os.fsdecode(own.as_posix().encode() + b"/" + name))
    (own / os.fsdecode(b"caf\xe9.txt")).write_text("a cup", encoding="utf-8")
    assert rows(own) == {
        "good.png": (None, None),
        "caf\\xe9.png": ("a cup", None),
        "caf\\\\xe9.png": (None, None),
        "a\\x0ab.png": (None, None),
        "\\u2028.png": (None, None),
    }


def test_rows_and_digest_depend_on_the_files_alone(own: Path, tmp_path: Path) -> None:
    (own / "cut.png").write_bytes((own / "good.png").read_bytes()[:300])
    (own / "text.png").write_text("no picture", encoding="utf-8")
    (own / "caf\u00e9.png").write_bytes(b"")
    (own / os.fsdecode(b"caf\xe9.png")).write_bytes(b"x")
    (own / "gone.png").symlink_to(tmp_path / "nowhere.png")
    moved = tmp_path / "else where 'é'"
    shutil.copytree(own, moved / CATEGORY, symlinks=True)
    settings = InstanceImages(folder=str(own.parent))
    table = read_instance_images(CATEGORY, settings, Store(tmp_path / "home").images)
    here = [digest(table.rows()), instance_images_digest(CATEGORY, settings)]
    script = (
        "import json, sys\n"
        "from pathlib import Path\n"
        "from hoi_assets.hashing import digest\n"
        "from hoi_assets.ppv.instance_images import *\n"
        "from hoi_assets.store.versions import Store\n"
        "settings = InstanceImages(folder=sys.argv[1])\n"
        f"table = read_instance_images({CATEGORY!r}, settings, Store(Path(sys.argv[2])).images)\n"
        f"found = [digest(table.rows()), instance_images_digest({CATEGORY!r}, settings)]\n"
        "print(json.dumps(found))\n"
    )
    locale = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    command = [sys.executable, "-c", script, str(moved), str(tmp_path / "home")]
    ended = subprocess.run(command, env=os.environ | locale, capture_output=True, check=True)
    assert json.loads(ended.stdout) == here


def test_side_limits_of_the_profile_hold_above_the_default_too(own: Path) -> None:
    Image.new("L", (20_000, 64)).save(own / "a.png")
    settings = InstanceImages(folder=str(own.parent), max_side_px=20_000)
    table = read_instance_images(CATEGORY, settings, Store(own.parent.parent / "home").images)
    assert set(table["status"]) == {"accepted"}


@pytest.mark.slow
def test_dagster_publishes_one_version_wherever_the_folder_is(own: Path, tmp_path: Path) -> None:
    for number in (2, 3, 4, 5):
        picture(number).save(own / f"{number}.tiff")
    (own / "2.txt").write_bytes("a café bag".encode("latin-1"))
    (own / "text.png").write_text("no picture", encoding="utf-8")
    (own / "sub").mkdir()
    (own / os.fsdecode(b"caf\xe9.png")).write_bytes(b"x")
    moved = tmp_path / "elsewhere"
    shutil.copytree(own, moved / CATEGORY)
    versions = []
    for name, folder in (("a", own.parent), ("b", moved)):
        profile = write_profile(tmp_path, instance_images={"folder": str(folder)})
        home = tmp_path / name
        (home / "dagster").mkdir(parents=True)
        shutil.copy(ROOT / "dagster.yaml", home / "dagster")
        subprocess.run(
            [
                *(sys.executable, "-m", "dagster", "asset", "materialize"),
                *("-m", "hoi_assets.definitions", "--partition", CATEGORY),
                *("--select", "base_prompt_taxonomy,instance_images"),
            ],
            cwd=ROOT,
            env=environment(home, profile) | {"DAGSTER_HOME": str(home / "dagster")},
            check=True,
            capture_output=True,
        )
        versions.append(Store(home).require("instance_images", CATEGORY))
    assert versions[0].version == versions[1].version
    table = versions[0].table("rows")
    rejected = dict(table.filter(pl.col("status") == "rejected").select("source", "reason").rows())
    assert rejected.keys() == {"2.tiff", "caf\\xe9.png", "sub", "text.png"}
    assert rejected["2.tiff"] == ("2.tiff: caption 2.txt: is not UTF-8 (byte 6): save it as UTF-8")
    assert table.filter(pl.col("status") == "accepted")["caption"].null_count() == 4
