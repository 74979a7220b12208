"""Objects as unions of solids: their distance, what is drawn of them, and where they are gripped.

A union's distance is exact outside and a lower bound inside. Metres throughout; the resting frame
has z up as the thing stands on a table.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from hoi_assets.tinyworld.scenes.objects.solids import Faces, Solid
from hoi_assets.tinyworld.scenes.rigid import Array

SMOOTH_ANGLE = np.radians(38.0)


@dataclass(frozen=True)
class Part:
    """A solid and the paint it takes.

    Attributes:
        role: colour (the caption's colour and material), contrast (dark on light colours, pale on
            dark ones), dark, pale, paper, steel or wood.
        felt: whether the part counts for contact; print and pips do not.
    """

    solid: Solid
    role: str = "colour"
    felt: bool = True


@dataclass(frozen=True)
class Surface:
    """A part as it is drawn: vertices (n, 3) metres, triangles (m, 3), vertex normals, paint.

    colour, material: this part's own; None takes the look's.
    """

    vertices: Array
    faces: Faces
    normals: Array
    role: str
    colour: str | None = None
    material: str | None = None


@dataclass(frozen=True)
class Grip:
    """Where and how a kind of grip takes an object, in the object's resting frame.

    Attributes:
        centre: point (3,) in metres: middle of the gripped part, or the touched surface point.
        axis: unit vector (3,): along the gripped part; from a tool's tip to its end; into flat
            things from their gripped edge; through a hole; between two hands.
        normal: unit vector (3,): thin direction, outward normal of a touched surface, or up.
        half_extents: half sizes in metres of the gripped part, in the grip frame; None takes the
            whole object's.
    """

    centre: Array
    axis: Array
    normal: Array
    half_extents: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class ObjectShape:
    """An object of the tiny world, ready to be grasped and drawn.

    Its frame is the grip frame of the category it was made for (see `make_object`), or its
    resting frame (z up, standing on z = 0) when it was made for none.

    Attributes:
        kind: one of vocabulary.OBJECTS.
        half_extents: half sizes of the gripped part along the frame's axes, metres.
        origin: the frame's origin in the resting frame, metres.
        axes: rows are the frame's axes in the resting frame.
    """

    kind: str
    half_extents: tuple[float, float, float]
    parts: tuple[Part, ...]
    origin: Array
    axes: Array

    def signed_distance(self, points: Array) -> Array:
        """Distance of (n, 3) points (object frame, metres) to the surface, negative inside."""
        resting = np.asarray(points, dtype=np.float64) @ self.axes + self.origin
        distance = np.full(len(resting), np.inf)
        for part in self.parts:
            if part.felt:
                distance = np.minimum(distance, part.solid.signed_distance(resting))
        return distance

    @cached_property
    def surfaces(self) -> tuple[Surface, ...]:
        """What to draw, one surface per part, in the object's frame."""
        drawn = []
        for part in self.parts:
            vertices, faces, normals = shaded(*part.solid.mesh())
            moved = (vertices - self.origin) @ self.axes.T
            drawn.append(Surface(moved, faces, normals @ self.axes.T, part.role))
        return tuple(drawn)

    @cached_property
    def vertices(self) -> Array:
        """Vertices (n, 3) of all parts in the object's frame."""
        vertices = np.concatenate([part.solid.mesh()[0] for part in self.parts])
        return (vertices - self.origin) @ self.axes.T

    @cached_property
    def mesh(self) -> Any:
        """All felt parts as one trimesh.Trimesh in the object's frame."""
        import trimesh

        meshes = []
        for part in self.parts:
            if part.felt:
                vertices, faces = part.solid.mesh()
                meshes.append(trimesh.Trimesh((vertices - self.origin) @ self.axes.T, faces))
        return trimesh.util.concatenate(meshes)

    @property
    def bounds(self) -> Array:
        """Lower and upper corner in the object's frame, (2, 3) metres."""
        vertices = np.concatenate([surface.vertices for surface in self.surfaces])
        return np.stack([vertices.min(axis=0), vertices.max(axis=0)])

    @property
    def up(self) -> Array:
        """The resting frame's z axis in the object's frame, unit vector (3,)."""
        return self.axes[:, 2]


def shaded(
    vertices: Array, faces: Faces, smooth_angle: float = SMOOTH_ANGLE
) -> tuple[Array, Faces, Array]:
    """Give a mesh vertex normals that are smooth over round parts and split at sharp edges.

    Returns:
        One vertex per triangle corner: vertices (3m, 3), triangles (m, 3), normals (3m, 3).
    """
    _, merged = np.unique(np.round(vertices, 7), axis=0, return_inverse=True)
    merged = merged.reshape(-1)[faces]
    whole = (
        (merged[:, 0] != merged[:, 1])
        & (merged[:, 1] != merged[:, 2])
        & (merged[:, 2] != merged[:, 0])
    )
    faces, merged = faces[whole], merged[whole]
    corners = vertices[faces]
    weighted = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    unit = weighted / np.maximum(np.linalg.norm(weighted, axis=1, keepdims=True), 1e-18)
    face = np.repeat(np.arange(len(faces)), 3)
    point = merged.reshape(-1)
    order = np.argsort(point, kind="stable")
    start = np.searchsorted(point[order], np.arange(point.max() + 1))
    count = np.diff(np.append(start, len(order)))
    own = np.repeat(np.arange(len(point)), count[point])
    offset = np.arange(len(own)) - np.repeat(np.cumsum(count[point]) - count[point], count[point])
    other = order[start[point[own]] + offset]
    near = (unit[face[own]] * unit[face[other]]).sum(-1) > np.cos(smooth_angle)
    # Adds in the order of `np.add.at`, several times as fast.
    normals: Array = np.stack(
        [np.bincount(own[near], axis, len(point)) for axis in weighted[face[other[near]]].T], axis=1
    )
    normals = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-18)
    return corners.reshape(-1, 3), np.arange(len(point)).reshape(-1, 3), normals
