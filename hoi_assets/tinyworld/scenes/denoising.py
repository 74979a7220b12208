"""Removes the sampling noise of a traced picture, guided by its noise-free geometry."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hoi_assets.tinyworld.scenes.first_hits import FirstHits
from hoi_assets.tinyworld.scenes.rigid import Array

Planes = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Smoothing:
    """How a picture is smoothed.

    Attributes:
        tone: difference of log light at which a neighbour counts a third (1/e).
        normal: weight of a difference of normals; the higher, the sharper are edges.
        rounds: of the filter, each twice as wide as the one before.
    """

    tone: float = 0.16
    normal: float = 3.0
    rounds: int = 3


def smooth(colour: Planes, seen: FirstHits, smoothing: Smoothing) -> Array:
    """Cross-bilateral filter of a noisy picture (h, w, 3), guided by noise-free surfaces."""
    surface = seen.ranks()[..., None] * 10.0
    features = np.concatenate([surface, seen.normal * smoothing.normal], axis=-1).astype(np.float32)
    guides = np.ascontiguousarray(np.moveaxis(features, -1, 0))
    planes: Planes = np.ascontiguousarray(np.moveaxis(colour, -1, 0))
    for power in range(smoothing.rounds):
        planes = _filter_round(planes, guides, 2**power, smoothing.tone)
    return np.moveaxis(planes, 0, -1).astype(np.float64)


def remove_fireflies(colour: Array) -> Array:
    """Bound each pixel by the third brightest of its 3 x 3 neighbourhood."""
    height, width = colour.shape[:2]
    wide = np.pad(colour.max(axis=-1), 1, mode="edge")
    around = np.stack(
        [wide[y : y + height, x : x + width] for y in range(3) for x in range(3)], axis=-1
    )
    bound = np.sort(around, axis=-1)[..., 6]
    own = np.maximum(colour.max(axis=-1), 1e-6)
    return colour * np.minimum(1.0, bound * 1.15 / own)[..., None]


def _filter_round(light: Planes, guides: Planes, reach: int, tolerance: float) -> Planes:
    """One round over planes of light (3, h, w) and of guiding features (n, h, w); neighbours are
    `reach` pixels away."""
    edge = ((0, 0), (reach, reach), (reach, reach))
    light_wide, guides_wide = np.pad(light, edge, mode="edge"), np.pad(guides, edge, mode="edge")
    tone, tone_wide = _tone(light), _tone(light_wide)
    height, width = light.shape[1:]
    total, weights = np.zeros_like(light), np.zeros((height, width))
    for dy in range(-reach, reach + 1, reach):
        for dx in range(-reach, reach + 1, reach):
            window = (slice(reach + dy, reach + dy + height), slice(reach + dx, reach + dx + width))
            gap = np.zeros((height, width), dtype=guides.dtype)
            for plane, plane_wide in zip(guides, guides_wide, strict=True):
                gap += (plane_wide[window] - plane) ** 2
            contrast = ((tone_wide[window] - tone) / tolerance) ** 2
            place = (dx * dx + dy * dy) / (2 * (1.2 * reach) ** 2)
            weight = np.exp(-gap - contrast - place)
            for plane, plane_wide in zip(total, light_wide, strict=True):
                plane += weight * plane_wide[window]
            weights += weight
    return total / weights


def _tone(light: Planes) -> Planes:
    """Log of the mean of three planes (3, h, w)."""
    return np.log1p(light.mean(axis=0))
