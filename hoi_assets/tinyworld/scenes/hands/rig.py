"""A right hand's skeleton and skin, ready to be posed; a left hand is its mirror image.

Posing is plain linear blend skinning, so that one finger can be moved alone.

Hand frame, metres: origin at the wrist joint, x towards the thumb, y towards the fingertips, z out
of the palm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hoi_assets.errors import HoiError
from hoi_assets.tinyworld.scenes.rigid import Array
from hoi_assets.tinyworld.scenes.vocabulary import FINGERS

Angles = Mapping[str, tuple[float, float, float]]
BONES = (
    "root",
    "wrist",
    *(
        name
        for finger in range(1, 6)
        for name in (
            *((f"metacarpal{finger - 1}",) if finger > 1 else ()),
            *(f"finger{finger}-{joint}" for joint in (1, 2, 3)),
        )
    ),
)
JOINT_NAMES = (
    "wrist",
    *(
        f"{finger}_{part}"
        for finger in FINGERS
        for part in (
            ("cmc", "mcp", "ip", "tip") if finger == "thumb" else ("mcp", "pip", "dip", "tip")
        )
    ),
)
PALM = -1


@dataclass(frozen=True)
class HandShape:
    """Anny's phenotype, each value in 0..1 (age 0.6 is a young adult, gender 0 is male)."""

    gender: float = 0.5
    age: float = 0.66
    muscle: float = 0.5
    weight: float = 0.5
    height: float = 0.5
    proportions: float = 0.5

    @classmethod
    def from_seed(cls, seed: int) -> HandShape:
        """Draw an adult's hand; equal seeds give equal shapes."""
        rng = np.random.default_rng([seed, 0x5A])
        values = rng.random(6)
        return cls(
            gender=round(float(values[0]), 3),
            age=round(0.60 + 0.3 * float(values[1]), 3),
            muscle=round(0.2 + 0.7 * float(values[2]), 3),
            weight=round(0.2 + 0.7 * float(values[3]), 3),
            height=round(0.42 + 0.16 * float(values[4]), 3),
            proportions=round(float(values[5]), 3),
        )


@dataclass(frozen=True)
class PosedHand:
    """One posed right hand in the hand frame.

    vertices (V, 3) metres; faces (F, 3) wound outwards; joints_3d (21, 3) in `JOINT_NAMES` order;
    finger (V,) with -1 palm and forearm, 0..4 thumb to little finger, 5 a sixth finger;
    bone (V,) index into `bones` of the bone that moves the vertex most; bone_poses (B, 4, 4).
    """

    vertices: Array
    faces: NDArray[np.int64]
    joints_3d: Array
    finger: NDArray[np.int8]
    bone: NDArray[np.int64]
    bones: tuple[str, ...]
    bone_poses: Array


