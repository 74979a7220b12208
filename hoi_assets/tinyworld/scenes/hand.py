"""A right hand that can be shaped, posed and spoilt on purpose; a left hand is its mirror image.

Surface and skeleton come from `anny` (a parametric body on MakeHuman assets). Anny is asked once
for each hand shape; posing is plain linear blend skinning here, so that one finger can be moved
alone.

Hand frame, metres: origin at the wrist joint, x towards the thumb, y towards the fingertips, z out
of the palm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hoi_assets.errors import HoiError
from hoi_assets.grammar.vocabulary import FINGERS

Array = NDArray[np.float64]
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
SIXTH_BONES = ("finger6-1", "finger6-2", "finger6-3")
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
PALM, SIXTH = -1, 5

# Anny's axes to the hand frame: its palm faces -x, its thumb is on +z.
_TO_HAND_FRAME = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
_FOREARM_LENGTH_M = 0.26
_FOREARM_RINGS = 9


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


class HandModel:
    """Anny's right hand as numpy arrays; `hand_model()` keeps one per process."""

    def __init__(self) -> None:
        import anny

        self._anny = anny.Anny(rig="anny-hand.R", topology="hand.R", skinning_method="lbs")
        bones = tuple(name.removesuffix(".R") for name in self._anny.bone_labels)
        order = [bones.index(name) for name in BONES]
        parents = list(self._anny.bone_parents)
        self.parents = tuple(
            -1 if parents[old] < 0 else BONES.index(bones[parents[old]]) for old in order
        )
        self._order = order
        self.weights: Array = self._anny.dense_vertex_bone_weights.numpy()[:, order].astype(float)
        self.faces: NDArray[np.int64] = self._anny.faces.numpy().astype(np.int64)

    @lru_cache(maxsize=64)  # noqa: B019 - one model lives as long as the process
    def rig(self, shape: HandShape) -> HandRig:
        """Build the rig of one shape (about 10 ms)."""
        import torch

        with torch.no_grad():
            out = self._anny(
                phenotype_kwargs={
                    name: torch.tensor([getattr(shape, name)], dtype=torch.float64)
                    for name in ("gender", "age", "muscle", "weight", "height", "proportions")
                }
            )
        to_hand = np.eye(4)
        to_hand[:3, :3] = _TO_HAND_FRAME
        reference = to_hand @ out["bone_poses"][0].numpy()[self._order]
        reference = _translated(reference, -reference[1][:3, 3])
        rest = out["rest_bone_poses"][0].numpy()[self._order]
        local = np.stack(
            [
                pose if parent < 0 else np.linalg.inv(reference[parent]) @ pose
                for pose, parent in zip(reference, self.parents, strict=True)
            ]
        )
        rig = _finish_rig(
            shape,
            rest,
            local,
            out["rest_vertices"][0].numpy(),
            self.faces,
            self.weights,
            self.parents,
        )
        return _with_forearm(rig)

    def pose(self, shape: HandShape, joint_angles: Angles) -> PosedHand:
        """Pose a hand of `shape`; angles as in `HandRig.bone_poses`."""
        return self.rig(shape).pose(joint_angles)


@lru_cache(maxsize=1)
def hand_model() -> HandModel:
    """The process's hand model. The first call takes seconds, or two minutes while anny builds its
    cache on a new machine."""
    return HandModel()


def _finish_rig(
    shape: HandShape,
    rest: Array,
    local: Array,
    vertices: Array,
    faces: NDArray[np.int64],
    weights: Array,
    parents: tuple[int, ...],
) -> HandRig:
    bone = weights.argmax(axis=1)
    finger = np.array([finger_of(BONES[b]) for b in bone], dtype=np.int8)
    inverse: Array = np.linalg.inv(rest).astype(np.float64)
    radius = np.full(len(BONES), 0.009)
    tips = {}
    for i, name in enumerate(BONES):
        if not name.startswith("finger"):
            continue
        own = _apply(inverse[i], vertices[(bone == i) & (weights[:, i] > 0.6)])
        radius[i] = np.hypot(own[:, 0], own[:, 2]).mean()
        if name.endswith("-3"):
            furthest = own[np.argsort(own[:, 1])[-4:]].mean(axis=0)
            tips[name] = (float(furthest[0]), float(furthest[1]), float(furthest[2]))
    return HandRig(
        shape=shape, bones=BONES, parents=parents, rest_vertices=vertices, faces=faces,
        inverse_rest=inverse, local=local, weights=weights, finger=finger, bone=bone, tips=tips,
        radius=radius,
    )  # fmt: skip


def finger_of(bone: str) -> int:
    """0..4 for a bone of thumb..little finger, 5 for a sixth finger's, -1 for palm and wrist."""
    return int(bone[len("finger")]) - 1 if bone.startswith("finger") else PALM


def _apply(matrix: Array, points: Array) -> Array:
    moved: Array = points @ matrix[:3, :3].T + matrix[:3, 3]
    return moved


