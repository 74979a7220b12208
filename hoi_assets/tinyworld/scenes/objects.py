"""The tiny world's objects: solids with an exact signed distance and a mesh to draw.

Each object is a union of solids (revolved profiles, extruded outlines, rounded boxes, tubes). A
solid's distance is exact outside; a union's is exact outside and a lower bound inside. Metres
throughout; the resting frame has z up as the thing stands on a table.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hoi_assets.errors import HoiError

Array = NDArray[np.float64]
Faces = NDArray[np.int64]

SEGMENTS = 40
SMOOTH_ANGLE = np.radians(38.0)


class Solid(Protocol):
    """A closed shape that knows its distance function and its surface."""

    def signed_distance(self, points: Array) -> Array:
        """(n, 3) metres -> (n,) metres, negative inside."""

    def mesh(self) -> tuple[Array, Faces]:
        """Vertices (n, 3) in metres and triangles (m, 3), wound outwards."""


def _polygon_distance(points: Array, polygon: Array) -> Array:
    """Signed distance of (n, 2) points to a closed simple polygon (m, 2), negative inside."""
    start, edge = polygon, np.roll(polygon, -1, axis=0) - polygon
    to = points[:, None, :] - start[None]
    along = np.clip((to * edge).sum(-1) / np.maximum((edge * edge).sum(-1), 1e-18), 0.0, 1.0)
    gap = to - along[..., None] * edge
    distance = np.sqrt((gap * gap).sum(-1).min(axis=1))
    y0, y1 = start[:, 1], start[:, 1] + edge[:, 1]
    py = points[:, 1, None]
    crosses = (y0 <= py) != (y1 <= py)
    slope = np.where(edge[:, 1] == 0, 1.0, edge[:, 1])
    x_cross = start[:, 0] + (py - y0) / slope * edge[:, 0]
    inside = (crosses & (points[:, 0, None] < x_cross)).sum(axis=1) % 2 == 1
    return np.where(inside, -distance, distance)


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
        start, edge = path[:-1], np.diff(path, axis=0)
        to = points[:, None, :] - start[None]
        along = np.clip((to * edge).sum(-1) / np.maximum((edge * edge).sum(-1), 1e-18), 0.0, 1.0)
        gap = to - along[..., None] * edge
        return np.sqrt((gap * gap).sum(-1).min(axis=1)) - self.radius

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
    normals = np.zeros((len(point), 3))
    np.add.at(normals, own[near], weighted[face[other[near]]])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-18)
    return corners.reshape(-1, 3), np.arange(len(point)).reshape(-1, 3), normals


# --- small helpers the objects share ---------------------------------------------------------

X, Y, Z = np.eye(3)


def _grip(
    centre: Any, axis: Any, normal: Any, half_extents: tuple[float, float, float] | None = None
) -> Grip:
    return Grip(
        np.asarray(centre, float), np.asarray(axis, float), np.asarray(normal, float), half_extents
    )


def _profile(*points: tuple[float, float]) -> Array:
    return np.asarray(points, dtype=np.float64)


def _arc(
    centre: tuple[float, float], radius: float, start: float, stop: float, n: int = 10
) -> list[tuple[float, float]]:
    """Points on an arc, angles in degrees."""
    angle = np.radians(np.linspace(start, stop, n))
    return [(centre[0] + radius * c, centre[1] + radius * s)
            for c, s in zip(np.cos(angle), np.sin(angle), strict=True)]  # fmt: skip


def _sphere(radius: float) -> Revolve:
    points = _arc((0, 0), radius, -90, 90, 25)
    return Revolve(_profile((0.0, -radius), *points[1:-1], (0.0, radius)))


def _cylinder(radius: float, half: float, bevel: float = 0.001) -> Revolve:
    return Revolve(
        _profile(
            (0, -half),
            *_arc((radius - bevel, -half + bevel), bevel, -90, 0, 4),
            *_arc((radius - bevel, half - bevel), bevel, 0, 90, 4),
            (0, half),
        )
    )


def _band(inner: float, outer: float, half: float) -> Revolve:
    """A flat ring about z."""
    mid, thick = (inner + outer) / 2, (outer - inner) / 2
    b = min(thick, half) * 0.6
    return Revolve(
        _profile(
            *_arc((mid + thick - b, -half + b), b, -90, 0, 4),
            *_arc((mid + thick - b, half - b), b, 0, 90, 4),
            *_arc((mid - thick + b, half - b), b, 90, 180, 4),
            *_arc((mid - thick + b, -half + b), b, 180, 270, 4),
        )
    )


def _rounded_rectangle(half_x: float, half_y: float, corner: float) -> Array:
    x, y = half_x - corner, half_y - corner
    return _profile(
        *_arc((x, y), corner, 0, 90, 6), *_arc((-x, y), corner, 90, 180, 6),
        *_arc((-x, -y), corner, 180, 270, 6), *_arc((x, -y), corner, 270, 360, 6),
    )  # fmt: skip


def _turn(axis: Array, degrees: float) -> Array:
    """Rotation matrix about a unit axis (Rodrigues)."""
    a, (x, y, z) = np.radians(degrees), axis
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(a) * k + (1 - np.cos(a)) * k @ k


Built = tuple[list[Part], dict[str, Grip]]

# --- the objects: each takes its size, 0 (small) to 1 (large), and the kind of grip --------------


def _mix(small: float, large: float, size: float) -> float:
    return small + (large - small) * size


def _bottle(size: float, kind: str) -> Built:
    r, h = _mix(0.025, 0.033, size), _mix(0.18, 0.22, size)
    neck, shoulder = r * 0.38, h * 0.68
    body = _profile(
        (0, 0), *_arc((r - 0.004, 0.004), 0.004, -90, 0, 4),
        *[(r - (r - neck) * (1 - np.cos(t * np.pi)) / 2, shoulder + t * h * 0.16)
          for t in np.linspace(0, 1, 9)],
        (neck, h * 0.92), (0, h * 0.92),
    )  # fmt: skip
    cap = Placed(_cylinder(neck * 1.25, h * 0.045, 0.0015), (0, 0, h * 0.94))
    grips = {"wrap": _grip((0, 0, h * 0.38), Z, X, (r, r, h * 0.34))}
    return [Part(Revolve(body)), Part(cap, "contrast")], grips


def _can(size: float, kind: str) -> Built:
    r, h = _mix(0.027, 0.034, size), _mix(0.105, 0.125, size)
    body = _profile((0, 0.005), (r * 0.86, 0.005), (r, 0.012), (r, h - 0.012),
                    (r * 0.88, h - 0.003), (0, h - 0.003))  # fmt: skip
    foot = Placed(_cylinder(r * 0.86, 0.004), (0, 0, 0.004))
    lid = Placed(_cylinder(r * 0.8, 0.002, 0.0008), (0, 0, h - 0.003))
    rim = Placed(_band(r * 0.8, r * 0.9, 0.0035), (0, 0, h - 0.002))
    tab = Placed(
        Extrude(_rounded_rectangle(r * 0.2, r * 0.34, r * 0.18), 0.001), (0, r * 0.25, h + 0.001)
    )
    grips = {"wrap": _grip((0, 0, h / 2), Z, X, (r, r, h / 2))}
    return [Part(Revolve(body)), Part(foot, "steel"), Part(lid, "steel"), Part(rim, "steel"),
            Part(tab, "steel")], grips  # fmt: skip


def _stick(size: float, kind: str) -> Built:
    r, h = _mix(0.010, 0.015, size), _mix(0.15, 0.18, size)
    ends = [
        Part(Placed(_cylinder(r * 1.12, 0.008, 0.002), (0, 0, s * (h - 0.008))), "contrast")
        for s in (-1, 1)
    ]
    if kind == "hook":
        rod = Placed(_cylinder(r, h, 0.002), rotation=_turn(Y, 90))
        ends = [Part(Placed(p.solid, rotation=_turn(Y, 90)), p.role) for p in ends]
        return [Part(rod), *ends], {"hook": _grip((0, 0, 0), X, Z, (r, r, h))}
    return [Part(_cylinder(r, h, 0.002)), *ends], {"wrap": _grip((0, 0, 0), Z, X, (r, r, h))}


def _mug(size: float, kind: str) -> Built:
    r, h = _mix(0.033, 0.039, size), _mix(0.085, 0.098, size)
    wall = 0.0035
    cup = _profile(
        (0, 0), *_arc((r - 0.006, 0.006), 0.006, -90, 0, 5),
        *_arc((r - wall / 2, h - wall / 2), wall / 2, 0, 180, 6),
        (r - wall, 0.010), (r - wall - 0.004, 0.006), (0, 0.006),
    )  # fmt: skip
    angle = np.radians(np.linspace(-90, 90, 15))
    handle = np.stack(
        [r - 0.003 + 0.026 * np.cos(angle), 0 * angle, h / 2 + h * 0.29 * np.sin(angle)], 1
    )
    grips = {"wrap": _grip((0, 0, h / 2), Z, X, (r, r, h / 2))}
    return [Part(Revolve(cup)), Part(Tube(handle, 0.005))], grips


def _ball(size: float, kind: str) -> Built:
    small, large = {"both": (0.075, 0.105), "support": (0.034, 0.045)}.get(kind, (0.031, 0.039))
    r = _mix(small, large, size)
    seams = [
        Part(Placed(_band(r * 0.985, r * 1.006, r * 0.035), rotation=turn), "contrast", felt=False)
        for turn in (_turn(X, 25), _turn(X, 25) @ _turn(Y, 90))
    ]
    grips = {
        "sphere": _grip((0, 0, 0), Z, X, (r, r, r)), "support": _grip((0, 0, -r), X, Z),
        "both": _grip((0, 0, 0), X, Z, (r, r, r)),
    }  # fmt: skip
    return [Part(_sphere(r)), *seams], grips


def _apple(size: float, kind: str) -> Built:
    r = _mix(0.031, 0.038, size)
    points = []
    for t in np.linspace(0, np.pi, 36):
        radial = 1 - 0.33 * np.exp(-((t / 0.42) ** 2)) - 0.14 * np.exp(-(((np.pi - t) / 0.3) ** 2))
        wide = 1.0 + 0.07 * np.exp(-(((t - 1.25) / 0.6) ** 2))
        points.append((max(r * radial * wide * np.sin(t), 0.0), r * radial * 0.94 * np.cos(t)))
    profile = _profile((0.0, points[0][1]), *points[1:-1], (0.0, points[-1][1]))[::-1]
    stem = Tube(np.array([[0, 0, r * 0.55], [0.001, 0, r * 0.85], [0.004, 0, r * 1.15]]), 0.0018)
    leaf = Placed(
        Stretch(_sphere(1.0), (0.013, 0.006, 0.0012)), (0.014, 0, r * 1.02), _turn(Y, -20)
    )
    grips = {"sphere": _grip((0, 0, 0), Z, X, (r, r, r))}
    return [Part(Revolve(profile)), Part(stem, "wood"), Part(leaf, "leaf")], grips


def _egg(size: float, kind: str) -> Built:
    r = _mix(0.023, 0.029, size)
    points = []
    for t in np.linspace(0, np.pi, 32):
        points.append((r * np.sin(t) * (1 - 0.14 * np.cos(t)), 1.32 * r * np.cos(t)))
    profile = _profile((0.0, points[0][1]), *points[1:-1], (0.0, points[-1][1]))[::-1]
    return [Part(Revolve(profile))], {"sphere": _grip((0, 0, 0), Z, X, (r, r, r * 1.32))}


def _bag(size: float, kind: str) -> Built:
    w, h, d = _mix(0.060, 0.075, size), _mix(0.085, 0.105, size), 0.026
    drop = 0.07
    outline = _profile((-w, -h), (w, -h), (w * 0.86, 0), (-w * 0.86, 0))
    body = Placed(Extrude(outline, d), (0, 0, -drop), _turn(X, 90))
    trim = Placed(Box((w * 0.875, d + 0.0015, 0.006), 0.001), (0, 0, -drop - 0.006))
    angle = np.radians(np.linspace(0, 180, 17))
    rise = np.clip(np.sin(angle), 0, 0.82) / 0.82
    handle = np.stack([w * 0.5 * np.cos(angle), 0 * angle, -drop + drop * rise], 1)
    parts = [Part(body), Part(trim, "contrast"), Part(Tube(handle, 0.006), "contrast")]
    return parts, {"hook": _grip((0, 0, 0), X, Z, (0.006, 0.006, w * 0.28))}


def _bucket(size: float, kind: str) -> Built:
    r, h = _mix(0.058, 0.066, size), _mix(0.075, 0.09, size)
    drop, wall = 0.08, 0.003
    pail = _profile(
        (0, -h), (r * 0.74, -h), (r - 0.001, -0.006), (r + 0.004, -0.005), (r + 0.004, 0),
        (r - wall, 0), (r * 0.74 - wall, -h + 0.004), (0, -h + 0.004),
    )  # fmt: skip
    angle = np.radians(np.linspace(0, 180, 25))
    wire = np.stack(
        [r * np.cos(angle), 0 * angle, -drop - 0.01 + (drop + 0.01) * np.sin(angle) ** 0.8], 1
    )
    grip = np.array([[-0.045, 0, 0.0], [0.045, 0, 0.0]])
    parts = [Part(Placed(Revolve(pail), (0, 0, -drop))), Part(Tube(wire, 0.0025), "steel"),
             Part(Tube(grip, 0.0075), "contrast")]  # fmt: skip
    return parts, {"hook": _grip((0, 0, 0), X, Z, (0.0075, 0.0075, 0.05))}


def _key(size: float, kind: str) -> Built:
    bow, blade, half = _mix(0.013, 0.016, size), _mix(0.038, 0.048, size), 0.0014
    parts = [
        Part(_band(bow * 0.36, bow, half)),
        Part(
            Placed(
                Box((blade / 2 + 0.002, 0.0032, half * 0.9), 0.0005),
                (bow + blade / 2 - 0.004, 0, 0),
            )
        ),
        Part(Placed(Box((0.0018, bow * 0.62, half), 0.0005), (bow + 0.002, 0, 0))),
    ]
    for place, depth in ((0.95, 0.0058), (0.76, 0.0042), (0.57, 0.0062)):
        tooth = Box((0.0024, depth / 2 + 0.001, half * 0.9), 0.0004)
        parts.append(Part(Placed(tooth, (bow + blade * place - 0.004, -depth / 2 - 0.002, 0))))
    return parts, {"pinch": _grip((0.010 - bow, 0, 0), X, Z, (half, bow, bow + blade / 2))}


def _card(size: float, kind: str) -> Built:
    w, h, half = _mix(0.040, 0.044, size), _mix(0.025, 0.028, size), 0.0009
    edge = 0.026 if kind == "pinch_broad" else 0.012
    stripes = [
        Part(
            Placed(Box((w * 0.98, h * 0.13, half + 0.0002), 0.0001), (0, h * 0.55, 0)),
            "contrast",
            felt=False,
        ),
        Part(
            Placed(Box((w * 0.14, h * 0.18, half + 0.0002), 0.0001), (w * 0.6, -h * 0.15, 0)),
            "gold",
            felt=False,
        ),
    ]
    body = Extrude(_rounded_rectangle(w, h, 0.004), half)
    grips = {"pinch": _grip((edge - w, 0, 0), X, Z, (half, h, w)),
             "support": _grip((0, 0, -half), X, Z)}  # fmt: skip
    return [Part(body), *stripes], grips


def _coin(size: float, kind: str) -> Built:
    r, half = _mix(0.013, 0.017, size), 0.0012
    disc = _cylinder(r, half * 0.7, 0.0003)
    rim = _band(r * 0.86, r * 1.01, half)
    corners = np.radians(72 * np.arange(5) + 90)
    mark = Extrude(np.stack([r * 0.5 * np.cos(corners), r * 0.5 * np.sin(corners)], axis=1), half)
    return [Part(disc), Part(rim), Part(mark)], {
        "pinch": _grip((0.009 - r, 0, 0), X, Z, (half, r, r))
    }


def _bead(size: float, kind: str) -> Built:
    r = _mix(0.006, 0.009, size)
    hole = r * 0.24
    top = float(np.degrees(np.arccos(hole / r)))
    profile = _profile(*_arc((0, 0), r, -top, top, 21))
    return [Part(Revolve(profile))], {"pinch": _grip((0, 0, 0), Z, Y, (r, r, r))}


def _die(size: float, kind: str) -> Built:
    a = _mix(0.006, 0.009, size)
    parts = [Part(Box((a, a, a), a * 0.2))]
    layouts = {1: [(0, 0)], 2: [(-1, -1), (1, 1)], 3: [(-1, -1), (0, 0), (1, 1)],
               4: [(-1, -1), (1, -1), (-1, 1), (1, 1)],
               5: [(-1, -1), (1, -1), (-1, 1), (1, 1), (0, 0)],
               6: [(-1, -1), (1, -1), (-1, 1), (1, 1), (-1, 0), (1, 0)]}  # fmt: skip
    sides = {1: np.eye(3), 6: _turn(X, 180), 2: _turn(X, 90), 5: _turn(X, -90),
             3: _turn(Y, 90), 4: _turn(Y, -90)}  # fmt: skip
    for number, turn in sides.items():
        for u, v in layouts[number]:
            pip = Placed(
                _cylinder(a * 0.2, a * 0.02, a * 0.01), (u * a * 0.5, v * a * 0.5, a), np.eye(3)
            )
            parts.append(Part(Placed(pip, rotation=turn), "contrast", felt=False))
    return parts, {"pinch": _grip((0, 0, 0), Z, Y, (a, a, a))}


def _pen(size: float, kind: str) -> Built:
    r, length = _mix(0.0042, 0.0052, size), _mix(0.135, 0.15, size)
    tip = 0.016
    barrel = _profile((0, tip), (r * 0.75, tip), (r, tip + 0.008), (r, length - 0.006),
                      (r * 0.9, length - 0.001), (0, length))  # fmt: skip
    point = _profile((0, 0), (0.0007, 0.0006), (r * 0.8, tip), (0, tip + 0.001))
    ring = Placed(_band(r * 0.5, r * 1.15, 0.0018), (0, 0, length * 0.62))
    clip = Placed(Box((0.0014, 0.0009, length * 0.13), 0.0004), (0, r * 1.35, length * 0.83))
    knob = Placed(_cylinder(r * 0.5, 0.004), (0, 0, length + 0.002))
    parts = [Part(Revolve(barrel)), Part(Revolve(point), "steel"), Part(ring, "steel"),
             Part(clip, "steel"), Part(knob, "steel")]  # fmt: skip
    return parts, {"tripod": _grip((0, 0, 0.034), Z, X, (r, r, length / 2))}


def _brush(size: float, kind: str) -> Built:
    r, length = _mix(0.0048, 0.006, size), _mix(0.15, 0.17, size)
    tuft, ferrule = 0.026, 0.016
    hair = _profile((0, 0), (0.0012, 0.002), (r * 1.5, tuft * 0.55), (r * 1.15, tuft), (0, tuft))
    sleeve = _profile((0, tuft), (r * 1.15, tuft), (r * 1.0, tuft + ferrule), (0, tuft + ferrule))
    shaft = _profile((0, tuft + ferrule), (r, tuft + ferrule), (r * 1.2, tuft + 0.05),
                     (r * 0.6, length), (0, length + 0.002))  # fmt: skip
    parts = [Part(Revolve(shaft)), Part(Revolve(hair), "contrast"), Part(Revolve(sleeve), "steel")]
    return parts, {
        "tripod": _grip((0, 0, tuft + ferrule + 0.014), Z, X, (r * 1.15, r * 1.15, length / 2))
    }


def _spoon(size: float, kind: str) -> Built:
    length, wide = _mix(0.13, 0.15, size), _mix(0.017, 0.020, size)
    long = wide * 1.45
    bowl = []
    for t in np.linspace(0, np.pi / 2, 12):
        bowl.append((np.sin(t), -0.62 * np.cos(t)))
    inner = [(x * 0.9, z * 0.82 + 0.02) for x, z in bowl[::-1]]
    profile = _profile((0.0, bowl[0][1]), *bowl[1:], *inner[:-1], (0.0, inner[-1][1]))
    # The scoop lies in the x-z plane, opening towards +y.
    scoop = Placed(
        Stretch(Revolve(profile), (wide, long, wide * 0.75)), (0, 0.004, long), _turn(X, -90)
    )
    root = 2 * long
    rise = [
        (0.004, -0.002),
        (0.0, 0.012),
        (0.0, 0.03),
        (0.003, 0.55 * length),
        (0.0045, 0.75 * length),
    ]
    neck = np.array([[0, y, root + z] for y, z in rise])
    end = Placed(
        Stretch(_sphere(1.0), (0.0062, 0.003, 0.016)), (0, 0.0045, 2 * long + length * 0.75)
    )
    parts = [Part(scoop), Part(Tube(neck, 0.0032)), Part(end)]
    return parts, {
        "tripod": _grip((0, 0.0005, 2 * long + 0.012), Z, X, (0.0034, 0.0034, length / 2))
    }


def _book(size: float, kind: str) -> Built:
    w, h, half = _mix(0.055, 0.065, size), _mix(0.078, 0.09, size), _mix(0.008, 0.011, size)
    cover = 0.0018
    parts = [
        Part(Placed(Box((w, h, cover / 2), 0.0006), (0, 0, s * (half - cover / 2))))
        for s in (-1, 1)
    ]
    parts.append(Part(Placed(Box((cover / 2, h, half), 0.0006), (-w + cover / 2, 0, 0))))
    parts.append(
        Part(Placed(Box((w - 0.003, h - 0.003, half - cover), 0.0003), (-0.001, 0, 0)), "paper")
    )
    for s in (-1, 1):
        title = Box((w * 0.55, h * 0.14, 0.0002), 0.0001)
        parts.append(Part(Placed(title, (0, h * 0.45, s * half)), "contrast", felt=False))
    grips = {
        "pinch": _grip((w - 0.028, 0, 0), -X, Z, (half, h, w)),
        "support": _grip((0, 0, -half), X, Z),
        "occlude": _grip((0, 0, 0), Y, Z, (half, w, h)),
    }  # fmt: skip
    return parts, grips


def _phone(size: float, kind: str) -> Built:
    w, h, half = _mix(0.033, 0.038, size), _mix(0.068, 0.076, size), 0.0045
    body = Extrude(_rounded_rectangle(w, h, 0.010), half)
    screen = Placed(Extrude(_rounded_rectangle(w * 0.82, h * 0.78, 0.003), 0.0003), (0, 0, half))
    home = Placed(_cylinder(w * 0.12, 0.0004, 0.0002), (0, -h * 0.89, half))
    lens = [
        Part(
            Placed(_cylinder(0.006, 0.0008, 0.0004), (-w * 0.55, h * (0.8 - 0.2 * k), -half)),
            "dark",
            felt=False,
        )
        for k in (0, 1)
    ]
    grips = {
        "pinch": _grip((0, 0.028 - h, 0), Y, Z, (half, w, h)),
        "press": _grip((0, -h * 0.1, half), X, Z), "support": _grip((0, 0, -half), X, Z),
    }  # fmt: skip
    return [
        Part(body),
        Part(screen, "screen", felt=False),
        Part(home, "dark", felt=False),
        *lens,
    ], grips


def _plate(size: float, kind: str) -> Built:
    r = _mix(0.075, 0.095, size)
    profile = _profile(
        (0, 0), (r * 0.55, 0), (r * 0.66, 0.004), (r, 0.0155), (r, 0.0185),
        (r * 0.66, 0.0075), (r * 0.55, 0.0045), (0, 0.0045),
    )  # fmt: skip
    line = Placed(_band(r * 0.62, r * 0.65, 0.0008), (0, 0, 0.0072))
    grips = {"support": _grip((0, 0, 0), X, Z)}
    return [Part(Revolve(profile, 64)), Part(line, "contrast", felt=False)], grips


def _button(size: float, kind: str) -> Built:
    r = _mix(0.017, 0.022, size)
    plate = Placed(Box((r * 2.0, r * 2.0, 0.007), 0.004), (0, 0, 0.007))
    collar = Placed(_band(r * 0.9, r * 1.22, 0.004), (0, 0, 0.016))
    dome = [(r * np.sin(t), 0.022 + r * 0.28 * np.cos(t)) for t in np.linspace(np.pi / 2, 0, 9)]
    knob = Revolve(_profile((0, 0.012), (r, 0.012), *dome[:-1], (0.0, dome[-1][1])))
    top = 0.022 + r * 0.28
    parts = [Part(knob), Part(plate, "grey"), Part(collar, "steel")]
    return parts, {"press": _grip((0, 0, top), X, Z)}


def _bell(size: float, kind: str) -> Built:
    r = _mix(0.033, 0.040, size)
    dome = [
        (r * np.sin(t) ** 0.9, 0.012 + r * 0.78 * np.cos(t)) for t in np.linspace(np.pi / 2, 0, 14)
    ]
    shell = Revolve(
        _profile((0, 0.011), (r * 1.06, 0.010), (r * 1.06, 0.013), *dome[1:-1], (0.0, dome[-1][1]))
    )
    base = _profile((0, 0), (r * 1.18, 0), (r * 1.18, 0.006), (r * 1.02, 0.011), (0, 0.011))
    top = 0.012 + r * 0.78
    stem = Placed(_cylinder(0.0035, 0.006), (0, 0, top + 0.003))
    knob = Placed(Stretch(_sphere(1.0), (0.008, 0.008, 0.0055)), (0, 0, top + 0.011))
    parts = [Part(shell), Part(Revolve(base), "dark"), Part(stem, "steel"), Part(knob, "steel")]
    return parts, {"press": _grip((0, 0, top + 0.0165), X, Z)}


def _ring(size: float, kind: str, hole: tuple[float, float] | None = None) -> Built:
    half_x, half_y = hole or (_mix(0.0085, 0.0105, size),) * 2
    thick, half = 0.0022, 0.0032
    # The resting frame's x is the side of the stone, which is the wearer's back of the finger.
    band = Stretch(_band(half_y, half_y + thick, half), (1.0, half_x / half_y, 1.0))
    top = half_y + thick
    stone = Placed(Stretch(_sphere(1.0), (0.0042, 0.0048, 0.0048)), (top + 0.0018, 0, 0))
    seat = Placed(Box((0.0016, 0.0045, 0.0042), 0.0008), (top - 0.0002, 0, 0))
    grip = _grip((0, 0, 0), Z, X, (half_x, half_y, half))
    return [Part(band), Part(seat), Part(stone)], {"wear": grip}


def _watch(size: float, kind: str, hole: tuple[float, float] | None = None) -> Built:
    half_x, half_y = hole or (_mix(0.028, 0.031, size),) * 2
    top = half_y + 0.0035
    strap = Stretch(_band(half_y, top, 0.010), (1.0, half_x / half_y, 1.0))
    case = Placed(_cylinder(0.0195, 0.005, 0.0015), (top + 0.0015, 0, 0), _turn(Y, 90))
    face = Placed(_cylinder(0.0165, 0.0008, 0.0003), (top + 0.0067, 0, 0), _turn(Y, 90))
    long = Placed(Box((0.0005, 0.0011, 0.0062), 0.0003), (top + 0.0077, 0, 0.005))
    short = Placed(Box((0.0005, 0.0045, 0.0012), 0.0003), (top + 0.0077, 0.0035, 0))
    crown = Placed(_cylinder(0.0025, 0.002), (top + 0.0015, 0.0, -0.0205))
    tick = Box((0.0004, 0.001, 0.0014), 0.0002)
    ticks = [
        Placed(tick, (top + 0.0074, 0.0138 * np.sin(turn), 0.0138 * np.cos(turn)))
        for turn in np.radians([0, 90, 180, 270])
    ]
    parts = [Part(strap), Part(case), Part(face, "pale", felt=False), Part(crown, "steel")]
    parts += [Part(mark, "dark", felt=False) for mark in (long, short, *ticks)]
    return parts, {"wear": _grip((0, 0, 0), Z, X, (half_x, half_y, 0.010))}


def _box(size: float, kind: str) -> Built:
    if kind == "both":
        w, d, h = _mix(0.085, 0.115, size), _mix(0.06, 0.08, size), _mix(0.05, 0.07, size)
    else:
        w, d, h = _mix(0.021, 0.027, size), _mix(0.05, 0.06, size), _mix(0.055, 0.07, size)
    lid = h * 0.16
    parts = [
        Part(Box((w * 0.965, d * 0.965, h), 0.002)),
        Part(Placed(Box((w, d, lid), 0.002), (0, 0, h - lid + 0.001))),
        Part(
            Placed(Box((w * 0.18, d + 0.0008, lid * 0.9), 0.0006), (0, 0, h - lid + 0.0022)),
            "contrast",
            felt=False,
        ),
    ]
    grips = {
        "both": _grip((0, 0, 0), X, Z, (w, d, h)), "occlude": _grip((0, 0, 0), Z, X, (w, d, h)),
    }  # fmt: skip
    return parts, grips


def _bowl(size: float, kind: str) -> Built:
    r = _mix(0.075, 0.10, size) if kind == "both" else _mix(0.055, 0.065, size)
    wall = 0.0035
    outer = [(r * np.sin(t), r * 0.62 * (1 - np.cos(t))) for t in np.linspace(0.42, np.pi / 2, 14)]
    low = outer[0][1]
    outer = [(x, z - low + 0.006) for x, z in outer]
    rim = outer[-1]
    inner = [(x - wall, z + wall * 0.6) for x, z in outer[::-1]]
    foot = outer[0][0]
    profile = _profile(
        (0, 0), (foot * 0.95, 0), (foot, 0.005), *outer[1:], (rim[0] - wall / 2, rim[1] + wall),
        *inner[1:], (0, inner[-1][1]),
    )  # fmt: skip
    grips = {"both": _grip((0, 0, rim[1] * 0.55), X, Z), "support": _grip((0, 0, 0), X, Z)}
    return [Part(Revolve(profile, 64))], grips


_BUILDERS: dict[str, Callable[..., Built]] = {
    "apple": _apple, "bag": _bag, "ball": _ball, "bead": _bead, "bell": _bell, "book": _book,
    "bottle": _bottle, "bowl": _bowl, "box": _box, "brush": _brush, "bucket": _bucket,
    "button": _button, "can": _can, "card": _card, "coin": _coin, "die": _die, "egg": _egg,
    "key": _key, "mug": _mug, "pen": _pen, "phone": _phone, "plate": _plate, "ring": _ring,
    "spoon": _spoon, "stick": _stick, "watch": _watch,
}  # fmt: skip


# Which of a grip's directions become the object frame's axes: (x, y, z), None follows.
_FRAMES = {
    **dict.fromkeys(("wrap", "sphere", "pinch", "pinch_broad", "tripod", "occlude"), "nxa"),
    **dict.fromkeys(("hook", "wear"), "xna"),
    **dict.fromkeys(("support", "press", "both"), "axn"),
}
GRIP_KINDS = tuple(_FRAMES)


def make_object(
    kind: str,
    grip: str | None = None,
    size: float = 0.5,
    hole: tuple[float, float] | None = None,
) -> ObjectShape:
    """Build one object in the frame of the grip it is made for.

    Frames: wrap, occlude, tripod: z along the gripped part (tool tips at -z). pinch, pinch_broad
    (whole finger pads), sphere: x thin, z into the object from its gripped edge. hook: z along the
    bar, y up. wear: z through the hole, y to the stone or dial. support, press: z up, origin at the
    touched point. both: x between the hands, z up. None: the resting frame.

    Args:
        kind: one of vocabulary.OBJECTS.
        size: 0 (smallest of its natural range) to 1 (largest).
        hole: inner half axes (x, y) of ring and watch in metres, to fit a finger or a wrist.

    Raises:
        HoiError: for an unknown object or grip, a grip this object does not offer, or a hole in
            something that is not worn.
    """
    if kind not in _BUILDERS:
        raise HoiError(
            f"no object '{kind}' in the tiny world", f"Choose one of: {', '.join(_BUILDERS)}."
        )
    if hole is not None and kind not in ("ring", "watch"):
        raise HoiError(f"a hole was given for '{kind}'", "Give it for ring and watch only.")
    extra = {} if hole is None else {"hole": hole}
    parts, grips = _BUILDERS[kind](size, grip or "", **extra)
    offered = grips | ({"pinch_broad": grips["pinch"]} if "pinch" in grips else {})
    if grip is not None and grip not in offered:
        raise HoiError(f"'{kind}' offers no grip '{grip}'", f"Choose one of: {', '.join(offered)}.")
    origin, axes, half_extents = np.zeros(3), np.eye(3), None
    if grip is not None:
        taken = offered[grip]
        origin, half_extents = taken.centre, taken.half_extents
        axes = _axes(_FRAMES[grip], taken)
    shape = ObjectShape(kind, (0.0, 0.0, 0.0), tuple(parts), origin, axes)
    low, high = shape.bounds
    half_x, half_y, half_z = (high - low) / 2 if half_extents is None else half_extents
    return replace(shape, half_extents=(float(half_x), float(half_y), float(half_z)))


def _axes(order: str, grip: Grip) -> Array:
    """Rows are the frame's axes; 'a' takes the grip's axis, 'n' its normal, 'x' what is left."""
    given = {"a": grip.axis, "n": grip.normal, "x": np.zeros(3)}
    rows = np.stack([given[letter] for letter in order])
    left = order.index("x")
    rows[left] = np.cross(rows[(left + 1) % 3], rows[(left + 2) % 3])
    return rows
