"""Spoils the geometry of a solved grasp in one way, and leaves everything else where it is.

Only the first hand is spoilt. Lengths in metres, hand frame as in `hands.rig`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hoi_assets.tinyworld.scenes.hands.contact import HandState
from hoi_assets.tinyworld.scenes.hands.defect_poses import bend_backwards, displace_object
from hoi_assets.tinyworld.scenes.hands.defect_rigs import (
    SIXTH,
    extra_finger,
    fused_fingers,
    missing_finger,
    second_thumb,
    stretched_finger,
)
from hoi_assets.tinyworld.scenes.hands.grasps import Grasp, hand_to_world
from hoi_assets.tinyworld.scenes.hands.rig import HandRig
from hoi_assets.tinyworld.scenes.rigid import Array, axis_rotation, transform
from hoi_assets.tinyworld.scenes.stage import HandMesh

FOREARM = -2  # in HandMesh.finger, which calls the palm -1

Rng = np.random.Generator
LONG, SHORT = (1.6, 2.0), (0.35, 0.5)
WRIST_DEGREES = (75.0, 105.0)
SECOND_PALM_DEGREES = (40.0, 65.0)


@dataclass(frozen=True)
class SpoiltHand:
    """The first hand of a grasp, spoilt, and where the object is (4, 4), both in the world.

    Attributes:
        tips: (v,) vertices of the last phalanges.
        added: (v,) vertices of what the hand has too much of, which must show.
        fingers: 0 (thumb) to 4 (little), which must show in the twin, on `least_finger` pixels of
            128 x 128 each.
        least_tips: how many of the four long fingers' tips must show, so that they can be counted.
        stump: 0 to 4, whose stump must show, with the palm; None: no stump.
        thumb: whether the thumb must show as well, so that six fingers are one too many.
        plane: unit normal (3,) of the plane in which the defect shows; None: any.
        wrist: whether the wrist must show.
    """

    hand: HandMesh
    object_pose: Array
    tips: NDArray[np.bool_]
    added: NDArray[np.bool_] | None = None
    fingers: tuple[int, ...] = ()
    least_finger: int = 60
    least_tips: int = 0
    stump: int | None = None
    thumb: bool = False
    plane: Array | None = None
    wrist: bool = False


def clean_hands(grasp: Grasp) -> tuple[HandMesh, ...]:
    """The hands of a grasp, forearm and palm labelled apart."""
    return tuple(
        HandMesh(hand.vertices, hand.faces, _parts(state.rig))
        for hand, state in zip(grasp.hands, grasp.states, strict=True)
    )


def spoil_hand(kind: str, grasp: Grasp, rng: Rng) -> SpoiltHand | None:
    """Spoil a copy of the grasp's first hand; None where the defect never applies to the grasp."""
    return _SPOILERS[kind](grasp, rng)


def _posed(grasp: Grasp, rig: HandRig, angles: dict[str, tuple[float, float, float]]) -> SpoiltHand:
    """Another rig, or the same in another pose, in the place of the first hand."""
    vertices = rig.pose(angles).vertices
    placed = _placed(grasp, vertices, rig.faces, _parts(rig), finger_tips(rig))
    return replace(placed, added=rig.finger == SIXTH) if rig.copied else placed


def _placed(
    grasp: Grasp,
    vertices: Array,
    faces: NDArray[np.int64],
    parts: NDArray[np.int8],
    tips: NDArray[np.bool_],
) -> SpoiltHand:
    hand = HandMesh(transform(hand_to_world(grasp.states[0]), vertices), faces, parts)
    return SpoiltHand(hand, grasp.object_pose, tips)


def _parts(rig: HandRig) -> NDArray[np.int8]:
    """What each vertex belongs to: its finger, a sixth one's as that of the finger it copies; -1
    palm; FOREARM."""
    parts = rig.finger.copy()
    if rig.copied is not None:
        parts[parts == 5] = rig.copied - 1
    parts[rig.bone == rig.index("root")] = FOREARM
    return parts


def finger_tips(rig: HandRig) -> NDArray[np.bool_]:
    """Which vertices (v,) belong to the last phalanges."""
    last = np.array([bone.endswith("-3") for bone in rig.bones])
    tips: NDArray[np.bool_] = last[rig.bone]
    return tips


