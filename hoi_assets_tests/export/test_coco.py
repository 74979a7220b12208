"""Promises of the COCO annotations: what `pycocotools` reads is the pool's truth."""

import io
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from pycocotools.coco import COCO

from hoi_assets.export.coco import export_coco
from hoi_assets.export.pairs import export_id
from hoi_assets.hashing import digest_pixels
from hoi_assets.picture_marks import ALGORITHMIC, read_mark
from hoi_assets.settings import ROOT
from hoi_assets.store.scene_pool import read_mask, read_parts, read_pool

POOL = ROOT / "data" / "pool"
ROWS = {"reference": 12, "judge_test": 8}


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few scenes and twins of the stored pool, bimanual ones among them."""
    folder = tmp_path_factory.mktemp("pool")
    (folder / "images").symlink_to(POOL / "images")
    for split, name in (("reference", "scenes"), ("judge_test", "twins")):
        rows = read_pool(POOL, split).sort("scene_id")
        two = rows.filter(pl.col("hands") == 2).head(2)
        one = rows.filter(pl.col("hands") == 1).head(ROWS[split] - two.height)
        pl.concat([two, one]).write_parquet(folder / f"{name}.parquet")
    return folder


@pytest.fixture(scope="module")
def folder(pool: Path) -> Path:
    return export_coco(pool, pool.parent / "coco").folder


def opened(folder: Path, kind: str, split: str) -> COCO:
    return COCO(str(folder / "annotations" / f"{kind}_{split}.json"))


def images_by_name(truth: COCO) -> dict[str, int]:
    return {image["file_name"]: number for number, image in truth.imgs.items()}


def test_masks_and_boxes_are_the_pools(pool: Path, folder: Path) -> None:
    truth = opened(folder, "instances", "reference")
    numbers = images_by_name(truth)
    rows = read_pool(pool, "reference")
    assert len(numbers) == rows.height
    for row in rows.iter_rows(named=True):
        own = truth.loadAnns(truth.getAnnIds(numbers[f"{export_id(row['digest'])}.png"]))
        for name, mask in (("hand", "hand_mask"), ("object", "object_mask")):
            (kind,) = truth.getCatIds(catNms=[name])
            (found,) = [one for one in own if one["category_id"] == kind]
            wanted = read_mask(row[mask])
            assert (truth.annToMask(found) == wanted).all()
            y, x = np.nonzero(wanted)
            assert found["bbox"] == [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]
            assert found["area"] == wanted.sum()
            assert found["iscrowd"] == int(name == "hand" and row["hands"] == 2)


def test_parts_of_a_spoilt_picture_and_of_its_twin_are_their_own(pool: Path, folder: Path) -> None:
    truth = opened(folder, "parts", "judge_test")
    numbers = images_by_name(truth)
    for row in read_pool(pool, "judge_test").iter_rows(named=True):
        for key, parts in (("digest", "parts"), ("twin_digest", "twin_parts")):
            wanted = read_parts(row[parts])
            number = numbers[f"{export_id(row[key])}.png"]
            painted = np.zeros_like(wanted)
            for one in truth.loadAnns(truth.getAnnIds(number)):
                painted[truth.annToMask(one) == 1] = one["category_id"]
            assert (painted == wanted).all()
            defects = [row["defect"]] if key == "digest" else []
            assert truth.imgs[number]["defects"] == defects


def test_joints_are_the_pools_and_lie_on_the_hand_where_visible(pool: Path, folder: Path) -> None:
    truth = opened(folder, "keypoints", "reference")
    numbers = images_by_name(truth)
    names = truth.loadCats([1])[0]["keypoints"]
    assert len(names) == 21
    for row in read_pool(pool, "reference").iter_rows(named=True):
        own = truth.loadAnns(truth.getAnnIds(numbers[f"{export_id(row['digest'])}.png"]))
        assert len(own) == row["hands"]
        points = np.concatenate([np.reshape(one["keypoints"], (21, 3)) for one in own])
        wanted = np.reshape(row["joints_2d"], (-1, 2))
        inside = points[:, 2] > 0
        assert np.abs(points[inside, :2] - wanted[inside]).max() < 0.01
        mask = read_mask(row["hand_mask"])
        seen = points[points[:, 2] == 2].astype(int)
        assert mask[seen[:, 1], seen[:, 0]].all()
        assert sum(one["num_keypoints"] for one in own) == inside.sum()


def test_pictures_are_the_renders_and_marked_as_such(pool: Path, folder: Path) -> None:
    captions = opened(folder, "captions", "reference")
    for row in read_pool(pool, "reference").iter_rows(named=True):
        name = f"{export_id(row['digest'])}.png"
        data = (folder / "images" / name).read_bytes()
        assert read_mark(data) == ALGORITHMIC
        assert digest_pixels(Image.open(io.BytesIO(data))) == row["digest"]
        (said,) = captions.loadAnns(captions.getAnnIds(images_by_name(captions)[name]))
        assert said["caption"] == row["true_caption"]
