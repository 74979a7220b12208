"""Pictures held against their geometry; needs the extra `scenes`."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("mitsuba")
pytest.importorskip("anny")

from hoi_assets.grammar.vocabulary import COLOURS, VIEWS
from hoi_assets.tinyworld.scenes.camera import FIELD_OF_VIEW_DEG, aim
from hoi_assets.tinyworld.scenes.groups import Group
from hoi_assets.tinyworld.scenes.materials import COLOUR_SRGB
from hoi_assets.tinyworld.scenes.objects.catalogue import make_object
from hoi_assets.tinyworld.scenes.render import (
    PICTURE_SIZE,
    VISIBLE_PIXELS,
    Quality,
    read_labels,
    render_stage,
)
from hoi_assets.tinyworld.scenes.sample import MIN_DEFECT_PIXELS, revealing_camera
from hoi_assets.tinyworld.scenes.shards import TAXONOMY
from hoi_assets.tinyworld.scenes.solving import (
    MAX_CONTACT_MM,
    MAX_PENETRATION_MM,
    load_world,
    solve_group,
    stage_of_grasp,
)
from hoi_assets.tinyworld.scenes.stage import Look, Stage
from hoi_assets.tinyworld.scenes.vocabulary import FINGERS

PLAIN = Look("red", "rubber", "tan", "soft light", "grey wall", seed=5)


@pytest.fixture(scope="module")
def world():
    return load_world(TAXONOMY)


@pytest.fixture(scope="module")
def sphere_grasp(world):
    group = Group(
        "examiner", 3, 15, "power_sphere", ("ball",), "missing_finger", ("clean", "defect")
    )
    return solve_group(world, group)


@pytest.fixture(scope="module")
def stage(sphere_grasp):
    grasp, _, shape = sphere_grasp
    return stage_of_grasp(grasp, shape)


def ball_stage():
    shape = make_object("ball", None)
    low, high = shape.bounds
    return Stage((), shape.surfaces, (low + high) / 2, 1.2 * high[2], None, np.zeros((0, 3)))


def nearest_colour(pixels):
    tones = np.array([COLOUR_SRGB[name] for name in COLOURS], dtype=float)
    return COLOURS[int(np.linalg.norm(tones - np.median(pixels, axis=0), axis=1).argmin())]


@pytest.mark.parametrize("colour", COLOURS)
def test_painted_pixels_are_nearest_to_the_asked_colour(colour):
    scene = ball_stage()
    camera = aim(scene, (0, -1, 0.2), seed=1)
    for material in ("plastic", "rubber"):
        look = replace(PLAIN, colour=colour, material=material)
        picture = render_stage(scene, camera, look, Quality(40, 4))
        pixels = np.asarray(picture.image)[picture.view.paint_mask]
        assert len(pixels) > 300
        assert nearest_colour(pixels) == colour


def test_equal_arguments_give_equal_pixels_and_another_seed_does_not(stage, sphere_grasp):
    camera = aim(stage, sphere_grasp[0].views["front"], seed=2)
    draw = [render_stage(stage, camera, PLAIN, Quality(32, 2)) for _ in range(2)]
    assert draw[0].image.tobytes() == draw[1].image.tobytes()
    other = render_stage(stage, camera, replace(PLAIN, seed=6), Quality(32, 2))
    assert other.image.tobytes() != draw[0].image.tobytes()


@pytest.mark.parametrize("view", VIEWS)
def test_joints_project_into_hand_or_object(stage, sphere_grasp, view):
    camera = aim(stage, sphere_grasp[0].views[view], seed=3)
    seen = read_labels(stage, camera)
    joints = camera.project(stage.joints_3d, PICTURE_SIZE)
    inside = ((joints >= 0) & (joints < PICTURE_SIZE)).all(axis=1)
    assert inside.mean() > 0.9
    for x, y in joints[inside].astype(int):
        around = seen[max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3]
        assert (around >= 0).any()


def test_masks_are_apart_and_fill_the_frame_sensibly(stage, sphere_grasp):
    camera = aim(stage, sphere_grasp[0].views["front"], seed=4)
    picture = render_stage(stage, camera, PLAIN, Quality(64, 1))
    assert not (picture.view.hand_mask & picture.view.object_mask).any()
    assert (picture.view.paint_mask <= picture.view.object_mask).all()
    assert 0.08 < picture.view.hand_mask.mean() < 0.6
    assert 0.01 < picture.view.object_mask.mean() < 0.4


def test_a_sphere_covers_the_area_its_radius_and_distance_ask_for():
    scene = ball_stage()
    camera = aim(scene, (0, -1, 0.2), seed=1, jitter=0.0)
    seen = read_labels(scene, camera, Quality(96))
    radius = make_object("ball", None).half_extents[0]
    distance = np.linalg.norm(np.subtract(camera.eye, camera.target))
    spread = np.tan(np.radians(FIELD_OF_VIEW_DEG) / 2)
    rim = np.tan(np.arcsin(radius / distance)) / spread * 48
    assert (seen == 0).sum() == pytest.approx(np.pi * rim**2, rel=0.06)


def test_visible_fingers_are_those_with_pixels(stage, sphere_grasp):
    camera = aim(stage, sphere_grasp[0].views["front"], seed=4)
    picture = render_stage(stage, camera, PLAIN, Quality(samples_per_pixel=1))
    seen = read_labels(stage, camera)
    for number, finger in enumerate(FINGERS):
        shown = (seen == 11 + number).sum() >= VISIBLE_PIXELS
        assert (finger in picture.view.visible_fingers) == shown


def test_mirrored_stage_gives_the_mirrored_masks(stage, sphere_grasp):
    direction = sphere_grasp[0].views["front"]
    right = read_labels(stage, aim(stage, direction, 1, jitter=0.0))
    flip = np.array([-1.0, 1.0, 1.0])
    mirrored = stage.mirrored()
    left = read_labels(mirrored, aim(mirrored, direction * flip, 1, jitter=0.0))
    assert (left[:, ::-1] == right).mean() > 0.98


def test_camera_for_a_defect_shows_it_at_least_as_well_as_the_asked_view(sphere_grasp):
    clean, spoilt, shape = sphere_grasp
    assert spoilt.defects == ("missing_finger",)
    whole, marred = (stage_of_grasp(grasp, shape) for grasp in (clean, spoilt))
    words = {"view": "front", "seed": 9}
    _, chosen = revealing_camera(marred, whole, clean.views, words)
    asked = aim(whole, clean.views["front"], words["seed"])
    changed = [
        int((read_labels(whole, camera) != read_labels(marred, camera)).sum())
        for camera in (chosen, asked)
    ]
    assert changed[0] >= changed[1]
    assert changed[0] >= MIN_DEFECT_PIXELS / 2


def test_clean_grasp_touches_without_sinking_in(sphere_grasp):
    grasp, _, shape = sphere_grasp
    assert grasp.contact_mm <= MAX_CONTACT_MM
    local = (grasp.hands[0].vertices - grasp.object_pose[:3, 3]) @ grasp.object_pose[:3, :3]
    assert -1000 * shape.signed_distance(local).min() <= MAX_PENETRATION_MM


def test_camera_stays_above_the_table(stage):
    table = replace(stage, support_z=float(stage.centre[2]))
    for seed in range(20):
        camera = aim(table, (0.85, -0.6, 0.0), seed)
        assert camera.eye[2] > table.support_z
