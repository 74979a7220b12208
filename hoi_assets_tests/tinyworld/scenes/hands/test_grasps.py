"""A solved grasp touches what its category says, without passing through it."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("anny")
pytest.importorskip("trimesh")

from hoi_assets.errors import HoiError
from hoi_assets.grasp_specs import GraspSpec, read_grasps
from hoi_assets.tinyworld.scenes.hands.contact import NearDistance
from hoi_assets.tinyworld.scenes.hands.defect_poses import HAND_DEFECTS, OBJECT_DEFECTS
from hoi_assets.tinyworld.scenes.hands.grasps import Grasp, solve_grasp
from hoi_assets.tinyworld.scenes.hands.methods import worn_section
from hoi_assets.tinyworld.scenes.objects.catalogue import make_object
from hoi_assets.tinyworld.scenes.objects.shape import ObjectShape

FILE = Path(__file__).parents[4] / "data" / "taxonomy" / "grasps.yaml"
SPECS = read_grasps(FILE)
OBJECTS = {
    "power_wrap": ("bottle", "can", "stick", "mug"),
    "power_sphere": ("ball", "apple", "egg"),
    "hook": ("bag", "stick", "bucket"),
    "lateral_pinch": ("key", "card", "coin"),
    "tip_pinch": ("bead", "coin", "die"),
    "tripod": ("pen", "brush", "spoon"),
    "palmar_pinch": ("book", "phone", "card"),
    "platform": ("plate", "book", "ball"),
    "index_press": ("button", "bell", "phone"),
    "worn": ("ring", "watch"),
    "bimanual": ("ball", "box", "bowl"),
    "occluded": ("box", "book", "mug"),
}
PAIRS = [(category, kind) for category, kinds in OBJECTS.items() for kind in kinds]
MAX_CONTACT_MM = 3.0
MAX_PENETRATION_MM = 4.0


@lru_cache(maxsize=64)
def held(category: str, kind: str, seed: int = 1) -> ObjectShape:
    hole = None
    if category == "worn":
        section = worn_section(kind, seed)
        hole = (section.half_x, section.half_y)
    return make_object(kind, SPECS[category].grip_of(kind), 0.5, hole=hole)


@lru_cache(maxsize=256)
def solved(
    category: str, kind: str, seed: int = 1, side: str = "right", defect: str | None = None
) -> Grasp:
    return solve_grasp(
        category,
        SPECS[category],
        held(category, kind, seed),
        shape_seed=seed,
        jitter_seed=seed,
        side=side,
        defects=(defect,) if defect else (),
    )


def skin_distance(grasp: Grasp, obj: ObjectShape) -> np.ndarray:
    """Signed distance (m) of the hands' skin to the object where it lies, worked out afresh."""
    skin = np.concatenate([hand.vertices for hand in grasp.hands])
    local = (skin - grasp.object_pose[:3, 3]) @ grasp.object_pose[:3, :3]
    return obj.signed_distance(local)


@pytest.mark.parametrize(("category", "kind"), PAIRS)
def test_clean_grasp_touches_where_its_category_says_and_does_not_pass_through(
    category: str, kind: str
) -> None:
    grasp = solved(category, kind)
    assert grasp.missing_contacts == ()
    assert grasp.contact_mm <= MAX_CONTACT_MM
    assert grasp.penetration_mm <= MAX_PENETRATION_MM
    nearest = 1000 * skin_distance(grasp, held(category, kind)).min()
    assert -min(nearest, 0.0) == pytest.approx(grasp.penetration_mm, abs=0.01)
    assert nearest <= MAX_CONTACT_MM


def test_every_category_is_specified_and_its_fingers_exist() -> None:
    assert set(SPECS) == set(OBJECTS)
    names = {"palm", "wrist", *(f"finger{i}" for i in range(1, 6))}
    names |= {f"finger{i}-{j}" for i in range(1, 6) for j in (1, 2, 3)}
    for spec in SPECS.values():
        assert set(spec.contacts) <= names
        assert set(spec.views) == {"front", "side", "above"}


@pytest.mark.parametrize("category", ["tip_pinch", "hook", "bimanual"])
def test_equal_arguments_give_equal_grasps(category: str) -> None:
    kind = OBJECTS[category][0]
    again = solve_grasp(
        category, SPECS[category], held(category, kind), shape_seed=1, jitter_seed=1
    )
    first = solved(category, kind)
    for a, b in zip(first.hands, again.hands, strict=True):
        np.testing.assert_array_equal(a.vertices, b.vertices)
    np.testing.assert_array_equal(first.object_pose, again.object_pose)
    assert first.contacts == again.contacts


