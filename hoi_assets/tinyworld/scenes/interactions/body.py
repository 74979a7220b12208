"""Rigid bodies of an interaction scene, and the whole arrangement.

World: metres, z up, the camera on the side of -y.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hoi_assets.tinyworld.scenes.objects.kit import X, Z
from hoi_assets.tinyworld.scenes.objects.shape import ObjectShape, Surface
from hoi_assets.tinyworld.scenes.rigid import Array, transform
from hoi_assets.tinyworld.scenes.stage import HandMesh

MIRROR = np.diag([-1.0, 1.0, 1.0, 1.0])
DOWN, UP = np.array([0.0, 0.0, -1.0]), np.array([0.0, 0.0, 1.0])
# The resting frame's direction in which a tool's working end lies.
_ENDS = {
    "bottle": Z, "brush": -Z, "key": X, "pen": -Z,
    "spoon": -Z, "stick": Z,
}  # fmt: skip


@dataclass(frozen=True)
class Body:
    """Something rigid: a thing, a hand, or a hand with what it holds.

    Attributes:
        pose: (4, 4) the shape's frame to the world; a mirror image where its determinant is < 0.
        thing: place among the plan's things; None for a bare hand.
        joints: (21 a hand, 3) world.
    """

    shape: ObjectShape | None
    pose: Array
    thing: int | None = None
    colour: str | None = None
    material: str | None = None
    hands: tuple[HandMesh, ...] = ()
    joints: Array = field(default_factory=lambda: np.zeros((0, 3)))

    def moved(self, motion: Array) -> "Body":
        """The body after a rigid motion or reflection (4, 4) of the world."""
        mirrored = np.linalg.det(motion[:3, :3]) < 0
        hands = tuple(
            replace(
                hand,
                vertices=transform(motion, hand.vertices),
                faces=hand.faces[:, ::-1] if mirrored else hand.faces,
            )
            for hand in self.hands
        )
        pose = motion @ self.pose
        return replace(self, hands=hands, joints=transform(motion, self.joints), pose=pose)

    def shifted(self, offset: Sequence[float] | NDArray[Any]) -> "Body":
        """The body moved by an offset (3,)."""
        motion = np.eye(4)
        motion[:3, 3] = offset
        return self.moved(motion)

    def turned(self, rotation: Array, about: Array | None = None) -> "Body":
        """The body turned by a rotation (3, 3) about a point, the world's origin where None."""
        motion = np.eye(4)
        motion[:3, :3] = rotation
        if about is not None:
            motion[:3, 3] = about - rotation @ about
        return self.moved(motion)

    @cached_property
    def points(self) -> Array:
        """Vertices of the shape, (n, 3) world."""
        if self.shape is None:
            return np.zeros((0, 3))
        return transform(self.pose, self.shape.vertices)

    @cached_property
    def skin(self) -> Array:
        """Vertices of the hands, (n, 3) world."""
        return np.concatenate([np.zeros((0, 3)), *(hand.vertices for hand in self.hands)])

    def distance(self, points: Array) -> Array:
        """Signed distance (n,) of world points to the shape, metres."""
        assert self.shape is not None
        inverse: Array = np.linalg.inv(self.pose).astype(np.float64)
        return self.shape.signed_distance(transform(inverse, points))

    def at(self, resting_point: Sequence[float]) -> Array:
        """A point of the shape's resting frame in the world (3,)."""
        assert self.shape is not None
        local = self.shape.axes @ (np.asarray(resting_point) - self.shape.origin)
        return transform(self.pose, local[None])[0]

    @property
    def end(self) -> Array:
        """Middle of a tool's working end, (3,) world."""
        assert self.shape is not None
        along = self.points @ self.end_direction
        return self.points[along > along.max() - 0.002].mean(axis=0)

    @property
    def end_direction(self) -> Array:
        """Unit vector (3,) along the tool towards its working end, world."""
        assert self.shape is not None
        return self.pose[:3, :3] @ self.shape.axes @ _ENDS[self.shape.kind]

    @property
    def forearm(self) -> Array:
        """Unit vector (3,) from the (first) hand's middle knuckle to its wrist, world."""
        along = self.joints[0] - self.joints[9]
        return along / np.linalg.norm(along)

    def surfaces(self) -> tuple[Surface, ...]:
        """The shape's parts as they are drawn."""
        if self.shape is None:
            return ()
        mirrored = np.linalg.det(self.pose[:3, :3]) < 0
        return tuple(
            replace(
                part,
                vertices=transform(self.pose, part.vertices),
                normals=part.normals @ self.pose[:3, :3].T,
                faces=part.faces[:, ::-1] if mirrored else part.faces,
                colour=self.colour,
                material=self.material,
            )
            for part in self.shape.surfaces
        )


@dataclass(frozen=True)
class Arrangement:
    """A scene ready to be drawn.

    Attributes:
        marks: what a tool leaves: ink, paint, water.
        look_from: direction from the scene to the camera.
        focus: (n, 3) points that belong in the picture.
        support_z: height of the table, or None.
        gap_mm: from what acts (a tool's end, a fingertip) to its target; None where nothing acts.
        wall_m: least distance to the wall, so that an arm that comes from behind is not cut by it.
    """

    bodies: tuple[Body, ...]
    marks: tuple[Surface, ...]
    look_from: tuple[float, float, float]
    focus: Array
    support_z: float | None
    gap_mm: float | None = None
    wall_m: float = 0.0

    def mirrored(self) -> "Arrangement":
        """The scene in a mirror: right hands become left ones."""
        flip = np.diag(MIRROR)[:3]
        x, y, z = self.look_from
        marks = tuple(
            replace(
                mark,
                vertices=mark.vertices * flip,
                normals=mark.normals * flip,
                faces=mark.faces[:, ::-1],
            )
            for mark in self.marks
        )
        bodies = tuple(body.moved(MIRROR) for body in self.bodies)
        return replace(self, bodies=bodies, marks=marks, look_from=(-x, y, z),
                       focus=self.focus * flip)  # fmt: skip
