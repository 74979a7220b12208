"""Twins: what differs between them is the defect, and it can be seen; needs the extra `scenes`."""

import io

import numpy as np
import polars as pl
import pytest
from PIL import Image

pytest.importorskip("mitsuba")
pytest.importorskip("anny")

from hoi_assets.hashing import digest_pixels
from hoi_assets.store.scene_pool import (
    TWIN_SCENES,
    decode_picture,
    open_image,
    read_mask,
    read_parts,
    read_pool,
)
from hoi_assets.taxonomy import load_taxonomy
from hoi_assets.tinyworld.scenes.groups import plan_twins
from hoi_assets.tinyworld.scenes.packing import MAX_FILE_BYTES, pack
from hoi_assets.tinyworld.scenes.render import Quality
from hoi_assets.tinyworld.scenes.shards import TAXONOMY, RenderSettings, render_stream
from hoi_assets.tinyworld.scenes.solving import load_world
from hoi_assets.tinyworld.scenes.twins.picture import (
    DIFFERENT,
    MIN_DEFECT_PIXELS,
    MIN_DEFECT_SHARE,
    render_twins,
)
from hoi_assets.tinyworld.scenes.vocabulary import PARTS, TWIN_DEFECTS

SIZE = 64
QUALITY = Quality(SIZE, 4, rasterised=True)
HAND_PARTS = [PARTS.index(name) for name in PARTS if name not in ("background", "object")]


@pytest.fixture(scope="module")
def world():
    return load_world(TAXONOMY)


@pytest.fixture(scope="module")
def pairs(world):
    """Two groups: eight pairs, of up to eight kinds."""
    groups = plan_twins(world.taxonomy, "twins", 0, 8)
    return [pair for group in groups for pair in render_twins(world, group, QUALITY)]


def gap(one, other):
    both = (np.asarray(each, dtype=np.int16) for each in (one, other))
    return np.abs(next(both) - next(both)).max(axis=-1)


def test_twins_differ_inside_the_defect_map_only(pairs):
    for twins, _ in pairs:
        apart = gap(twins.picture, twins.twin)
        assert (apart[twins.defect_map] >= DIFFERENT).all()
        assert (apart[~twins.defect_map] < DIFFERENT).all()


def test_stored_map_is_where_the_stored_pictures_differ_most(pairs):
    for _, row in pairs:
        apart = gap(decode_picture(row["picture"]), decode_picture(row["twin"]))
        inside = read_mask(row["defect_map"])
        assert apart[inside].mean() > 4 * apart[~inside].mean()


def test_every_defect_covers_enough_of_the_hand_to_be_seen(pairs):
    least = MIN_DEFECT_PIXELS * (SIZE / 128) ** 2
    for twins, row in pairs:
        assert row["defect_area"] == twins.defect_area <= twins.defect_map.sum()
        assert twins.defect_area >= max(least, MIN_DEFECT_SHARE * row["hand_area"])
        assert row["hand_area"] == twins.view.hand_mask.sum()


def test_part_labels_cover_hand_and_object(pairs):
    for twins, row in pairs:
        parts = read_parts(row["twin_parts"])
        assert parts.shape == (SIZE, SIZE) and parts.max() < len(PARTS)
        assert (np.isin(parts, HAND_PARTS) == twins.view.hand_mask).all()
        assert ((parts == PARTS.index("object")) == twins.view.object_mask).all()
        assert (read_parts(row["parts"]) == twins.parts).all()
        assert np.isin(twins.parts, HAND_PARTS).any()


def test_equal_seeds_give_equal_bits(world, pairs):
    group = plan_twins(world.taxonomy, "twins", 0, 4)[0]
    again = [row for _, row in render_twins(world, group, QUALITY)]
    assert again == [row for _, row in pairs[:4]]


def test_rows_tell_their_defect_and_hold_their_pictures(pairs):
    assert len({row["defect"] for _, row in pairs}) >= 4
    for twins, row in pairs:
        assert row["defect"] == twins.defect in TWIN_DEFECTS
        for picture, digest in (("picture", "digest"), ("twin", "twin_digest")):
            assert digest_pixels(Image.open(io.BytesIO(row[picture]))) == row[digest]
        assert open_image(TAXONOMY, row).size == (SIZE, SIZE)


def test_kinds_take_turns_and_held_out_objects_are_the_examiners_alone():
    taxonomy = load_taxonomy(TAXONOMY)
    groups = plan_twins(taxonomy, "twins", 0, 3400)
    counts = pl.Series([kind for group in groups for kind in group.plans]).value_counts()
    assert len(counts) == len(TWIN_DEFECTS) and counts["count"].min() == 200
    held_out = {
        (key, name)
        for key, category in taxonomy.categories.items()
        for name in category.held_out_objects
    }
    assert not {(g.category, name) for g in groups for name in g.objects} & held_out
    examined = plan_twins(taxonomy, "twins_examiner", 0, 400)
    assert {(g.category, name) for g in examined for name in g.objects} >= held_out
    # Neither split has the other's seeds.
    assert groups[0].rng(1).integers(2**31) != examined[0].rng(1).integers(2**31)


def test_shards_resume_and_pack_into_readable_files(tmp_path):
    settings = RenderSettings(Quality(32, 1, rasterised=True))
    render_stream(tmp_path, "twins", 4, 1, settings, shard_scenes=4, log=lambda line: None)
    first = tmp_path / "twins-00000.parquet"
    made_at = first.stat().st_mtime_ns
    lines = []
    render_stream(tmp_path, "twins", 8, 1, settings, shard_scenes=4, log=lines.append)
    assert first.stat().st_mtime_ns == made_at
    assert "1 of 2 shards are there already" in lines[0]
    rows = read_pool(tmp_path, "twins")
    assert dict(rows.schema) == TWIN_SCENES.schema and len(rows) == 8
    (packed,) = pack(tmp_path, "twins", tmp_path / "packed", lambda line: None)
    assert packed.stat().st_size <= MAX_FILE_BYTES
    assert read_pool(tmp_path / "packed", "twins").equals(rows)


def test_pack_takes_pictures_along(tmp_path):
    settings = RenderSettings(Quality(32, 1))
    render_stream(tmp_path, "interactions", 3, 1, settings, shard_scenes=3, log=lambda line: None)
    rows = read_pool(tmp_path, "interactions")
    pack(tmp_path, "interactions", tmp_path / "packed", lambda line: None)
    packed = read_pool(tmp_path / "packed", "interactions")
    assert packed.drop("picture").equals(rows)
    for row in packed.iter_rows(named=True):
        assert digest_pixels(open_image(tmp_path / "nowhere", row)) == row["digest"]