def test_seeds_change_the_hand_and_the_pose() -> None:
    one, two = solved("hook", "stick", 1), solved("hook", "stick", 2)
    assert one.hands[0].vertices.shape == two.hands[0].vertices.shape
    assert not np.allclose(one.joint_angles, two.joint_angles, atol=1e-3)


def test_left_hand_of_a_symmetric_object_mirrors_the_right() -> None:
    right, left = solved("power_sphere", "ball"), solved("power_sphere", "ball", side="left")
    mirrored = right.hands[0].vertices * [-1.0, 1.0, 1.0]
    np.testing.assert_allclose(left.hands[0].vertices, mirrored, atol=1e-4)
    assert np.linalg.det(left.object_pose[:3, :3]) == pytest.approx(1.0)


def test_left_hand_touches_an_asymmetric_object_where_it_lies() -> None:
    left = solved("power_wrap", "mug", side="left")
    nearest = 1000 * skin_distance(left, held("power_wrap", "mug")).min()
    assert nearest == pytest.approx(-left.penetration_mm, abs=0.01)
    assert left.missing_contacts == ()


def test_two_hands_hold_one_object_from_both_sides() -> None:
    grasp = solved("bimanual", "box")
    assert grasp.side == "both"
    assert [hand.side for hand in grasp.hands] == ["right", "left"]
    sides = [np.sign(hand.joints_3d[:, 0].mean()) for hand in grasp.hands]
    assert sorted(sides) == [-1.0, 1.0]
    assert grasp.joints_3d.shape == (42, 3)


def test_pressed_object_stands_on_the_table_and_the_hand_stays_above_it() -> None:
    for kind in OBJECTS["index_press"]:
        grasp = solved("index_press", kind)
        assert grasp.support_z is not None
        hand = grasp.hands[0]
        assert hand.joints_3d[:, 2].min() > grasp.support_z
        mesh = held("index_press", kind).mesh.vertices
        bottom = mesh @ grasp.object_pose[:3, :3].T + grasp.object_pose[:3, 3]
        assert bottom[:, 2].min() == pytest.approx(grasp.support_z, abs=0.004)


def test_plate_lies_level_on_an_upturned_palm() -> None:
    grasp = solved("platform", "plate")
    assert grasp.object_pose[2, 2] > np.cos(np.radians(15.0))
    assert (grasp.hands[0].joints_3d[:, 2] < 0.03).all()


def test_bag_hangs_below_the_fingers_that_carry_it() -> None:
    grasp = solved("hook", "bag")
    mesh = held("hook", "bag").mesh.vertices @ grasp.object_pose[:3, :3].T
    assert mesh[:, 2].mean() < grasp.hands[0].joints_3d[:, 2].mean() - 0.05


def test_pinch_opposes_thumb_and_index_across_the_object() -> None:
    grasp = solved("tip_pinch", "die")
    joints = grasp.hands[0].joints_3d
    rotation, origin = grasp.object_pose[:3, :3], grasp.object_pose[:3, 3]
    thumb, index = ((joints[i] - origin) @ rotation for i in (4, 8))
    assert thumb[0] < 0 < index[0]


def test_ring_goes_round_the_ring_finger() -> None:
    grasp = solved("worn", "ring")
    hand = grasp.hands[0]
    local = (hand.vertices - grasp.object_pose[:3, 3]) @ grasp.object_pose[:3, :3]
    inside = np.abs(local[:, 2]) < 0.003
    section = worn_section("ring", 1)
    reach = (local[:, 0] / section.half_x) ** 2 + (local[:, 1] / section.half_y) ** 2
    assert set(hand.finger[inside & (reach < 1.2)]) == {3}


@pytest.mark.parametrize("category", ["power_wrap", "tip_pinch", "platform"])
def test_floating_object_is_two_to_six_centimetres_clear_of_the_hand(category: str) -> None:
    kind = OBJECTS[category][0]
    grasp = solved(category, kind, defect="floating")
    gap = skin_distance(grasp, held(category, kind)).min()
    assert 0.019 < gap < 0.06
    assert grasp.contacts == ()


