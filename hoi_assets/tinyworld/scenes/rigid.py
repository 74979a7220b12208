"""Rigid motions, rotations and normals, as numpy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def transform(matrix: Array, points: Array) -> Array:
    """Apply a (4, 4) rigid motion to points (N, 3)."""
    moved: Array = points @ matrix[:3, :3].T + matrix[:3, 3]
    return moved


def unit(vector: Array) -> Array:
    """The vector scaled to length 1."""
    out: Array = vector / np.linalg.norm(vector)
    return out


def rotation_from_vector(vector: Array) -> Array:
    """Rotation matrix of a rotation vector (Rodrigues)."""
    angle = float(np.linalg.norm(vector))
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = vector / angle
    k = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    matrix: Array = np.eye(3) + np.sin(angle) * k + (1.0 - np.cos(angle)) * (k @ k)
    return matrix


def axis_rotation(axis: int, degrees: float) -> Array:
    """Rotation matrix (3, 3) about the x, y or z axis (0, 1, 2)."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix = np.eye(3)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix[i, i] = matrix[j, j] = cos
    matrix[i, j], matrix[j, i] = -sin, sin
    return matrix


def rotation_about(axis: Array, angle: float) -> Array:
    """Rotation (3, 3) about a unit axis by radians (Rodrigues)."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    turned: Array = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return turned


def rotation_between(one: Array, other: Array) -> Array:
    """The smallest rotation (3, 3) that takes one unit vector to another."""
    axis = np.cross(one, other)
    sine = float(np.linalg.norm(axis))
    if sine < 1e-9:
        return np.eye(3)
    return rotation_about(axis / sine, float(np.arctan2(sine, one @ other)))


def vertex_normals(vertices: Array, faces: NDArray[np.integer[Any]]) -> Array:
    """Vertex normals (n, 3) of a mesh, weighted by the triangles' areas."""
    corners = vertices[faces]
    weighted = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    # Adds in the order of `np.add.at`, several times as fast.
    corner = faces.T.ravel()
    normals = np.stack(
        [np.bincount(corner, np.tile(axis, 3), len(vertices)) for axis in weighted.T], axis=1
    )
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-18)
