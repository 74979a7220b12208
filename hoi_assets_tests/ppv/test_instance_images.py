"""Reference pictures: what a user's folder may hold, and what is refused with which words."""

import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from hoi_assets.defs.ppv.proposers import instance_images
from hoi_assets.errors import HoiError
from hoi_assets.ppv.instance_images import instance_images_digest, read_instance_images
from hoi_assets.publishing.asset import stage_of
from hoi_assets.publishing.context import StageContext
from hoi_assets.settings import InstanceImages, load_settings
from hoi_assets.store.versions import Store

CATEGORY = "hook"


def picture(seed: int, side: int = 96) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(noise)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two good pictures, one with a caption, and one of every kind of bad file."""
    own = tmp_path / "pictures" / CATEGORY
    own.mkdir(parents=True)
    picture(1).save(own / "a.png")
    (own / "a.txt").write_text("a left hand carries a bag\n", encoding="utf-8")
    picture(2).save(own / "b.jpg")
    whole = (own / "a.png").read_bytes()
    (own / "c_truncated.png").write_bytes(whole[: len(whole) // 2])
    (own / "d_text.png").write_text("this is no picture", encoding="utf-8")
    picture(3, side=20).save(own / "e_small.png")
    Image.new("L", (50_000, 70)).save(own / "f_huge.png")
    (own / "g_notes.pdf").write_bytes(b"%PDF-1.4")
    return own.parent


@pytest.fixture
def read(folder: Path, tmp_path: Path) -> pl.DataFrame:
    settings = InstanceImages(folder=str(folder))
    return read_instance_images(CATEGORY, settings, Store(tmp_path / "home").images)


def test_good_pictures_are_kept_with_their_captions(read: pl.DataFrame) -> None:
    kept = read.filter(pl.col("status") == "accepted")
    assert kept["source"].to_list() == ["a.png", "b.jpg"]
    assert kept["caption"].to_list() == ["a left hand carries a bag", None]


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("c_truncated.png", "unreadable"),
        ("d_text.png", "no picture in PNG, JPEG, WebP, TIFF or BMP"),
        ("e_small.png", "20x20 px is under 64 px"),
        ("f_huge.png", "50000x70 px is over 16384 px"),
        ("g_notes.pdf", "a PDF, not PNG"),
    ],
)
def test_bad_file_is_rejected_by_name_and_the_rest_goes_on(
    read: pl.DataFrame, file: str, words: str
) -> None:
    row = read.filter(pl.col("source") == file).row(0, named=True)
    assert row["status"] == "rejected"
    assert file in row["reason"] and words in row["reason"]


def test_surplus_pictures_are_rejected_by_name(folder: Path, tmp_path: Path) -> None:
    settings = InstanceImages(folder=str(folder), per_category=1)
    rows = read_instance_images(CATEGORY, settings, Store(tmp_path / "home").images)
    assert rows.filter(pl.col("status") == "accepted")["source"].to_list() == ["a.png"]
    reasons = dict(rows.select("source", "reason").iter_rows())
    assert reasons["b.jpg"].startswith("b.jpg: surplus: the first 1 ")
    assert "a PDF" in reasons["g_notes.pdf"]


def test_missing_and_empty_folders_say_what_to_do(folder: Path, tmp_path: Path) -> None:
    settings = InstanceImages(folder=str(folder))
    images = Store(tmp_path / "home").images
    with pytest.raises(HoiError, match="worn does not exist"):
        read_instance_images("worn", settings, images)
    (folder / "worn").mkdir()
    with pytest.raises(HoiError, match="holds no pictures"):
        read_instance_images("worn", settings, images)


def test_instance_images_digest_follows_the_files(folder: Path) -> None:
    settings = InstanceImages(folder=str(folder))
    before = instance_images_digest(CATEGORY, settings)
    assert instance_images_digest(CATEGORY, settings) == before
    (folder / CATEGORY / "a.txt").write_text("another caption", encoding="utf-8")
    assert instance_images_digest(CATEGORY, settings) != before


def test_pool_gives_clean_true_pictures_of_the_category(tmp_path: Path) -> None:
    rows = read_instance_images(CATEGORY, InstanceImages(), Store(tmp_path / "home").images)
    assert rows.height == InstanceImages().per_category
    assert set(rows["category"]) == {CATEGORY}
    assert rows["caption"].null_count() == 0


def test_pool_without_the_category_names_it(tmp_path: Path) -> None:
    with pytest.raises(HoiError, match="no instance images of 'juggling'"):
        read_instance_images("juggling", InstanceImages(), Store(tmp_path / "home").images)


def test_missing_pool_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(HoiError, match="make world"):
        instance_images_digest(CATEGORY, InstanceImages(pool=str(tmp_path)))


def test_asset_takes_pictures_without_captions(folder: Path, tmp_path: Path) -> None:
    (folder / CATEGORY / "a.txt").write_text(" \n", encoding="utf-8")
    (folder / CATEGORY / os.fsdecode(b"caf\xe9.png")).write_bytes(b"x")
    profile = load_settings("tiny")
    own = profile.instance_images.model_copy(update={"folder": str(folder)})
    store = Store(tmp_path / "home")
    logged: list[str] = []
    context = StageContext(
        asset="instance_images",
        partition=CATEGORY,
        settings=profile.model_copy(update={"instance_images": own}),
        store=store,
        parents={},
        log=logged.append,
    )
    with store.stage("instance_images", CATEGORY) as staging:
        result = stage_of(instance_images)(context, staging)
        table = pl.read_parquet(staging.path / "rows.parquet")
    assert result.metadata["accepted"] == 2 and result.metadata["rejected"] == 6
    assert table.filter(pl.col("status") == "accepted")["caption"].to_list() == [None, None]
    assert "hook: rejected g_notes.pdf: unreadable picture: a PDF" in "\n".join(logged)
    assert str(tmp_path) not in "\n".join(logged)
    assert len(context.recorded) == 8
