"""Bringing pads and a small object into opposition, as for a key, a bead or a pen."""

from __future__ import annotations

import numpy as np

from hoi_assets.grasp_specs import Pad
from hoi_assets.tinyworld.scenes.hands.contact import (
    PRESS_DEPTH_M,
    HandState,
    NearDistance,
    avoid,
    close,
    closing_of,
    settle,
)
from hoi_assets.tinyworld.scenes.hands.rig import HandRig, finger_of
from hoi_assets.tinyworld.scenes.rigid import Array, rotation_from_vector, unit
from hoi_assets.tinyworld.scenes.vocabulary import FINGERS


def pinch(state: HandState) -> None:
    """Bring pads and object into opposition by least squares, then close onto the real surface."""
    from scipy.optimize import least_squares

    rig, spec = state.rig, state.spec
    pads = [p for p in spec.pads if FINGERS[finger_of(p.bone)] not in rig.absent]
    spots = [_pad_vertex(rig, pad) for pad in pads]
    moving = []
    for finger in sorted({finger_of(p.bone) + 1 for p in pads}):
        for joint in (1, 2, 3):
            name = f"finger{finger}-{joint}"
            moving.append((name, 0, 22.0))
            if joint == 1:
                moving.append((name, 1, 10.0 if finger > 1 else 20.0))
                if finger == 1:
                    moving.append((name, 2, 20.0))
    prior = np.array([state.angles[name][axis] for name, axis, _ in moving])
    spread = np.radians([s for _, _, s in moving])
    start = state.object_pose.copy()
    half = np.array(state.obj.half_extents)
    faces = [unit(np.array(pad.face)) * np.array([state.mirror[0], 1, 1]) for pad in pads]
    surface = [_support_point(half, face, pad) for face, pad in zip(faces, pads, strict=True)]

    def place(x: Array) -> None:
        for value, (name, axis, _) in zip(x[6:], moving, strict=True):
            given = list(state.angles[name])
            given[axis] = float(value)
            state.angles[name] = (given[0], given[1], given[2])
        state.object_pose = start.copy()
        state.object_pose[:3, :3] = rotation_from_vector(x[3:6]) @ start[:3, :3]
        state.object_pose[:3, 3] = start[:3, 3] + x[:3]

    beside = _half_width(rig, spec.rests_on) if spec.rests_on else 0.0
    sample = np.flatnonzero(rig.bone != rig.index("root"))[::2]
    near = NearDistance(state, margin=0.0)

    def residuals(x: Array) -> Array:
        place(x)
        poses = rig.bone_poses(state.angles)
        rotation = state.object_pose[:3, :3]
        # Each residual is divided by the deviation (radians or metres) that counts as 1.
        out = [(x[6:] - prior) / spread, x[:3] / 0.02, x[3:6] / 0.35]
        for pad, (row, bone, normal), face, target in zip(pads, spots, faces, surface, strict=True):
            point = rig.skin(poses, np.array([row]))[0]
            local = (point - state.object_pose[:3, 3]) @ rotation
            offset = local - target
            out.append([(offset @ face) / 0.0005])
            along = np.array([0.0, 0.0, 1.0])
            across = np.cross(along, face)
            out.append([(offset @ along) / 0.002])
            out.append([(offset @ across) / (0.002 if pad.across is not None else 0.02)])
            facing = (poses[bone][:3, :3] @ normal) @ rotation
            out.append((facing + face) / 0.35)
        if spec.rests_on:
            # A pen leans on the hand beside the index finger's knuckle.
            knuckle = poses[rig.index(spec.rests_on)]
            seat = knuckle[:3, 3] + knuckle[:3, 0] * (beside + half[0])
            local = (seat - state.object_pose[:3, 3]) @ rotation
            out.append(local[:2] / 0.004)
        inside = np.minimum(near(rig.skin(poses, sample)) + PRESS_DEPTH_M, 0.0)
        out.append(np.array([np.sqrt(np.sum(inside**2)) / 0.0005]))
        return np.concatenate(out)

    found = least_squares(
        residuals,
        np.concatenate([np.zeros(6), prior]),
        method="trf",
        max_nfev=40,
        ftol=1e-3,
        xtol=1e-4,
        x_scale=np.concatenate([np.full(3, 0.01), np.full(3, 0.2), spread]),
    )
    place(found.x)
    for finger in sorted({finger_of(p.bone) + 1 for p in pads}, reverse=True):
        settle(state, finger)
    for finger in (2, 3, 4, 5, 6):
        if finger not in {finger_of(p.bone) + 1 for p in pads}:
            if finger in (5, 6) and closing_of(state, finger):
                close(state, finger)
            else:
                avoid(state, finger)


def _support_point(half: Array, face: Array, pad: Pad) -> Array:
    """The point of the gripped part's surface that faces `face`, at the pad's place along z."""
    radius = 1.0 / np.sqrt((face[0] / half[0]) ** 2 + (face[1] / max(half[1], half[0])) ** 2)
    if abs(face[0]) > 0.99:
        radius = half[0]
    point = face * radius
    point[2] += pad.along
    point[1] += pad.across or 0.0
    return point


def _half_width(rig: HandRig, bone: str) -> float:
    """How far (m) the skin stands off the start of a bone on the thumb's side."""
    inverse = rig.inverse_rest[rig.index(bone)]
    local = rig.rest_vertices @ inverse[:3, :3].T + inverse[:3, 3]
    level = (np.abs(local[:, 1]) < 0.010) & (np.abs(local[:, 2]) < 0.008)
    return float(local[level & (local[:, 0] < 0.03), 0].max())


def _pad_vertex(rig: HandRig, pad: Pad) -> tuple[int, int, Array]:
    """The vertex in the middle of a pad, its bone, and the pad's normal in the bone's frame."""
    bone = rig.index(pad.bone)
    rows = np.flatnonzero(rig.bone == bone)
    local = (
        rig.rest_vertices[rows] @ rig.inverse_rest[bone][:3, :3].T + rig.inverse_rest[bone][:3, 3]
    )
    length = local[:, 1].max()
    if pad.part == "radial_side":
        normal, middle = np.array([1.0, 0.0, 0.0]), 0.55 * length
        off = local[:, 2]
    else:
        tilt = np.radians(25.0)
        normal, middle = np.array([0.0, np.sin(tilt), np.cos(tilt)]), 0.68 * length
        off = local[:, 0]
    score = local @ normal - 0.8 * np.abs(local[:, 1] - middle) - 0.8 * np.abs(off)
    return int(rows[np.argmax(score)]), bone, normal