# --- fingers --------------------------------------------------------------------------------------


def _missing(grasp: Grasp, rng: Rng) -> SpoiltHand | None:
    state = grasp.states[0]
    worn = 4 if state.obj.kind == "ring" else 0
    finger = int(rng.choice([finger for finger in (1, 2, 3, 4, 5) if finger != worn]))
    placed = _posed(grasp, missing_finger(state.rig, finger), state.angles)
    least_tips = 0 if finger == 1 else 3
    return replace(placed, fingers=(finger - 1,), least_tips=least_tips, stump=finger - 1)


def _extra(grasp: Grasp, rng: Rng) -> SpoiltHand | None:
    state = grasp.states[0]
    between = bool(rng.random() < 0.7)
    beside = int(rng.integers(2, 5)) if between else 5
    angles = dict(state.angles)
    for joint in (1, 2, 3):
        one = np.array(angles[f"finger{beside}-{joint}"])
        other = np.array(angles[f"finger{beside + between}-{joint}"])
        flexion, abduction, twist = (one + other) / 2
        angles[f"finger6-{joint}"] = (float(flexion), float(abduction), float(twist))
    placed = _posed(grasp, extra_finger(state.rig, beside, between), angles)
    return replace(placed, least_tips=4, thumb=True)


def _doubled_thumb(grasp: Grasp, rng: Rng) -> SpoiltHand | None:
    state = grasp.states[0]
    turn = np.radians(rng.uniform(38.0, 60.0)) * (1 if rng.random() < 0.7 else -1)
    angles = dict(state.angles)
    for joint in (1, 2, 3):
        flexion, abduction, twist = angles[f"finger1-{joint}"]
        # Less bent than the first, so that the two stand apart.
        bend = flexion if joint == 1 else 0.5 * flexion
        angles[f"finger6-{joint}"] = (bend, abduction, twist)
    return _posed(grasp, second_thumb(state.rig, turn), angles)


def _fused(grasp: Grasp, rng: Rng) -> SpoiltHand | None:
    state = grasp.states[0]
    finger = int(rng.integers(2, 5))
    angles = dict(state.angles)
    for joint in (1, 2, 3):
        one = np.array(angles[f"finger{finger}-{joint}"])
        other = np.array(angles[f"finger{finger + 1}-{joint}"])
        flexion, abduction, twist = (one + other) / 2
        for each in (finger, finger + 1):
            angles[f"finger{each}-{joint}"] = (float(flexion), float(abduction), float(twist))
    placed = _posed(grasp, fused_fingers(state.rig, finger), angles)
    return replace(placed, fingers=(finger - 1, finger), least_finger=130, least_tips=3)


def _bent(grasp: Grasp, rng: Rng) -> SpoiltHand | None:
    state = replace(grasp.states[0], angles=dict(grasp.states[0].angles))
    bend_backwards(state, rng)
    return _posed(grasp, state.rig, state.angles)


def _wrong_length(grasp: Grasp, rng: Rng) -> SpoiltHand | None:
    state = grasp.states[0]
    finger = int(rng.integers(1, 6))
    factor = float(rng.uniform(*(LONG if rng.random() < 0.6 else SHORT)))
    placed = _posed(grasp, stretched_finger(state.rig, finger, factor), state.angles)
    least_tips = 3 if factor < 1.0 and finger > 1 else 0
    return replace(placed, fingers=(finger - 1,), least_tips=least_tips)


# --- hand and forearm -----------------------------------------------------------------------------


