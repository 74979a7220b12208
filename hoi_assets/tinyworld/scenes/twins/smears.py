"""Spoils a rendered picture the way diffusion models do: melted hands, hands grown into objects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hoi_assets.tinyworld.scenes.rigid import Array

Rng = np.random.Generator
Parts = NDArray[np.uint8]

FINGER_PARTS = (2, 3, 4, 5, 6)  # places in vocabulary.PARTS
PALM_PART, FOREARM_PART, OBJECT_PART = 1, 7, 8


@dataclass(frozen=True)
class Smeared:
    """A spoilt picture, RGB, and its part labels (h, w)."""

    image: Image.Image
    parts: Parts


def melt(image: Image.Image, parts: Parts, rng: Rng) -> Smeared:
    """Let the fingers of a picture run into each other and into what is round them.

    Lengths are shares of the picture's side.
    """
    from scipy import ndimage

    side = parts.shape[0]
    hand = np.isin(parts, (PALM_PART, *FINGER_PARTS))
    fingers = np.argwhere(np.isin(parts, FINGER_PARTS))
    spots = fingers if len(fingers) else np.argwhere(hand)
    centre = spots[int(rng.integers(len(spots)))]
    reach = float(np.clip(0.8 * np.sqrt(hand.sum()), 0.16 * side, 0.34 * side))
    rows, columns = np.mgrid[0:side, 0:side]
    away = np.hypot(rows - centre[0], columns - centre[1]) / reach
    near = np.clip(1.6 - 1.6 * away, 0.0, 1.0)
    soft = ndimage.gaussian_filter(hand.astype(float), 0.02 * side)
    strength = near * np.clip(2.5 * soft, 0.0, 1.0)
    waves = [_noise(side, rng, cells=6) * 0.075 * side for _ in range(2)]
    drip = rng.uniform(-0.05, 0.05, 2) * side + np.array([-0.03 * side, 0.0])
    source = np.stack(
        [grid + strength * (wave + pull) for grid, wave, pull in
         zip((rows, columns), waves, drip, strict=True)]
    )  # fmt: skip
    pixels = np.asarray(image, dtype=np.float64)
    warped = _sampled(pixels, source)
    blurred = ndimage.gaussian_filter(warped, (0.012 * side, 0.012 * side, 0))
    run = _run(warped, float(rng.uniform(0, np.pi)), 0.05 * side)
    soft_strength = np.clip(strength, 0.0, 1.0)[..., None]
    mixed = warped + soft_strength * (0.45 * (blurred - warped) + 0.35 * (run - warped))
    return Smeared(_as_image(mixed), _sampled_labels(parts, source))


def grow_together(image: Image.Image, parts: Parts, rng: Rng) -> Smeared | None:
    """Let hand and object flow into one another where they meet; None where they do not."""
    from scipy import ndimage

    side = parts.shape[0]
    hand = np.isin(parts, (PALM_PART, *FINGER_PARTS, FOREARM_PART))
    thing = parts == OBJECT_PART
    if not hand.any() or not thing.any():
        return None
    to_hand, to_thing = (ndimage.distance_transform_edt(~mask) for mask in (hand, thing))
    meeting = np.maximum(to_hand, to_thing)
    width = float(rng.uniform(0.07, 0.11)) * side
    depth = np.clip(1.0 - meeting / width, 0.0, 1.0)
    wave = _noise(side, rng, cells=9)
    # Where the noise is high, skin covers the object; where it is low, the object the skin.
    body = np.asarray(image, dtype=np.float64)
    both = hand | thing
    skin, paint = (_filled(body, mask) for mask in (hand, thing))
    share = 1.0 / (1.0 + np.exp(-5.0 * (wave + 0.9 * np.sign(to_thing - to_hand) * (1 - depth))))
    light = body.mean(axis=-1, keepdims=True)
    flowed = share[..., None] * skin + (1.0 - share[..., None]) * paint
    flowed = flowed * (light / np.maximum(ndimage.gaussian_filter(light, (4, 4, 0)), 1.0)) ** 0.5
    blurred = ndimage.gaussian_filter(flowed, (0.012 * side, 0.012 * side, 0))
    within = ndimage.gaussian_filter((both & (depth > 0)).astype(float), 0.008 * side)
    amount = (within * np.clip(2.0 * depth, 0.0, 1.0))[..., None]
    mixed = body + amount * (0.5 * (flowed + blurred) - body)
    labels = parts.copy()
    swap = (amount[..., 0] > 0.5) & both
    labels[swap & hand & (share < 0.5)] = OBJECT_PART
    labels[swap & thing & (share >= 0.5)] = PALM_PART
    return Smeared(_as_image(mixed), labels)


def _noise(side: int, rng: Rng, cells: int) -> Array:
    """Smooth noise (side, side) of about unit deviation, `cells` bumps across."""
    from scipy import ndimage

    coarse = rng.normal(size=(cells + 3, cells + 3))
    fine: Array = ndimage.zoom(coarse, side / cells, order=3)[:side, :side]
    return fine / max(float(fine.std()), 1e-9)


def _sampled(pixels: Array, source: Array) -> Array:
    """Pixels (h, w, 3) at source places (2, h, w)."""
    from scipy import ndimage

    channels = [
        ndimage.map_coordinates(pixels[..., channel], source, order=1, mode="nearest")
        for channel in range(3)
    ]
    return np.stack(channels, axis=-1)


def _sampled_labels(parts: Parts, source: Array) -> Parts:
    from scipy import ndimage

    found: Parts = ndimage.map_coordinates(parts, source, order=0, mode="nearest")
    return found


def _run(pixels: Array, angle: float, length: float) -> Array:
    """Pixels smeared along a direction, as wet paint is."""

    rows, columns = np.mgrid[0 : pixels.shape[0], 0 : pixels.shape[1]].astype(np.float64)
    total = np.zeros_like(pixels)
    steps = np.linspace(-0.5, 0.5, 7) * length
    for step in steps:
        source = np.stack([rows + step * np.sin(angle), columns + step * np.cos(angle)])
        total += _sampled(pixels, source)
    return total / len(steps)


def _filled(pixels: Array, mask: NDArray[np.bool_]) -> Array:
    """Colours of a masked region carried on to the pixels round it."""
    from scipy import ndimage

    _, nearest = ndimage.distance_transform_edt(~mask, return_indices=True)
    carried = pixels[tuple(nearest)]
    smooth: Array = ndimage.gaussian_filter(carried, (2.0, 2.0, 0))
    return np.where(mask[..., None], pixels, smooth)


def _as_image(pixels: Array) -> Image.Image:
    return Image.fromarray(np.clip(np.round(pixels), 0, 255).astype(np.uint8))
