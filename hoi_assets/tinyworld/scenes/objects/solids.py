"""Solids with an exact signed distance and a mesh to draw.

A solid's distance is exact outside; metres throughout.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hoi_assets.tinyworld.scenes.rigid import Array

Faces = NDArray[np.int64]
SEGMENTS = 40


class Solid(Protocol):
    """A closed shape that knows its distance function and its surface."""

    def signed_distance(self, points: Array) -> Array:
        """(n, 3) metres -> (n,) metres, negative inside."""

    def mesh(self) -> tuple[Array, Faces]:
        """Vertices (n, 3) in metres and triangles (m, 3), wound outwards."""


def _polygon_distance(points: Array, polygon: Array) -> Array:
    """Signed distance of (n, 2) points to a closed simple polygon (m, 2), negative inside."""
    start, edge = polygon, np.roll(polygon, -1, axis=0) - polygon
    distance = _segments_distance(points, start, edge)
    y0, y1 = start[:, 1], start[:, 1] + edge[:, 1]
    px, py = points[:, 0, None], points[:, 1, None]
    crosses = (y0 <= py) != (y1 <= py)
    slope = np.where(edge[:, 1] == 0, 1.0, edge[:, 1])
    x_cross = start[:, 0] + (py - y0) / slope * edge[:, 0]
    inside = np.logical_xor.reduce(crosses & (px < x_cross), axis=1)
    return np.where(inside, -distance, distance)


def _segments_distance(points: Array, start: Array, edge: Array) -> Array:
    """Distance of points (n, d) to the nearest of the segments from `start` along `edge` (m, d)."""
    length = np.maximum((edge * edge).sum(-1), 1e-18)
    # Axis by axis: numpy is slow over a last axis of two or three.
    axes = range(points.shape[1])
    to = [points[:, axis, None] - start[None, :, axis] for axis in axes]
    along = np.clip(sum(to[axis] * edge[:, axis] for axis in axes) / length, 0.0, 1.0)
    squared = np.zeros_like(along)
    for axis in axes:
        gap = to[axis] - along * edge[:, axis]
        squared += gap * gap
    nearest: Array = np.sqrt(squared.min(axis=1))
    return nearest


@dataclass(frozen=True)
class Revolve:
    """A profile of (radius, z) points turned about z; open ends must lie on the axis."""

    profile: Array
    segments: int = SEGMENTS

    def signed_distance(self, points: Array) -> Array:
        flat = np.stack([np.hypot(points[:, 0], points[:, 1]), points[:, 2]], axis=1)
        return _polygon_distance(flat, self._section())

    def _section(self) -> Array:
        if not self._on_axis():
            return self.profile
        mirrored = self.profile[::-1] * np.array([-1.0, 1.0])
        return np.concatenate([self.profile, mirrored])

    def _on_axis(self) -> bool:
        return bool(self.profile[0, 0] < 1e-9 and self.profile[-1, 0] < 1e-9)

    def mesh(self) -> tuple[Array, Faces]:
        profile = self.profile
        if not self._on_axis():
            profile = np.concatenate([profile, profile[:1]])
        rows, n = len(profile), self.segments
        angle = np.linspace(0, 2 * np.pi, n, endpoint=False)
        ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        vertices = np.empty((rows, n, 3))
        vertices[..., :2] = profile[:, None, :1] * ring[None]
        vertices[..., 2] = profile[:, None, 1]
        faces = _grid_faces(rows, n, wrap=True)
        outward = _signed_area(self._section()) > 0
        return vertices.reshape(-1, 3), faces if outward else faces[:, ::-1]


def _signed_area(polygon: Array) -> float:
    x, y = polygon.T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def _grid_faces(rows: int, columns: int, wrap: bool) -> Faces:
    """Two triangles per cell of a grid; wound outwards for rows rising and columns turning left."""
    i = np.arange(rows - 1)[:, None]
    j = np.arange(columns if wrap else columns - 1)[None]
    right = (j + 1) % columns
    a, b = i * columns + j, i * columns + right
    c, d = (i + 1) * columns + right, (i + 1) * columns + j
    return np.stack(
        [np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)], axis=1
    ).reshape(-1, 3)


@dataclass(frozen=True)
class Extrude:
    """A convex outline (m, 2) in x and y, drawn from -half_height to +half_height in z."""

    outline: Array
    half_height: float

    def signed_distance(self, points: Array) -> Array:
        flat = _polygon_distance(points[:, :2], self.outline)
        high = np.abs(points[:, 2]) - self.half_height
        outside = np.hypot(np.maximum(flat, 0), np.maximum(high, 0))
        return np.where((flat < 0) & (high < 0), np.maximum(flat, high), outside)

    def mesh(self) -> tuple[Array, Faces]:
        outline = self.outline if _signed_area(self.outline) > 0 else self.outline[::-1]
        n = len(outline)
        vertices = np.zeros((2, n, 3))
        vertices[..., :2] = outline
        vertices[0, :, 2], vertices[1, :, 2] = -self.half_height, self.half_height
        fan = np.stack([np.zeros(n - 2, int), np.arange(1, n - 1), np.arange(2, n)], axis=1)
        faces = np.concatenate([_grid_faces(2, n, wrap=True), fan[:, ::-1], fan + n])
        return vertices.reshape(-1, 3), faces


@dataclass(frozen=True)
class Box:
    """A box of half extents (3,) whose edges are rounded by `radius`."""

    half: Sequence[float]
    radius: float = 0.001

    def signed_distance(self, points: Array) -> Array:
        q = np.abs(points) - (np.asarray(self.half) - self.radius)
        outside = np.linalg.norm(np.maximum(q, 0), axis=1)
        return outside + np.minimum(q.max(axis=1), 0) - self.radius

    def mesh(self) -> tuple[Array, Faces]:
        steps = 4
        quarter = np.linspace(0, np.pi / 2, steps)
        turn = np.concatenate([quarter + k * np.pi / 2 for k in range(4)])
        sx = np.repeat([1, -1, -1, 1], steps)
        sy = np.repeat([1, 1, -1, -1], steps)
        rise = np.concatenate([quarter - np.pi / 2, quarter])
        sz = np.repeat([-1, 1], steps)
        inner = np.asarray(self.half) - self.radius
        vertices = np.empty((2 * steps, 4 * steps, 3))
        cos, sin = np.cos(rise)[:, None], np.sin(rise)[:, None]
        vertices[..., 0] = sx * inner[0] + self.radius * cos * np.cos(turn)
        vertices[..., 1] = sy * inner[1] + self.radius * cos * np.sin(turn)
        vertices[..., 2] = (sz * inner[2])[:, None] + self.radius * sin
        columns = 4 * steps
        corners = np.array([0, steps, 2 * steps, 3 * steps])
        lid = np.array([[0, 1, 2], [0, 2, 3]])
        top = corners + (2 * steps - 1) * columns
        faces = np.concatenate(
            [_grid_faces(2 * steps, columns, wrap=True), top[lid], corners[lid][:, ::-1]]
        )
        return vertices.reshape(-1, 3), faces


@dataclass(frozen=True)
class Tube:
    """A round bar along a polyline (n, 3); `closed` joins the last point to the first."""

    path: Array
    radius: float
    closed: bool = False

    def signed_distance(self, points: Array) -> Array:
        path = np.concatenate([self.path, self.path[:1]]) if self.closed else self.path
        return _segments_distance(points, path[:-1], np.diff(path, axis=0)) - self.radius

    def mesh(self) -> tuple[Array, Faces]:
        path, n = self.path, 14
        if self.closed:
            tangent = np.roll(path, -1, axis=0) - np.roll(path, 1, axis=0)
        else:
            tangent = np.gradient(path, axis=0)
        tangent = tangent / np.linalg.norm(tangent, axis=1, keepdims=True)
        centre = path
        radius = np.full(len(path), self.radius)
        if not self.closed:
            bulge = np.sin(np.linspace(0, np.pi / 2, 5))[:-1]
            shrink = np.sqrt(1 - bulge**2)
            head = path[0] - tangent[0] * self.radius * bulge[::-1, None]
            tail = path[-1] + tangent[-1] * self.radius * bulge[:, None]
            centre = np.concatenate([path[:1] - tangent[:1] * self.radius, head[:-1], path,
                                     tail[1:], path[-1:] + tangent[-1:] * self.radius])  # fmt: skip
            radius = np.concatenate(
                [[0.0], self.radius * shrink[::-1][:-1], radius, self.radius * shrink[1:], [0.0]]
            )
            ends = len(bulge)
            tangent = np.concatenate(
                [np.repeat(tangent[:1], ends, 0), tangent, np.repeat(tangent[-1:], ends, 0)]
            )
        side = _carried_normals(tangent)
        other = np.cross(tangent, side)
        angle = np.linspace(0, 2 * np.pi, n, endpoint=False)
        around = (
            np.cos(angle)[None, :, None] * side[:, None]
            + np.sin(angle)[None, :, None] * other[:, None]
        )
        vertices = centre[:, None] + radius[:, None, None] * around
        rows = len(vertices)
        faces = _grid_faces(rows, n, wrap=True)
        if self.closed:
            vertices = np.concatenate([vertices, vertices[:1]])
            faces = _grid_faces(rows + 1, n, wrap=True)
        return vertices.reshape(-1, 3), faces


def _carried_normals(tangent: Array) -> Array:
    """A normal per point of a path, carried along without twist."""
    start = np.array([0.0, 0.0, 1.0]) if abs(tangent[0, 2]) < 0.9 else np.array([1.0, 0.0, 0.0])
    normals = []
    for direction in tangent:
        start = start - direction * (start @ direction)
        start = start / np.linalg.norm(start)
        normals.append(start)
    return np.asarray(normals)


@dataclass(frozen=True)
class Stretch:
    """A solid scaled per axis; its distance is a lower bound (scaled by the least factor)."""

    solid: Solid
    factors: tuple[float, float, float]

    def signed_distance(self, points: Array) -> Array:
        return self.solid.signed_distance(points / np.asarray(self.factors)) * min(self.factors)

    def mesh(self) -> tuple[Array, Faces]:
        vertices, faces = self.solid.mesh()
        return vertices * np.asarray(self.factors), faces


@dataclass(frozen=True)
class Placed:
    """A solid moved by a rotation (3, 3), then a translation (3,) in metres."""

    solid: Solid
    translation: Sequence[float] = (0.0, 0.0, 0.0)
    rotation: Array = field(default_factory=lambda: np.eye(3))

    def signed_distance(self, points: Array) -> Array:
        return self.solid.signed_distance((points - np.asarray(self.translation)) @ self.rotation)

    def mesh(self) -> tuple[Array, Faces]:
        vertices, faces = self.solid.mesh()
        return vertices @ self.rotation.T + np.asarray(self.translation), faces