def _second_palm(grasp: Grasp, rng: Rng) -> SpoiltHand | None:
    """A second hand, half open, that grows from the same wrist."""
    state, rig = grasp.states[0], grasp.states[0].rig
    root = rig.index("root")
    grown = rig.bone != root
    inside = grown[rig.faces].all(axis=1)
    keep = np.unique(rig.faces[inside])
    renumber = np.full(len(grown), -1)
    renumber[keep] = np.arange(len(keep)) + len(grown)
    first = rig.pose(state.angles).vertices
    relaxed = {bone: (0.5 * f, a, t) for bone, (f, a, t) in state.angles.items()}
    wrist = rig.bone_poses(state.angles)[rig.index("wrist")][:3, 3]
    degrees = float(rng.uniform(*SECOND_PALM_DEGREES)) * (1 if rng.random() < 0.5 else -1)
    turn = axis_rotation(2, degrees) @ axis_rotation(0, float(rng.uniform(-25.0, 25.0)))
    turned = (rig.pose(relaxed).vertices - wrist) @ turn.T + wrist
    share = rig.weights[:, root, None]
    copied = share * first + (1.0 - share) * turned
    parts, tips = _parts(rig), finger_tips(rig)
    placed = _placed(
        grasp,
        np.concatenate([first, copied[keep]]),
        np.concatenate([rig.faces, renumber[rig.faces[inside]]]),
        np.concatenate([parts, parts[keep]]),
        np.concatenate([tips, tips[keep]]),
    )
    return replace(placed, added=np.arange(len(first) + len(keep)) >= len(first))


def _broken_wrist(grasp: Grasp, rng: Rng) -> SpoiltHand | None:
    """The forearm leaves the hand sideways, at an angle no wrist can take."""
    state, rig = grasp.states[0], grasp.states[0].rig
    if state.obj.kind == "watch":
        return None
    vertices = rig.pose(state.angles).vertices
    wrist = rig.bone_poses(state.angles)[rig.index("wrist")][:3, 3]
    degrees = float(rng.uniform(*WRIST_DEGREES)) * (1 if rng.random() < 0.5 else -1)
    turned = (vertices - wrist) @ axis_rotation(2, degrees).T + wrist
    share = rig.weights[:, rig.index("root"), None]
    bent = share * turned + (1.0 - share) * vertices
    # Seen along the palm it could be a wrist that bends as it may.
    plane = hand_to_world(state)[:3, 2]
    return replace(
        _placed(grasp, bent, rig.faces, _parts(rig), finger_tips(rig)), plane=plane, wrist=True
    )


# --- hand and object ------------------------------------------------------------------------------


def _displaced(defect: str) -> Callable[[Grasp, Rng], SpoiltHand | None]:
    def spoil(grasp: Grasp, rng: Rng) -> SpoiltHand | None:
        if defect == "penetrating" and grasp.states[0].spec.method in ("wear", "pinch", "press"):
            # Moved by a finger's width, the thing could be meant to be there.
            return None
        state: HandState = replace(grasp.states[0], object_pose=grasp.states[0].object_pose.copy())
        displace_object(state, defect, rng)
        before = grasp.states[0].object_pose
        if defect == "penetrating" and state.spec.method == "rest":
            # Half into the fingers: thin things would come out on their other side.
            state.object_pose[:3, 3] += 0.6 * (before[:3, 3] - state.object_pose[:3, 3])
        world, tips = hand_to_world(grasp.states[0]), finger_tips(state.rig)
        if grasp.support_z is None:
            moved = world @ state.object_pose @ np.linalg.inv(world @ before) @ grasp.object_pose
            return SpoiltHand(clean_hands(grasp)[0], moved, tips)
        # What stands on a table stays there: the hand moves.
        shift = before @ np.linalg.inv(state.object_pose)
        hand, posed = grasp.hands[0], state.rig.pose(state.angles)
        vertices = transform(world @ shift, posed.vertices)
        mesh = HandMesh(vertices, hand.faces, _parts(state.rig))
        return SpoiltHand(mesh, grasp.object_pose, tips)

    return spoil


_SPOILERS: dict[str, Callable[[Grasp, Rng], SpoiltHand | None]] = {
    "missing_finger": _missing,
    "extra_finger": _extra,
    "fused_fingers": _fused,
    "bent_joint": _bent,
    "floating": _displaced("floating"),
    "penetrating": _displaced("penetrating"),
    "doubled_thumb": _doubled_thumb,
    "second_palm": _second_palm,
    "wrong_length": _wrong_length,
    "broken_wrist": _broken_wrist,
}
GEOMETRY_DEFECTS = tuple(_SPOILERS)
