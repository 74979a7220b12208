"""Hand rigs of any shape from `anny`, a parametric body on MakeHuman assets."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hoi_assets.tinyworld.scenes.hands.rig import (
    BONES,
    PALM,
    Angles,
    HandRig,
    HandShape,
    PosedHand,
    finger_of,
)
from hoi_assets.tinyworld.scenes.rigid import Array, transform

# Anny's axes to the hand frame: its palm faces -x, its thumb is on +z.
_TO_HAND_FRAME = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
_FOREARM_LENGTH_M = 0.26
_FOREARM_RINGS = 9


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
        own = transform(inverse[i], vertices[(bone == i) & (weights[:, i] > 0.6)])
        radius[i] = np.hypot(own[:, 0], own[:, 2]).mean()
        if name.endswith("-3"):
            furthest = own[np.argsort(own[:, 1])[-4:]].mean(axis=0)
            tips[name] = (float(furthest[0]), float(furthest[1]), float(furthest[2]))
    return HandRig(
        shape=shape, bones=BONES, parents=parents, rest_vertices=vertices, faces=faces,
        inverse_rest=inverse, local=local, weights=weights, finger=finger, bone=bone, tips=tips,
        radius=radius,
    )  # fmt: skip


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
    ring = transform(motion, rig.rest_vertices[loop])
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
    vertices = np.concatenate([rig.rest_vertices, transform(back, extra)])
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
