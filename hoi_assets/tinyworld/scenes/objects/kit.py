"""Profiles, simple solids and grips that the objects are built from."""

from typing import Any

import numpy as np

from hoi_assets.tinyworld.scenes.objects.shape import Grip, Part
from hoi_assets.tinyworld.scenes.objects.solids import Revolve
from hoi_assets.tinyworld.scenes.rigid import Array, rotation_about

X, Y, Z = np.eye(3)
Built = tuple[list[Part], dict[str, Grip]]


def make_grip(
    centre: Any, axis: Any, normal: Any, half_extents: tuple[float, float, float] | None = None
) -> Grip:
    return Grip(
        np.asarray(centre, float), np.asarray(axis, float), np.asarray(normal, float), half_extents
    )


def as_profile(*points: tuple[float, float]) -> Array:
    return np.asarray(points, dtype=np.float64)


def arc(
    centre: tuple[float, float], radius: float, start: float, stop: float, n: int = 10
) -> list[tuple[float, float]]:
    """Points on an arc, angles in degrees."""
    angle = np.radians(np.linspace(start, stop, n))
    return [(centre[0] + radius * c, centre[1] + radius * s)
            for c, s in zip(np.cos(angle), np.sin(angle), strict=True)]  # fmt: skip


def sphere(radius: float) -> Revolve:
    points = arc((0, 0), radius, -90, 90, 25)
    return Revolve(as_profile((0.0, -radius), *points[1:-1], (0.0, radius)))


def cylinder(radius: float, half: float, bevel: float = 0.001) -> Revolve:
    return Revolve(
        as_profile(
            (0, -half),
            *arc((radius - bevel, -half + bevel), bevel, -90, 0, 4),
            *arc((radius - bevel, half - bevel), bevel, 0, 90, 4),
            (0, half),
        )
    )


def flat_ring(inner: float, outer: float, half: float) -> Revolve:
    """A flat ring about z."""
    mid, thick = (inner + outer) / 2, (outer - inner) / 2
    b = min(thick, half) * 0.6
    return Revolve(
        as_profile(
            *arc((mid + thick - b, -half + b), b, -90, 0, 4),
            *arc((mid + thick - b, half - b), b, 0, 90, 4),
            *arc((mid - thick + b, half - b), b, 90, 180, 4),
            *arc((mid - thick + b, -half + b), b, 180, 270, 4),
        )
    )


def rounded_rectangle(half_x: float, half_y: float, corner: float) -> Array:
    x, y = half_x - corner, half_y - corner
    return as_profile(
        *arc((x, y), corner, 0, 90, 6), *arc((-x, y), corner, 90, 180, 6),
        *arc((-x, -y), corner, 180, 270, 6), *arc((x, -y), corner, 270, 360, 6),
    )  # fmt: skip


def turn_about(axis: Array, degrees: float) -> Array:
    """Rotation matrix (3, 3) about a unit axis."""
    return rotation_about(axis, np.radians(degrees))


def mix(small: float, large: float, size: float) -> float:
    return small + (large - small) * size
