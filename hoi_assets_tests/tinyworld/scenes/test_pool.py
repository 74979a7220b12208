"""The stored pool held against its own truth, and the render's promises: resume, equal bits."""

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from hoi_assets.errors import HoiError
from hoi_assets.grammar.vocabulary import COLOURS
from hoi_assets.hashing import digest_pixels
from hoi_assets.store.scene_pool import (
    SCENES,
    TWIN_SCENES,
    decode_picture,
    open_image,
    read_mask,
    read_parts,
    read_pool,
)
from hoi_assets.taxonomy import load_taxonomy
from hoi_assets.tinyworld.scenes.false_captions import FALSE_CLAIMS
from hoi_assets.tinyworld.scenes.groups import (
    INSTANCE_PICTURES,
    JUDGE_COUNTS,
    REFERENCE_PICTURES,
)
from hoi_assets.tinyworld.scenes.shards import TAXONOMY
from hoi_assets.tinyworld.scenes.vocabulary import FINGERS, PARTS, TWIN_DEFECTS

POOL = TAXONOMY.parent / "pool"
MAX_POOL_BYTES = 6_000_000
LEFT_OUT = 3  # pairs of a category's, at most, on which no defect shows


@pytest.fixture(scope="module")
def pool():
    return read_pool(POOL)


@pytest.fixture(scope="module")
def twins():
    return pl.concat([read_pool(POOL, split) for split in JUDGE_COUNTS])


@pytest.fixture(scope="module")
def taxonomy():
    return load_taxonomy(TAXONOMY)


# --- the stored pool -----------------------------------------------------------------------------