@dataclass(frozen=True)
class HandRig:
    """A hand of one shape, ready to be posed: rest surface, skeleton and skinning weights.

    rest_vertices (V, 3); inverse_rest (B, 4, 4) world to bone at rest; local (B, 4, 4) bone in its
    parent's frame at the reference pose; weights (V, B) rows sum to 1; tips (T, 3) fingertip in the
    frame of its last bone; radius (B,) thickness of a finger round a bone, metres.
    copied: the finger that a sixth one is a copy of.
    """

    shape: HandShape
    bones: tuple[str, ...]
    parents: tuple[int, ...]
    rest_vertices: Array
    faces: NDArray[np.int64]
    inverse_rest: Array
    local: Array
    weights: Array
    finger: NDArray[np.int8]
    bone: NDArray[np.int64]
    tips: Mapping[str, tuple[float, float, float]]
    radius: Array
    absent: tuple[str, ...] = ()
    fused: tuple[int, int] | None = None
    copied: int | None = None

    @cached_property
    def places(self) -> dict[str, int]:
        """Place of each bone by name."""
        return {bone: i for i, bone in enumerate(self.bones)}

    @cached_property
    def levels(self) -> list[tuple[NDArray[np.int64], NDArray[np.int64] | None]]:
        """Bones by depth in the tree, each with its parents, so that a level is posed at once."""
        depth = [0] * len(self.bones)
        for i, parent in enumerate(self.parents):
            depth[i] = 0 if parent < 0 else depth[parent] + 1
        levels: list[tuple[NDArray[np.int64], NDArray[np.int64] | None]] = []
        for level in range(max(depth) + 1):
            rows = np.flatnonzero(np.array(depth) == level)
            above = np.array([self.parents[i] for i in rows]) if level else None
            levels.append((rows, above))
        return levels

    def index(self, bone: str) -> int:
        """Place of a bone; HoiError for a bone the hand has not."""
        if bone not in self.bones:
            raise HoiError(f"hand: no bone named {bone!r}", f"use one of {', '.join(self.bones)}")
        return self.bones.index(bone)

    def bone_poses(self, angles: Angles) -> Array:
        """Forward kinematics: (B, 4, 4) bone to hand frame. Angles are radians per bone:
        flexion towards the palm, abduction towards the thumb's side, twist about the bone."""
        turns = np.zeros((len(self.bones), 3))
        for bone, given in angles.items():
            turns[self.places[bone]] = given
        moved = self.local @ rotation(turns[:, 0], turns[:, 1], turns[:, 2])
        poses = np.empty_like(self.local)
        for rows, above in self.levels:
            poses[rows] = moved[rows] if above is None else poses[above] @ moved[rows]
        return poses

    def skin(self, poses: Array, rows: NDArray[Any] | slice | None = None) -> Array:
        """Linear blend skinning of the vertices `rows` (all when None) -> (n, 3)."""
        rows = slice(None) if rows is None else rows
        motion = (poses @ self.inverse_rest)[:, :3, :].reshape(len(poses), 12)
        blended = (self.weights[rows] @ motion).reshape(-1, 3, 4)
        rest = self.rest_vertices[rows]
        moved: Array = np.einsum("nij,nj->ni", blended[:, :, :3], rest) + blended[:, :, 3]
        return moved

    def joints(self, poses: Array) -> Array:
        """Joint positions (21, 3) in `JOINT_NAMES` order. A missing finger's lie in its stump."""
        points = [poses[self.index("wrist")][:3, 3]]
        for finger in range(1, 6):
            for joint in (1, 2, 3):
                points.append(poses[self.index(f"finger{finger}-{joint}")][:3, 3])
            points.append(self.tip(poses, finger))
        return np.array(points)

    def tip(self, poses: Array, finger: int) -> Array:
        """Fingertip (3,) of finger 1 (thumb) .. 5 (little), 6 for a sixth."""
        last = f"finger{finger}-3"
        point: Array = poses[self.index(last)] @ np.array([*self.tips[last], 1.0])
        return point[:3]

    def pose(self, angles: Angles) -> PosedHand:
        """Pose the whole hand."""
        poses = self.bone_poses(angles)
        return PosedHand(
            vertices=self.skin(poses),
            faces=self.faces,
            joints_3d=self.joints(poses),
            finger=self.finger,
            bone=self.bone,
            bones=self.bones,
            bone_poses=poses,
        )


def rotation(flexion: Any, abduction: Any = 0.0, twist: Any = 0.0) -> Array:
    """Joint rotation (..., 4, 4), radians: abduction first, then flexion, then twist."""
    f, a, t = (np.asarray(angle, dtype=float) for angle in (flexion, abduction, twist))
    cf, sf, ca, sa, ct, st = np.cos(f), np.sin(f), np.cos(-a), np.sin(-a), np.cos(t), np.sin(t)
    matrix = np.zeros((*np.broadcast(f, a, t).shape, 4, 4))
    # Rz(-abduction) Rx(flexion) Ry(twist), multiplied out.
    matrix[..., 0, 0] = ca * ct - sa * sf * st
    matrix[..., 0, 1] = -sa * cf
    matrix[..., 0, 2] = ca * st + sa * sf * ct
    matrix[..., 1, 0] = sa * ct + ca * sf * st
    matrix[..., 1, 1] = ca * cf
    matrix[..., 1, 2] = sa * st - ca * sf * ct
    matrix[..., 2, 0] = -cf * st
    matrix[..., 2, 1] = sf
    matrix[..., 2, 2] = cf * ct
    matrix[..., 3, 3] = 1.0
    return matrix


def finger_of(bone: str) -> int:
    """0..4 for a bone of thumb..little finger, 5 for a sixth finger's, -1 for palm and wrist."""
    return int(bone[len("finger")]) - 1 if bone.startswith("finger") else PALM


def angles_vector(angles: Angles) -> NDArray[np.float32]:
    """Angles of the 20 bones `BONES[1:]` as (60,) float32: flexion, abduction, twist, radians."""
    rows: Sequence[tuple[float, float, float]] = [angles.get(b, (0.0, 0.0, 0.0)) for b in BONES[1:]]
    return np.array(rows, dtype=np.float32).reshape(-1)
