"""Removes the sampling noise of a traced picture, guided by its noise-free geometry."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hoi_assets.tinyworld.scenes.first_hits import FirstHits
from hoi_assets.tinyworld.scenes.rigid import Array


def smooth(colour: Array, seen: FirstHits, radius: int = 1, rounds: int = 3) -> Array:
    """Cross-bilateral filter of a noisy picture (h, w, 3), guided by noise-free surfaces."""
    _, surface = np.unique(seen.name, return_inverse=True)
    features = np.concatenate(
        [surface.reshape(*seen.name.shape, 1) * 10.0, seen.normal * 3.0], axis=-1
    ).astype(np.float32)
    for spacing in (2**power for power in range(rounds)):
        colour = _filter_round(colour, features, radius, spacing)
    return colour


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


def _filter_round(
    light: Array, features: NDArray[np.floating[Any]], radius: int, spacing: int
) -> Array:
    reach = radius * spacing
    edge = ((reach, reach), (reach, reach), (0, 0))
    light_wide = np.pad(light, edge, mode="edge")
    features_wide = np.pad(features, edge, mode="edge")
    tone = np.log1p(light.mean(axis=-1))
    tone_wide = np.log1p(light_wide.mean(axis=-1))
    height, width = light.shape[:2]
    total, weights = np.zeros_like(light), np.zeros((height, width, 1))
    for dy in range(-reach, reach + 1, spacing):
        for dx in range(-reach, reach + 1, spacing):
            window = (slice(reach + dy, reach + dy + height), slice(reach + dx, reach + dx + width))
            gap = ((features_wide[window] - features) ** 2).sum(axis=-1)
            contrast = ((tone_wide[window] - tone) / 0.16) ** 2
            place = (dx * dx + dy * dy) / (2 * (1.2 * spacing) ** 2)
            weight = np.exp(-gap - contrast - place)[..., None]
            total += weight * light_wide[window]
            weights += weight
    return total / weights
