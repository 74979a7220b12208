"""How each method of a `GraspSpec` brings hand and object together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hoi_assets.tinyworld.scenes.hands.contact import (
    PRESS_DEPTH_M,
    HandState,
    approach,
    close,
    closing_of,
)
from hoi_assets.tinyworld.scenes.hands.model import hand_model
from hoi_assets.tinyworld.scenes.hands.rig import HandRig, HandShape
from hoi_assets.tinyworld.scenes.rigid import Array, unit

MEAN_KNUCKLE_M = 0.113


@dataclass(frozen=True)
class WornSection:
    """Inner half axes (m) of a band that fits: across the hand, and from palm to back."""

    half_x: float
    half_y: float


def worn_section(kind: str, shape_seed: int) -> WornSection:
    """Inner size of a ring or watch that fits the hand of `shape_seed`."""
    rig = hand_model().rig(HandShape.from_seed(shape_seed))
    _, half_x, half_y = _worn_place(rig, kind, rig.bone_poses({}))
    return WornSection(half_x, half_y)


def knuckle_height(rig: HandRig) -> float:
    """Distance (m) from the wrist to the middle finger's knuckle: the hand's size."""
    poses = rig.bone_poses({})
    return float(np.linalg.norm(poses[rig.index("finger3-1")][:3, 3]))


def wrap(state: HandState) -> None:
    """Bring the object to the palm and close the fingers round it."""
    approach(state)
    for _ in range(3):
        for finger in (2, 3, 4, 5, 6):
            close(state, finger)
        close(state, 1)
        # A moving thumb takes skin of the palm with it: make room and close again.
        if float(state.distance(state.skin(state.palm_rows)).min()) > -2.0 * PRESS_DEPTH_M:
            break
        approach(state)


def rest(state: HandState) -> None:
    """Lay the object on the open hand."""
    approach(state)
    for finger in (1, 2, 3, 4, 5, 6):
        if closing_of(state, finger):
            close(state, finger)


def press(state: HandState) -> None:
    """Put the surface under the index fingertip; the finger stands as flat as the fist allows."""
    rig = state.rig
    if "index" in rig.absent:
        _press_with(state, 3)
        return
    _press_with(state, 2)
    close(state, 1)


def _press_with(state: HandState, finger: int) -> None:
    rig = state.rig
    poses = rig.bone_poses(state.angles)
    last = poses[rig.index(f"finger{finger}-3")]
    along, palmar = last[:3, 1], last[:3, 2]
    points = state.skin(np.flatnonzero(rig.bone != rig.index("root")))
    height = 2.0 * state.obj.half_extents[2]
    tip = state.skin(np.flatnonzero(rig.finger == finger - 1))
    for steep in np.radians(np.arange(38.0, 86.0, 4.0)):
        # Outward normal of the surface: against the finger's direction, tilted to face its pad.
        normal = unit(-np.sin(steep) * along - np.cos(steep) * palmar)
        thin = np.array([1.0, 0.0, 0.0])
        thin = unit(thin - normal * (thin @ normal))
        touch = tip[np.argmin(tip @ normal)]
        state.object_pose[:3, :3] = np.column_stack([thin, np.cross(normal, thin), normal])
        state.object_pose[:3, 3] = touch + normal * PRESS_DEPTH_M
        over_table = float((points @ normal).min() - touch @ normal) + height
        if over_table > 0.004 and float(state.distance(points).min()) > -2.0 * PRESS_DEPTH_M:
            break


def wear(state: HandState) -> None:
    """Put the object round its finger or wrist."""
    pose, _, _ = _worn_place(state.rig, state.obj.kind, state.rig.bone_poses(state.angles))
    state.object_pose = pose


def _worn_place(rig: HandRig, kind: str, poses: Array) -> tuple[Array, float, float]:
    """Pose of a band's hole and its inner half axes: a ring on the ring finger (the middle one when
    it is missing), a watch on the wrist."""
    skin = rig.skin(poses)
    if kind == "watch":
        frame = np.eye(4)
        frame[:3, 3] = np.array([0.0, -0.030 * knuckle_height(rig) / MEAN_KNUCKLE_M, 0.0])
        rows = rig.finger < 0
        width = 0.016
    else:
        finger = 4 if "ring" not in rig.absent else 3
        frame = poses[rig.index(f"finger{finger}-1")].copy()
        length = np.linalg.norm(poses[rig.index(f"finger{finger}-2")][:3, 3] - frame[:3, 3])
        frame[:3, 3] = frame[:3, 3] + frame[:3, 1] * length * 0.55
        rows = rig.finger == finger - 1
        width = 0.004
    local = (skin[rows] - frame[:3, 3]) @ frame[:3, :3]
    section = local[np.abs(local[:, 1]) < width]
    for widen in (1.5, 2.5, 4.0):
        if len(section) >= 8:
            break
        section = local[np.abs(local[:, 1]) < width * widen]
    low, high = section.min(axis=0), section.max(axis=0)
    middle = 0.5 * (low + high)
    pose = np.eye(4)
    # Object axes: x across the hand, y towards its back, z along the bone.
    pose[:3, :3] = np.column_stack([frame[:3, 0], -frame[:3, 2], frame[:3, 1]])
    pose[:3, 3] = frame[:3, 3] + frame[:3, 0] * middle[0] + frame[:3, 2] * middle[2]
    return pose, float(high[0] - low[0]) / 2, float(high[2] - low[2]) / 2
