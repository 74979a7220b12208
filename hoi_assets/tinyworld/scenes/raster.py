"""First hits by scan conversion: what each pixel shows, without building a mitsuba scene.

Agrees with `trace_first_hits` but for a few pixels on edges, in a third of the time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hoi_assets.tinyworld.scenes.camera import Camera
from hoi_assets.tinyworld.scenes.first_hits import FirstHits
from hoi_assets.tinyworld.scenes.rigid import Array, vertex_normals
from hoi_assets.tinyworld.scenes.stage import Plane, Stage

NEAR_M = 0.01

Whole = NDArray[np.int64]


@dataclass(frozen=True)
class Triangles:
    """All triangles of a stage.

    Attributes:
        names: of the stage's shapes, as `FirstHits.names`.
        corners, normals: (m, 3, 3) world positions in metres, and shading normals.
        shape, face: (m,) place in `names`, and number within the shape.
    """

    names: tuple[str, ...]
    corners: Array
    normals: Array
    shape: Whole
    face: Whole


def collect_triangles(stage: Stage) -> Triangles:
    """Everything that stands on a stage."""
    meshes: list[tuple[str, Array, NDArray[np.integer[Any]], Array]] = [
        (f"hand{k}", hand.vertices, hand.faces, vertex_normals(hand.vertices, hand.faces))
        for k, hand in enumerate(stage.hands)
    ]
    meshes += [
        (f"part{k}", part.vertices, part.faces, part.normals)
        for k, part in enumerate(stage.surfaces)
    ]
    counts = [len(faces) for _, _, faces, _ in meshes]
    return Triangles(
        ("", *(name for name, *_ in meshes)),
        np.concatenate([vertices[faces] for _, vertices, faces, _ in meshes]),
        np.concatenate([normals[faces] for _, _, faces, normals in meshes]),
        np.repeat(np.arange(1, len(meshes) + 1), counts),
        np.concatenate([np.arange(count) for count in counts]),
    )


def rasterise(
    triangles: Triangles, camera: Camera, size: int, planes: Sequence[Plane] = ()
) -> FirstHits:
    """What the middle ray of each pixel of a `size` px picture meets; planes have no triangles."""
    scale = size / (2 * np.tan(np.radians(camera.field_of_view_deg) / 2))
    seen = (triangles.corners - np.asarray(camera.eye)) @ camera.axes().T
    before = np.flatnonzero(seen[..., 2].min(axis=1) > NEAR_M)
    seen = np.ascontiguousarray(seen[before].transpose(2, 1, 0))
    inverse = 1.0 / seen[2]
    x, y = size / 2 + seen[0] * inverse * scale, size / 2 - seen[1] * inverse * scale
    # Twice the area on the picture. Surfaces are closed: what faces away is hidden by the rest.
    area = (x[1] - x[0]) * (y[2] - y[0]) - (x[2] - x[0]) * (y[1] - y[0])
    facing = np.flatnonzero(area < -1e-12)
    before, area = before[facing], area[facing]
    inverse, x, y = inverse[:, facing], x[:, facing], y[:, facing]
    number, column, row = _pixels_in_bounds(x, y, size)
    share = _barycentric(x, y, area, number, column, row)
    inside = np.flatnonzero(share.min(axis=0) >= 0)
    number, pixel = number[inside], (row * size + column)[inside]
    weight = share[:, inside] * inverse[:, number]
    nearness = weight.sum(axis=0)
    # Of several triangles in a pixel the last written stays: the nearest.
    order = np.argsort(nearness, kind="stable")
    winner = np.full(size * size, -1, dtype=np.int64)
    winner[pixel[order]] = order
    hit = np.flatnonzero(winner >= 0)
    best = winner[hit]
    source = before[number[best]]
    depth = np.full(size * size, np.inf)
    shape, face = np.zeros((2, size * size), dtype=np.int64)
    normal = np.zeros((size * size, 3))
    depth[hit] = 1.0 / nearness[best]
    shape[hit], face[hit] = triangles.shape[source], triangles.face[source]
    mixed = np.einsum("kn,nkd->nd", weight[:, best], triangles.normals[source])
    normal[hit] = mixed / np.maximum(np.linalg.norm(mixed, axis=1, keepdims=True), 1e-18)
    for place, plane in enumerate(planes, start=len(triangles.names)):
        way = _plane_depth(plane, camera, size, scale)
        met = (way > 0) & (way < depth)
        depth[met], shape[met], face[met], normal[met] = way[met], place, 0, plane.normal
    square = (size, size)
    return FirstHits(
        (*triangles.names, *(plane.name for plane in planes)),
        shape.reshape(square),
        face.reshape(square),
        normal.reshape(*square, 3),
    )


def _pixels_in_bounds(x: Array, y: Array, size: int) -> tuple[Whole, Whole, Whole]:
    """Triangle number, column and row of every pixel whose middle lies in the bounds of a triangle
    with corners (3, m)."""
    low_x, low_y = (np.ceil(v.min(axis=0) - 0.5).clip(0, size).astype(np.int64) for v in (x, y))
    high_x, high_y = (
        np.floor(v.max(axis=0) - 0.5).clip(-1, size - 1).astype(np.int64) for v in (x, y)
    )
    wide, high = np.maximum(high_x - low_x + 1, 0), np.maximum(high_y - low_y + 1, 0)
    count = wide * high
    number = np.repeat(np.arange(x.shape[1]), count)
    place = np.arange(len(number)) - np.repeat(np.cumsum(count) - count, count)
    row, column = np.divmod(place, wide[number])
    return number, low_x[number] + column, low_y[number] + row


def _barycentric(
    x: Array, y: Array, area: Array, number: Whole, column: Whole, row: Whole
) -> Array:
    """Coordinates (3, n) of pixels' middles in the triangles `number`; negative outside."""
    found = np.empty((3, len(number)))
    cx, cy = column + 0.5, row + 0.5
    for corner in range(3):
        a, b = (corner + 1) % 3, (corner + 2) % 3
        # Linear in the point: an edge's cross product over the triangle's.
        across, down = (y[a] - y[b]) / area, (x[b] - x[a]) / area
        constant = (x[a] * y[b] - x[b] * y[a]) / area
        found[corner] = across[number] * cx + down[number] * cy + constant[number]
    return found


def _plane_depth(plane: Plane, camera: Camera, size: int, scale: float) -> Array:
    """Depth (size * size,) at which each pixel's ray meets a plane; not positive: never."""
    right, up, forward = camera.axes()
    offset = (np.arange(size) + 0.5 - size / 2) / scale
    along = forward @ plane.normal + (
        offset[None, :] * (right @ plane.normal) - offset[:, None] * (up @ plane.normal)
    )
    gap = float((plane.at - np.asarray(camera.eye)) @ plane.normal)
    depth: Array = np.where(np.abs(along) > 1e-12, gap / np.where(along == 0, 1.0, along), -1.0)
    return depth.ravel()