def _translated(poses: Array, offset: Array) -> Array:
    moved = poses.copy()
    moved[:, :3, 3] += offset
    return moved


def boundary_loop(faces: NDArray[np.int64]) -> list[int]:
    """Vertices of the mesh's one open edge, in order round the hole, along the faces' winding."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    known = {(int(a), int(b)) for a, b in edges}
    following = {a: b for a, b in known if (b, a) not in known}
    start = min(following)
    loop = [start]
    while following[loop[-1]] != start:
        loop.append(following[loop[-1]])
    return loop


def _with_forearm(rig: HandRig) -> HandRig:
    """Continue the open wrist into a forearm, so that the picture's edge cuts it, not the mesh."""
    loop = boundary_loop(rig.faces)
    root = rig.index("root")
    # The forearm is laid out in the hand frame of the reference pose, then taken back to rest.
    motion = rig.local[root] @ rig.inverse_rest[root]
    ring = _apply(motion, rig.rest_vertices[loop])
    centre = ring.mean(axis=0)
    rings = []
    for step in range(1, _FOREARM_RINGS + 1):
        t = step / _FOREARM_RINGS
        widen = 1.0 + 0.55 * t**1.3
        # The cut is ragged; two rings on it is flat.
        flat = 1.0 - t if step < 3 else 0.0
        offset = (ring - centre) * np.array([widen, flat, widen * (1 + 0.12 * t)])
        along = np.array([0.0, -0.006 - _FOREARM_LENGTH_M * t**1.15, 0.0])
        rings.append(centre + along + offset)
    extra = np.concatenate(rings)
    back = np.linalg.inv(motion)
    vertices = np.concatenate([rig.rest_vertices, _apply(back, extra)])
    count, base = len(loop), len(rig.rest_vertices)
    faces = [rig.faces]
    previous = loop
    for step in range(_FOREARM_RINGS):
        current = [base + step * count + i for i in range(count)]
        for i in range(count):
            j = (i + 1) % count
            # The hole's edge runs along its own faces' winding; the neighbours run against it.
            faces.append(
                np.array(
                    [[previous[j], previous[i], current[i]], [previous[j], current[i], current[j]]]
                )
            )
        previous = current
    weights = np.zeros((len(vertices), len(rig.bones)))
    weights[:base] = rig.weights
    weights[base:, root] = 1.0
    return replace(
        rig,
        rest_vertices=vertices,
        faces=np.concatenate(faces),
        weights=weights,
        finger=np.concatenate([rig.finger, np.full(len(extra), PALM, np.int8)]),
        bone=np.concatenate([rig.bone, np.full(len(extra), root)]),
    )


def missing_finger(rig: HandRig, finger: int) -> HandRig:
    """Take finger 1 (thumb) .. 5 (little) off; what is left ends in a rounded stump."""
    first = rig.index(f"finger{finger}-1")
    chain = [rig.index(f"finger{finger}-{joint}") for joint in (1, 2, 3)]
    lengths = [float(np.linalg.norm(rig.local[b][:3, 3])) for b in chain[1:]]
    starts = dict(zip(chain, (0.0, lengths[0], lengths[0] + lengths[1]), strict=True))
    own = np.isin(rig.bone, chain)
    along = np.zeros(len(rig.bone))
    across = np.zeros((len(rig.bone), 2))
    for b in chain:
        rows = rig.bone == b
        points = _apply(rig.inverse_rest[b], rig.rest_vertices[rows])
        along[rows] = points[:, 1] + starts[b]
        across[rows] = points[:, [0, 2]]
    total = float(along[own].max())
    # A thumb's first bone lies in the palm.
    cut = (0.9 if finger == 1 else 0.25) * lengths[0]
    rows = own & (along > cut)
    t = (along[rows] - cut) / (total - cut)
    # Most of the finger's skin is folded into a dome as high as the finger is thick.
    angle = 0.5 * np.pi * np.clip(t / 0.55, 0.0, 1.0)
    dome = 0.8 * rig.radius[first]
    squeeze = np.cos(angle)[:, None]
    points = np.column_stack(
        [
            across[rows, 0] * squeeze[:, 0],
            cut + dome * np.sin(angle),
            across[rows, 1] * squeeze[:, 0],
        ]
    )
    vertices = rig.rest_vertices.copy()
    vertices[rows] = _apply(np.linalg.inv(rig.inverse_rest[first]), points)
    weights = rig.weights.copy()
    weights[rows] = 0.0
    weights[rows, first] = 1.0
    tips = dict(rig.tips)
    return replace(
        rig, rest_vertices=vertices, weights=weights, tips=tips,
        absent=(*rig.absent, FINGERS[finger - 1]),
    )  # fmt: skip


