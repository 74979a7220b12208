"""The hand's promises: its shape, its joints, and defects that change what they say."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("anny")

from hoi_assets.errors import HoiError
from hoi_assets.tinyworld.scenes.hands.defect_rigs import (
    extra_finger,
    fused_fingers,
    missing_finger,
)
from hoi_assets.tinyworld.scenes.hands.model import boundary_loop, hand_model
from hoi_assets.tinyworld.scenes.hands.rig import (
    BONES,
    JOINT_NAMES,
    HandRig,
    HandShape,
    PosedHand,
    angles_vector,
    rotation,
)


@pytest.fixture(scope="module")
def rig() -> HandRig:
    return hand_model().rig(HandShape())


@pytest.fixture(scope="module")
def open_hand(rig: HandRig) -> PosedHand:
    return rig.pose({})


def joint(hand: PosedHand, name: str) -> np.ndarray:
    return hand.joints_3d[JOINT_NAMES.index(name)]


def length(hand: PosedHand, finger: int) -> float:
    """How far a finger's skin reaches from its knuckle, metres."""
    knuckle = hand.bone_poses[hand.bones.index(f"finger{finger}-1")][:3, 3]
    own = hand.vertices[hand.finger == finger - 1]
    return float(np.linalg.norm(own - knuckle, axis=1).max())


def test_equal_seeds_give_equal_hands_and_other_seeds_other_hands() -> None:
    assert HandShape.from_seed(4) == HandShape.from_seed(4)
    assert len({HandShape.from_seed(seed) for seed in range(20)}) == 20


def test_hand_is_of_human_size_with_fingers_where_the_frame_says(open_hand: PosedHand) -> None:
    wrist, middle = joint(open_hand, "wrist"), joint(open_hand, "middle_tip")
    assert 0.16 < np.linalg.norm(middle - wrist) < 0.23
    assert joint(open_hand, "thumb_tip")[0] > joint(open_hand, "index_tip")[0]
    assert joint(open_hand, "index_tip")[0] > joint(open_hand, "little_tip")[0]
    assert (open_hand.joints_3d[1:, 1] > 0).all()


def test_hand_surface_is_wound_outwards_and_open_only_at_the_forearms_end(
    open_hand: PosedHand,
) -> None:
    triangles = open_hand.vertices[open_hand.faces]
    volume = np.einsum("ni,ni->n", triangles[:, 0], np.cross(triangles[:, 1], triangles[:, 2]))
    assert volume.sum() / 6 > 1e-4
    loop = boundary_loop(open_hand.faces)
    assert len(set(loop)) == len(loop)
    assert open_hand.vertices[loop, 1].max() < -0.2


def test_posing_nothing_gives_the_surface_anny_gives(rig: HandRig, open_hand: PosedHand) -> None:
    import torch

    model = hand_model()
    with torch.no_grad():
        out = model._anny(
            phenotype_kwargs={
                name: torch.tensor([getattr(rig.shape, name)], dtype=torch.float64)
                for name in ("gender", "age", "muscle", "weight", "height", "proportions")
            }
        )
    expected = out["vertices"][0].numpy()
    ours = open_hand.vertices[: len(expected)]

    def spans(points: np.ndarray) -> np.ndarray:
        return np.linalg.norm(points[::7, None] - points[None, ::11], axis=2)

    np.testing.assert_allclose(spans(ours), spans(expected), atol=1e-6)


@pytest.mark.parametrize("finger", [2, 3, 4, 5])
def test_flexion_bends_a_finger_towards_the_palm_and_moves_no_other(
    rig: HandRig, open_hand: PosedHand, finger: int
) -> None:
    bent = rig.pose({f"finger{finger}-2": (1.0, 0.0, 0.0)})
    moved = bent.joints_3d - open_hand.joints_3d
    tip = 4 * finger
    assert moved[tip, 2] > 0.01
    others = [i for i in range(21) if not 4 * finger - 3 <= i <= tip]
    np.testing.assert_allclose(moved[others], 0.0, atol=1e-12)


def test_abduction_turns_towards_the_thumb(rig: HandRig, open_hand: PosedHand) -> None:
    spread = rig.pose({"finger2-1": (0.0, 0.3, 0.0)})
    assert joint(spread, "index_tip")[0] > joint(open_hand, "index_tip")[0] + 0.01


def test_rotation_is_proper_and_inverts_with_opposite_flexion() -> None:
    turn = rotation(0.7, 0.2, -0.3)[:3, :3]
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(turn) == pytest.approx(1.0)
    np.testing.assert_allclose(rotation(0.7) @ rotation(-0.7), np.eye(4), atol=1e-12)


def test_unknown_bone_is_named(rig: HandRig) -> None:
    with pytest.raises(HoiError, match="finger9-1"):
        rig.index("finger9-1")


@pytest.mark.parametrize("finger", [2, 3, 4, 5])
def test_missing_finger_leaves_a_closed_stump_and_the_other_fingers(
    rig: HandRig, open_hand: PosedHand, finger: int
) -> None:
    spoilt = missing_finger(rig, finger)
    hand = spoilt.pose({})
    assert length(hand, finger) < 0.45 * length(open_hand, finger)
    for other in {2, 3, 4, 5} - {finger}:
        assert length(hand, other) == pytest.approx(length(open_hand, other))
    assert len(spoilt.absent) == 1
    np.testing.assert_array_equal(hand.faces, open_hand.faces)
    np.testing.assert_allclose(spoilt.weights.sum(axis=1), 1.0)


@pytest.mark.parametrize(("beside", "between"), [(2, True), (3, True), (4, True), (5, False)])
def test_extra_finger_is_a_whole_finger_apart_from_the_others(
    rig: HandRig, open_hand: PosedHand, beside: int, between: bool
) -> None:
    spoilt = extra_finger(rig, beside, between)
    hand = spoilt.pose({})
    sixth = hand.vertices[hand.finger == 5]
    assert len(sixth) > 150
    poses = spoilt.bone_poses({})
    tip = spoilt.tip(poses, 6)
    tips = [spoilt.tip(poses, finger) for finger in (1, 2, 3, 4, 5)]
    assert min(np.linalg.norm(tip - other) for other in tips) > 0.012
    knuckle = poses[spoilt.index("finger6-1")][:3, 3]
    palm = hand.vertices[hand.finger == -1]
    assert np.linalg.norm(palm - knuckle, axis=1).min() < 0.015
    assert hand.faces.max() == len(hand.vertices) - 1


@pytest.mark.parametrize("finger", [2, 3, 4])
def test_fused_fingers_lie_inside_one_another_along_their_length(
    rig: HandRig, open_hand: PosedHand, finger: int
) -> None:
    hand = fused_fingers(rig, finger).pose({})

    def apart(of: PosedHand) -> float:
        joints = of.joints_3d
        return max(
            float(np.linalg.norm(joints[4 * finger - 3 + i] - joints[4 * finger + 1 + i]))
            for i in (1, 2)
        )

    assert apart(hand) < 0.75 * apart(open_hand)
    assert len(hand.vertices) == len(open_hand.vertices)


def test_angles_vector_holds_three_angles_of_each_bone_in_order() -> None:
    vector = angles_vector({"finger2-1": (0.5, 0.25, -0.125)})
    assert vector.shape == (60,)
    place = 3 * (BONES.index("finger2-1") - 1)
    np.testing.assert_array_equal(vector[place : place + 3], [0.5, 0.25, -0.125])
    assert np.count_nonzero(vector) == 3