def test_pool_is_read_without_the_renderer():
    script = (
        "import sys\n"
        "for name in ('mitsuba', 'anny', 'trimesh', 'torch', 'dagster'): sys.modules[name] = None\n"
        "from pathlib import Path\n"
        "from hoi_assets.store.scene_pool import open_image, read_pool\n"
        f"rows = read_pool(Path({str(POOL)!r}), 'instance')\n"
        f"print(len(rows), open_image(Path({str(POOL)!r}), rows.row(0, named=True)).size)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip().endswith("(128, 128)")


def test_pool_has_the_promised_columns_splits_and_size(pool, twins, taxonomy):
    assert dict(pool.schema) == SCENES.schema
    assert dict(twins.schema) == TWIN_SCENES.schema
    counts = {
        (split, category): n
        for rows in (pool, twins)
        for split, category, n in rows.group_by("split", "category").len().iter_rows()
    }
    for category in taxonomy.categories:
        assert counts[("instance", category)] == INSTANCE_PICTURES
        for split, (count, _) in JUDGE_COUNTS.items():
            assert count - LEFT_OUT <= counts[(split, category)] <= count
    assert (pool["split"] == "reference").sum() == REFERENCE_PICTURES
    stored = sum(path.stat().st_size for path in POOL.rglob("*") if path.is_file())
    assert stored <= MAX_POOL_BYTES


def test_splits_share_neither_scene_nor_grasp_nor_picture(pool, twins):
    both = pl.concat(
        [
            pool.select("scene_id", "split", "grasp_id", "digest"),
            twins.select("scene_id", "split", "grasp_id", "digest"),
            twins.select("scene_id", "split", "grasp_id", pl.col("twin_digest").alias("digest")),
        ]
    )
    assert pool["scene_id"].is_unique().all() and twins["scene_id"].is_unique().all()
    for column in ("scene_id", "grasp_id", "digest"):
        per_split = both.group_by("split").agg(pl.col(column).unique())
        sets = [set(values) for values in per_split[column]]
        for one, other in itertools.combinations(sets, 2):
            assert not one & other


def test_instance_pictures_are_clean_true_and_of_train_objects(pool, taxonomy):
    rows = pool.filter(pl.col("split").is_in(["instance", "reference"]))
    assert rows["fidelity"].all() and rows["alignment"].all()
    assert (rows["caption"] == rows["true_caption"]).all()
    for row in rows.iter_rows(named=True):
        assert row["object"] in taxonomy.categories[row["category"]].objects


def test_held_out_objects_are_tested_only(pool, twins, taxonomy):
    for key, category in taxonomy.categories.items():
        held_out = list(category.held_out_objects)
        shown = [
            rows.filter((pl.col("category") == key) & pl.col("object").is_in(held_out))
            for rows in (pool, twins)
        ]
        assert shown[0].is_empty()
        assert set(shown[1]["split"]) <= {"judge_test"}
        assert shown[1]["object"].n_unique() == len(held_out)


def test_judges_see_every_defect_and_every_false_claim(twins):
    for split in JUDGE_COUNTS:
        rows = twins.filter(pl.col("split") == split)
        assert set(rows["defect"]) == set(TWIN_DEFECTS)
        assert set(rows["lie"]) == set(FALSE_CLAIMS)
    assert (twins["caption"] != twins["false_caption"]).all()


def test_twins_differ_where_the_map_says_and_parts_are_those_of_the_vocabulary(twins):
    for row in twins.sample(40, seed=5).iter_rows(named=True):
        spoilt, whole = decode_picture(row["picture"]), decode_picture(row["twin"])
        assert digest_pixels(spoilt) == row["digest"]
        assert digest_pixels(whole) == row["twin_digest"]
        gap = np.abs(np.asarray(spoilt, dtype=int) - np.asarray(whole, dtype=int)).max(axis=-1)
        inside = read_mask(row["defect_map"])
        assert inside.sum() >= 0.06 * row["hand_area"]
        assert row["defect_area"] >= 150
        assert gap[inside].mean() > 3 * gap[~inside].mean()
        for parts in ("parts", "twin_parts"):
            assert read_parts(row[parts]).max() < len(PARTS)


def test_labels_follow_from_defects_and_lies(pool):
    assert (pool["fidelity"] == (pool["defects"].list.len() == 0)).all()
    assert (pool["alignment"] == (pool["lies"].list.len() == 0)).all()
    assert ((pool["caption"] == pool["true_caption"]) == pool["alignment"]).all()


def test_files_hold_the_pixels_that_the_rows_name(pool):
    for row in pool.sample(60, seed=1).iter_rows(named=True):
        image = open_image(POOL, row)
        assert image.size == (128, 128)
        assert digest_pixels(image) == row["digest"]
    assert {path.name for path in (POOL / "images").iterdir()} == {
        Path(file).name for file in pool["file"]
    }


def test_mask_areas_are_those_of_the_masks(pool):
    for row in pool.sample(60, seed=2).iter_rows(named=True):
        hand, thing = read_mask(row["hand_mask"]), read_mask(row["object_mask"])
        assert hand.sum() == row["hand_area"] > 300
        assert thing.sum() == row["object_area"] > 0
        assert not (hand & thing).any()


def test_joints_lie_in_hand_or_object_as_the_picture_shows_them(pool):
    shares = []
    clean = pool.filter(pl.col("fidelity") & (pl.col("hands") > 0))
    for row in clean.sample(150, seed=3).iter_rows(named=True):
        joints = np.asarray(row["joints_2d"]).reshape(-1, 2)
        assert len(joints) == 21 * row["hands"]
        assert len(row["joint_angles"]) == 60 * row["hands"]
        shown = read_mask(row["hand_mask"]) | read_mask(row["object_mask"])
        shown = np.asarray(Image.fromarray(shown).filter(_grow()))
        inside = ((joints >= 0) & (joints < 128)).all(axis=1)
        at = joints[inside].astype(int)
        shares.append(shown[at[:, 1], at[:, 0]].mean())
    assert np.mean(shares) > 0.98 and min(shares) > 0.85


def _grow():
    from PIL import ImageFilter

    return ImageFilter.MaxFilter(5)


def test_camera_projects_the_stored_joints_where_the_row_says(pool):
    from hoi_assets.tinyworld.scenes.camera import Camera

    for row in pool.filter(pl.col("hands") > 0).sample(40, seed=4).iter_rows(named=True):
        numbers = [float(value) for value in row["camera"]]
        camera = Camera(tuple(numbers[:3]), tuple(numbers[3:6]), tuple(numbers[6:9]), numbers[9])
        points = np.asarray(row["joints_3d"]).reshape(-1, 3)
        stored = np.asarray(row["joints_2d"]).reshape(-1, 2)
        assert np.abs(camera.project(points, 128) - stored).max() < 0.1


def test_clean_grasps_touch_and_do_not_sink_in(pool):
    held = pool.filter(pl.col("category") != "worn")
    assert (held["contacts"].list.len() > 0).all()
    assert pool["contact_mm"].max() <= 4.0
    assert pool["penetration_mm"].max() <= 5.0


def test_visible_fingers_are_fingers_and_most_pictures_show_some(pool):
    assert set(pool["visible_fingers"].explode().drop_nulls()) == set(FINGERS)
    assert (pool["visible_fingers"].list.len() >= 2).mean() > 0.8


def test_object_pixels_are_nearest_to_the_asked_colour(pool, twins):
    from hoi_assets.tinyworld.scenes.materials import COLOUR_SRGB

    tones = np.array([COLOUR_SRGB[name] for name in COLOURS], dtype=float)
    clear = (
        (pl.col("light") == "soft light")
        & (pl.col("material") != "metal")
        # Their painted part is small beside screen, base or strap.
        & ~pl.col("object").is_in(["phone", "button", "watch", "bucket", "bag", "brush"])
    )
    shown = [
        (open_image(POOL, row), read_mask(row["object_mask"]), row["colour"])
        for row in pool.filter(clear).iter_rows(named=True)
    ] + [
        (
            decode_picture(row["twin"]),
            read_parts(row["twin_parts"]) == PARTS.index("object"),
            row["colour"],
        )
        for row in twins.filter(clear).iter_rows(named=True)
    ]
    right = []
    for image, mask, colour in shown:
        if mask.sum() > 400:
            pixels = np.asarray(image)[mask]
            gap = np.linalg.norm(pixels[:, None].astype(float) - tones[None], axis=-1)
            votes = np.bincount(gap.argmin(axis=1), minlength=len(COLOURS))
            right.append(COLOURS[int(votes.argmax())] == colour)
    assert len(right) > 50
    assert np.mean(right) > 0.85


# --- bad input -----------------------------------------------------------------------------------


def test_missing_pool_and_unknown_split_name_the_remedy(tmp_path):
    with pytest.raises(HoiError, match="no pool of scenes"):
        read_pool(tmp_path)
    with pytest.raises(HoiError, match="'dreams'"):
        read_pool(POOL, "dreams")


def test_unreadable_picture_names_file_and_scene(tmp_path):
    (tmp_path / "broken.webp").write_bytes(b"not a picture")
    with pytest.raises(HoiError, match=r"broken\.webp.*scene 's1'"):
        open_image(tmp_path, {"file": "broken.webp", "scene_id": "s1"})


# --- rendering -----------------------------------------------------------------------------------

RENDER = """
import sys
from pathlib import Path
from hoi_assets.tinyworld.scenes.render import Quality
from hoi_assets.tinyworld.scenes.shards import RenderSettings, render_stream
settings = RenderSettings(Quality(32, 1))
render_stream(Path(sys.argv[1]), "pretrain", 15, int(sys.argv[2]), settings, shard_scenes=5)
"""


def start_render(out, workers=1):
    return subprocess.Popen(
        [sys.executable, "-c", RENDER, str(out), str(workers)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.slow
def test_killed_render_resumes_and_ends_with_equal_bits(tmp_path):
    pytest.importorskip("mitsuba")
    pytest.importorskip("anny")
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = start_render(killed)
    first = killed / "pretrain-00000.parquet"
    while not (first.is_file() and list((killed / "images").glob("pretrain-00001.*.part"))):
        assert process.poll() is None, "the render ended before it could be killed"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "pretrain-00002.parquet").is_file()
    assert len(read_pool(killed, "pretrain")) in (5, 10)
    made_at = first.stat().st_mtime_ns

    again, unbroken = start_render(killed), start_render(whole, workers=2)
    said, _ = again.communicate()
    unbroken.communicate()
    assert again.returncode == unbroken.returncode == 0
    assert "shards are there already" in said
    assert first.stat().st_mtime_ns == made_at
    assert contents(killed) == contents(whole)
    assert len(read_pool(whole, "pretrain")) == 15


@pytest.mark.slow
def test_stored_scene_is_drawn_again_with_equal_pixels(pool):
    pytest.importorskip("mitsuba")
    pytest.importorskip("anny")
    import io

    from hoi_assets.tinyworld.scenes.groups import plan_stored
    from hoi_assets.tinyworld.scenes.sample import render_group
    from hoi_assets.tinyworld.scenes.shards import WEBP_OPTIONS
    from hoi_assets.tinyworld.scenes.solving import load_world

    world = load_world(TAXONOMY)
    group = next(
        group
        for group in plan_stored(world.taxonomy)
        if group.split == "instance" and group.category == "platform"
    )
    scene = next(render_group(world, group))
    row = pool.filter(pl.col("scene_id") == scene.row["scene_id"]).row(0, named=True)
    buffer = io.BytesIO()
    scene.image.save(buffer, "WEBP", **WEBP_OPTIONS)
    assert scene.row["true_caption"] == row["true_caption"]
    assert digest_pixels(Image.open(buffer)) == row["digest"]


@pytest.mark.slow
def test_stored_twins_are_drawn_again_with_equal_pixels(twins):
    pytest.importorskip("mitsuba")
    pytest.importorskip("anny")
    from hoi_assets.tinyworld.scenes.groups import plan_judges
    from hoi_assets.tinyworld.scenes.shards import RenderSettings
    from hoi_assets.tinyworld.scenes.solving import load_world
    from hoi_assets.tinyworld.scenes.twins.picture import render_twins

    world = load_world(TAXONOMY)
    group = next(one for one in plan_judges(world.taxonomy) if one.split == "judge_val")
    _, drawn = next(render_twins(world, group, RenderSettings().quality_of(group.split)))
    stored = twins.filter(pl.col("scene_id") == drawn["scene_id"]).row(0, named=True)
    same = [name for name in stored if name != "camera"]  # stored in fewer digits
    assert {name: drawn[name] for name in same} == {name: stored[name] for name in same}


def test_a_filled_study_is_counted_without_a_pool(capsys):
    from hoi_assets.tinyworld.scenes.pool import main

    assert main(["--study", str(TAXONOMY.parent / "eye_labels" / "twins")]) == 0
    assert "| clean twins | 0.03 |" in capsys.readouterr().out


def test_streams_stay_close_to_their_stated_shares(taxonomy):
    pytest.importorskip("mitsuba")
    from hoi_assets.tinyworld.scenes.groups import plan_stream

    groups = plan_stream(taxonomy, "pretrain", 0, 8000)
    plans = [plan for group in groups for plan in group.plans]
    assert len(plans) == 8000
    assert 0.12 < plans.count("defect") / 8000 < 0.17
    assert 0.07 < plans.count("false_caption") / 8000 < 0.12
    alone = sum(len(group.plans) for group in groups if group.category is None)
    assert 0.06 < alone / 8000 < 0.10
    held_out = {
        (key, name)
        for key, category in taxonomy.categories.items()
        for name in category.held_out_objects
    }
    assert not {(g.category, name) for g in groups for name in g.objects} & held_out