@pytest.mark.parametrize("category", ["power_wrap", "power_sphere", "tip_pinch", "occluded"])
def test_penetrating_object_is_inside_the_hand(category: str) -> None:
    kind = OBJECTS[category][0]
    clean = solved(category, kind)
    spoilt = solved(category, kind, defect="penetrating")
    assert spoilt.penetration_mm > MAX_PENETRATION_MM
    moved = np.linalg.norm(
        spoilt.object_pose[:3, :3].T @ (spoilt.hands[0].joints_3d[0])
        - clean.object_pose[:3, :3].T @ clean.hands[0].joints_3d[0]
    )
    assert 0.008 < moved < 0.032
    np.testing.assert_array_equal(spoilt.joint_angles, clean.joint_angles)


def test_bent_joint_turns_one_joint_backwards_and_leaves_the_rest() -> None:
    clean, spoilt = solved("worn", "ring"), solved("worn", "ring", defect="bent_joint")
    changed = np.flatnonzero(clean.joint_angles != spoilt.joint_angles)
    assert len(changed) == 1
    assert -81.0 < np.degrees(spoilt.joint_angles[changed[0]]) < -49.0
    np.testing.assert_array_equal(clean.object_pose, spoilt.object_pose)


def test_missing_finger_is_named_and_touches_nothing() -> None:
    for seed in range(1, 6):
        grasp = solved("power_wrap", "bottle", seed, defect="missing_finger")
        assert len(grasp.absent_fingers) == 1
        place = ("thumb", "index", "middle", "ring", "little").index(grasp.absent_fingers[0]) + 1
        tips = {f"finger{place}-2", f"finger{place}-3"}
        assert not tips & set(grasp.contacts)


def test_extra_finger_closes_on_the_object_like_the_others() -> None:
    obj = held("power_wrap", "bottle")
    grasp = solved("power_wrap", "bottle", defect="extra_finger")
    hand = grasp.hands[0]
    sixth = hand.vertices[hand.finger == 5]
    local = (sixth - grasp.object_pose[:3, 3]) @ grasp.object_pose[:3, :3]
    nearest = 1000 * obj.signed_distance(local).min()
    assert -MAX_PENETRATION_MM <= nearest <= MAX_CONTACT_MM


def test_defect_leaves_the_rest_of_the_twin_as_it_was() -> None:
    clean = solved("worn", "watch")
    for defect in HAND_DEFECTS:
        spoilt = solved("worn", "watch", defect=defect)
        np.testing.assert_allclose(spoilt.object_pose, clean.object_pose, atol=0.002)
        assert spoilt.defects == (defect,)


def test_unknown_defect_and_wrong_size_are_refused_with_their_names() -> None:
    obj = held("power_wrap", "bottle")
    with pytest.raises(HoiError, match="melted"):
        solve_grasp(
            "power_wrap", SPECS["power_wrap"], obj, shape_seed=1, jitter_seed=1, defects=("melted",)
        )
    with pytest.raises(HoiError, match="bottle is"):
        solve_grasp("lateral_pinch", SPECS["lateral_pinch"], obj, shape_seed=1, jitter_seed=1)
    assert not set(HAND_DEFECTS) & set(OBJECT_DEFECTS)


def test_near_distance_never_overstates_and_is_exact_close_by() -> None:
    class Held:
        obj = held("power_wrap", "bottle")

        def local(self, points: np.ndarray) -> np.ndarray:
            return points

    rng = np.random.default_rng(3)
    points = rng.normal(size=(300, 3)) * 0.05
    near = NearDistance(Held(), margin=0.002)  # type: ignore[arg-type]
    near(points)
    for _ in range(20):
        points = points + rng.normal(size=points.shape) * 0.001
        exact, given = Held.obj.signed_distance(points), near(points)
        assert (given <= exact + 1e-9).all()
        close = exact < 0.002
        np.testing.assert_allclose(given[close], exact[close])


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("hook: [1, 2", r"grasps\.yaml:\d+: file: is not valid YAML"),
        ("hook:\n  method: squeeze\n", r"grasps\.yaml:2: hook\.method"),
        ("just words", r"grasps\.yaml:1: file: must hold"),
    ],
)
def test_broken_grasps_file_names_file_and_field(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "grasps.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(HoiError, match=named) as caught:
        read_grasps(path)
    assert "grasps.yaml" in str(caught.value)


def test_spec_rejects_a_misspelt_field_by_name() -> None:
    raw = SPECS["hook"].model_dump()
    with pytest.raises(ValueError, match="thumbs"):
        GraspSpec.model_validate({**raw, "thumbs": 1})
