"""The pinhole camera, and where it is placed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hoi_assets.tinyworld.scenes.rigid import Array
from hoi_assets.tinyworld.scenes.stage import Stage

FIELD_OF_VIEW_DEG = 24.0
MIN_RISE = 0.25  # a camera that looks at a table stays above it


@dataclass(frozen=True)
class Camera:
    """A pinhole camera looking at `target` from `eye`; square picture, field of view in degrees."""

    eye: tuple[float, float, float]
    target: tuple[float, float, float]
    up: tuple[float, float, float]
    field_of_view_deg: float

    def as_list(self) -> list[float]:
        """eye (3), target (3), up (3), field of view: ten numbers, metres and degrees."""
        return [*self.eye, *self.target, *self.up, self.field_of_view_deg]

    def axes(self) -> Array:
        """Rows: right, up, forward; unit vectors in the world."""
        forward = np.subtract(self.target, self.eye)
        forward = forward / np.linalg.norm(forward)
        right = np.cross(forward, self.up)
        right = right / np.linalg.norm(right)
        return np.stack([right, np.cross(right, forward), forward])

    def project(self, points: Array, size: int) -> Array:
        """World points (n, 3) to pixels (n, 2), x right and y down, of a `size` px picture."""
        seen = (np.asarray(points) - np.asarray(self.eye)) @ self.axes().T
        scale = size / (2 * np.tan(np.radians(self.field_of_view_deg) / 2))
        return size / 2 + np.stack([seen[:, 0], -seen[:, 1]], axis=1) / seen[:, 2:] * scale


def aim(
    stage: Stage,
    direction: Sequence[float] | Array,
    seed: int,
    margin: float = 1.0,
    jitter: float = 1.0,
) -> Camera:
    """Place a camera along `direction` (from the scene towards it), with jitter from the seed."""
    rng = np.random.default_rng([seed, 0xCA])
    towards = np.asarray(direction, dtype=np.float64)
    towards = towards / np.linalg.norm(towards)
    up = np.array([0.0, 0.0, 1.0])
    if abs(towards[2]) > 0.9:
        up = np.array([0.0, 1.0, 0.0])
    right = np.cross(up, towards)
    right /= np.linalg.norm(right)
    above = np.cross(towards, right)
    swing = np.radians(jitter * 11.0) * rng.uniform(-1, 1, 2)
    towards = towards + np.tan(swing[0]) * right + np.tan(swing[1]) * above
    towards /= np.linalg.norm(towards)
    if stage.support_z is not None and towards[2] < MIN_RISE:
        towards[2] = MIN_RISE
        towards /= np.linalg.norm(towards)
    roll = np.radians(jitter * 5.0) * rng.uniform(-1, 1)
    up = above * np.cos(roll) + right * np.sin(roll)
    off = jitter * 0.07 * stage.radius * rng.uniform(-1, 1, 2)
    target = stage.centre + off[0] * right + off[1] * above
    fill = margin * (1 + jitter * 0.07 * rng.uniform(-1, 1))
    distance = stage.radius * fill / np.sin(np.radians(FIELD_OF_VIEW_DEG) / 2)
    eye = target + towards * distance
    return Camera(as_triple(eye), as_triple(target), as_triple(up), FIELD_OF_VIEW_DEG)


def as_triple(vector: Any) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in vector)
    return x, y, z