def extra_finger(rig: HandRig, beside: int, between: bool) -> HandRig:
    """Grow a sixth finger, a copy of finger `beside` (2..5), on that finger's little-finger side.

    With `between` the neighbours are spread to make room; `beside` must then be at most 4.
    """
    names = [f"finger{beside}-{joint}" for joint in (1, 2, 3)]
    chain = [rig.index(name) for name in names]
    grown = rig.weights[:, chain].sum(axis=1)
    inside = (grown[rig.faces] > 0.25).all(axis=1)
    keep = np.unique(rig.faces[inside])
    renumber = np.full(len(rig.rest_vertices), -1)
    renumber[keep] = np.arange(len(keep)) + len(rig.rest_vertices)
    weights = np.zeros((len(rig.weights) + len(keep), len(rig.bones) + 3))
    weights[: len(rig.weights), : len(rig.bones)] = rig.weights
    weights[len(rig.weights) :, len(rig.bones) :] = (
        rig.weights[np.ix_(keep, np.array(chain))] / grown[keep, None]
    )
    local = rig.local.copy()
    sixth = local[chain].copy()
    width = 2.0 * rig.radius[chain[0]]
    if between:
        step = 0.55 * width
        for finger in range(2, 6):
            first = rig.index(f"finger{finger}-1")
            way = 1.0 if finger <= beside else -1.0
            near = 1.0 if finger in (beside, beside + 1) else 1.35
            local[first] = _shift_in_parent(local[first], way * step * 0.75 * near)
            local[first] = local[first] @ rotation(0.0, way * np.radians(5.0 * near))
        gap = rig.index(f"finger{beside + 1}-1")
        middle = 0.5 * (_in_wrist(rig, chain[0])[:3, 3] + _in_wrist(rig, gap)[:3, 3])
        parent = _in_wrist(rig, rig.parents[chain[0]])
        inverse: Array = np.linalg.inv(parent).astype(np.float64)
        sixth[0][:3, 3] = _apply(inverse, middle[None])[0]
    else:
        sixth[0] = _shift_in_parent(sixth[0], -0.75 * width) @ rotation(0.0, -np.radians(16.0))
        sixth[0][1, 3] -= 0.012
    own = np.array([SIXTH] * len(keep), dtype=np.int8)
    count = len(rig.bones)
    return replace(
        rig,
        bones=(*rig.bones, *SIXTH_BONES),
        parents=(*rig.parents, rig.parents[chain[0]], count, count + 1),
        rest_vertices=np.concatenate([rig.rest_vertices, rig.rest_vertices[keep]]),
        faces=np.concatenate([rig.faces, renumber[rig.faces[inside]]]),
        inverse_rest=np.concatenate([rig.inverse_rest, rig.inverse_rest[chain]]),
        local=np.concatenate([local, sixth]),
        weights=weights,
        finger=np.concatenate([rig.finger, own]),
        bone=np.concatenate([rig.bone, weights[len(rig.weights) :].argmax(axis=1)]),
        tips={**rig.tips, "finger6-3": rig.tips[names[2]]},
        radius=np.concatenate([rig.radius, rig.radius[chain]]),
    )


def fused_fingers(rig: HandRig, finger: int) -> HandRig:
    """Merge fingers `finger` and `finger + 1` (finger 2..4) along their whole length."""
    first, second = rig.index(f"finger{finger}-1"), rig.index(f"finger{finger + 1}-1")
    local = rig.local.copy()
    a, b = _in_wrist(rig, first), _in_wrist(rig, second)
    shift = 0.5 * (float(np.linalg.norm(a[:3, 3] - b[:3, 3])) - float(rig.radius[first]))
    centre = 0.5 * (a[:3, 3] + b[:3, 3])
    mean = _mean_rotation(a[:3, :3], b[:3, :3])
    for bone, pose in ((first, a), (second, b)):
        way = pose[:3, 3] - centre
        merged = np.eye(4)
        merged[:3, :3] = mean
        merged[:3, 3] = pose[:3, 3] - way / np.linalg.norm(way) * shift
        local[bone] = np.linalg.inv(_in_wrist(rig, rig.parents[bone])) @ merged
    return replace(rig, local=local, fused=(finger, finger + 1))


def _mean_rotation(a: Array, b: Array) -> Array:
    left, _, right = np.linalg.svd(a + b)
    mean: Array = left @ right
    return mean


def _in_wrist(rig: HandRig, bone: int) -> Array:
    pose = rig.local[bone]
    parent = rig.parents[bone]
    while parent >= 0:
        pose = rig.local[parent] @ pose
        parent = rig.parents[parent]
    return pose


def _shift_in_parent(local: Array, sideways_m: float) -> Array:
    """Move a bone along its own x axis (towards the thumb)."""
    moved = local.copy()
    moved[:3, 3] += moved[:3, 0] * sideways_m
    return moved


def angles_vector(angles: Angles) -> NDArray[np.float32]:
    """Angles of the 20 bones `BONES[1:]` as (60,) float32: flexion, abduction, twist, radians."""
    rows: Sequence[tuple[float, float, float]] = [angles.get(b, (0.0, 0.0, 0.0)) for b in BONES[1:]]
    return np.array(rows, dtype=np.float32).reshape(-1)
