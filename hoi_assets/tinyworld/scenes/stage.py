"""What stands before the camera: hands, surfaces, and how they look."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hoi_assets.tinyworld.scenes.objects.shape import Surface
from hoi_assets.tinyworld.scenes.rigid import Array


@dataclass(frozen=True)
class HandMesh:
    """A posed hand to draw: vertices (v, 3) in world metres, triangles (f, 3), finger per vertex.

    Attributes:
        finger: (v,) -1 for palm and wrist, 0..4 thumb to little, 5 a sixth finger.
        skin_tone: this hand's own; None takes the look's.
    """

    vertices: Array
    faces: NDArray[np.integer[Any]]
    finger: NDArray[np.integer[Any]]
    skin_tone: str | None = None


@dataclass(frozen=True)
class Plane:
    """A wall or table top: a point `at` of it (3,), its unit normal (3,) and linear colour (3,)."""

    name: str
    at: Array
    normal: Array
    rgb: Array


@dataclass(frozen=True)
class Stage:
    """What stands before the camera, in world coordinates.

    Attributes:
        surfaces: the object's parts.
        centre: point (3,) to look at, metres.
        radius: of the sphere round `centre` that fills the frame, metres.
        support_z: height of the table top, or None for no table.
        joints_3d: (n, 3) world points to project.
        wall_m: least distance from `centre` to the wall behind it, metres.
    """

    hands: tuple[HandMesh, ...]
    surfaces: tuple[Surface, ...]
    centre: Array
    radius: float
    support_z: float | None
    joints_3d: Array
    wall_m: float = 0.0

    def mirrored(self) -> "Stage":
        """The same scene in a mirror (world x turned round): right hands become left ones."""
        flip = np.array([-1.0, 1.0, 1.0])
        hands = tuple(
            replace(hand, vertices=hand.vertices * flip, faces=hand.faces[:, ::-1])
            for hand in self.hands
        )
        surfaces = tuple(
            replace(
                part,
                vertices=part.vertices * flip,
                faces=part.faces[:, ::-1],
                normals=part.normals * flip,
            )
            for part in self.surfaces
        )
        return Stage(hands, surfaces, self.centre * flip, self.radius, self.support_z,
                     self.joints_3d * flip, self.wall_m)  # fmt: skip


@dataclass(frozen=True)
class Look:
    """The words a picture is drawn from, and the seed of all that no word says."""

    colour: str
    material: str
    skin_tone: str | None
    light: str
    background: str
    seed: int
