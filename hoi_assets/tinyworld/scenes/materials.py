"""Colours, lights and materials by name."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hoi_assets.tinyworld.scenes.rigid import Array
from hoi_assets.tinyworld.scenes.stage import Look

METAL_ROUGHNESS = 0.45  # a sharper lobe is noisy where emitters alone are sampled
# sRGB, 0..255.
COLOUR_SRGB: dict[str, tuple[int, int, int]] = {
    "red": (200, 24, 28),
    "orange": (240, 120, 16),
    "yellow": (244, 208, 32),
    "green": (36, 140, 52),
    "blue": (28, 72, 190),
    "purple": (120, 44, 160),
    "white": (236, 236, 232),
    "black": (26, 26, 28),
}
SKIN_SRGB: dict[str, tuple[int, int, int]] = {
    "light": (236, 194, 170),
    "tan": (206, 150, 108),
    "brown": (148, 94, 62),
    "dark": (84, 50, 36),
}
WALL_SRGB: dict[str, tuple[int, int, int]] = {
    "grey wall": (128, 130, 132),
    "white wall": (226, 226, 222),
    "blue wall": (122, 158, 196),
    "green wall": (136, 172, 136),
    "beige wall": (212, 192, 156),
}
ROLE_SRGB: dict[str, tuple[int, int, int]] = {
    "dark": (34, 34, 36),
    "pale": (232, 230, 222),
    "paper": (238, 230, 208),
    "grey": (150, 152, 156),
    "wood": (96, 62, 34),
    "leaf": (64, 120, 36),
    "gold": (206, 164, 72),
    "screen": (58, 74, 92),
    "water": (150, 196, 226),
}
PALE_COLOURS = ("white", "yellow", "orange")


@dataclass(frozen=True)
class Light:
    """A lamp (direction relative to the camera, size in metres, power) and the ambient light.

    Attributes:
        direction: (right, up, towards the camera) as the camera sees it.
    """

    direction: tuple[float, float, float]
    half_size: float
    power: float
    lamp_rgb: tuple[float, float, float]
    ambient: float


LIGHT_RIGS: dict[str, Light] = {
    "soft light": Light((-0.35, 0.9, 0.95), 0.45, 1.5, (1.0, 0.98, 0.96), 0.6),
    "side light": Light((-1.0, 0.25, 0.35), 0.16, 2.6, (1.0, 0.98, 0.95), 0.24),
    "warm light": Light((0.45, 0.8, 0.9), 0.30, 1.7, (1.0, 0.74, 0.46), 0.5),
    "dim light": Light((0.3, 0.9, 0.8), 0.35, 0.36, (0.95, 0.97, 1.0), 0.145),
}


def skin_bsdf(look: Look, rng: np.random.Generator) -> dict[str, Any]:
    rgb = linear_from_srgb(SKIN_SRGB[look.skin_tone or "tan"])
    rgb = rgb * rng.uniform(0.92, 1.07) * (1 + 0.04 * rng.uniform(-1, 1, 3))
    return {
        "type": "principled",
        "base_color": {"type": "rgb", "value": clipped(rgb)},
        "roughness": 0.52,
        "specular": 0.4,
        "flatness": 0.4,
    }


def paint_bsdf(look: Look, role: str) -> dict[str, Any]:
    if role == "steel":
        return _principled((178, 180, 184), roughness=METAL_ROUGHNESS, metallic=0.9)
    if role == "contrast":
        pale = look.colour not in PALE_COLOURS
        return _principled(ROLE_SRGB["pale" if pale else "dark"], roughness=0.45, specular=0.4)
    if role != "colour":
        return _principled(ROLE_SRGB[role], roughness=0.5, specular=0.4)
    srgb = COLOUR_SRGB[look.colour]
    if look.material == "metal":
        return _principled(srgb, roughness=METAL_ROUGHNESS, metallic=0.75, specular=0.8)
    if look.material == "rubber":
        return _principled(srgb, roughness=0.85, specular=0.15)
    return _principled(srgb, roughness=0.25, specular=0.55)


def _principled(
    srgb: tuple[int, int, int], roughness: float, metallic: float = 0.0, specular: float = 0.5
) -> dict[str, Any]:
    return {
        "type": "principled",
        "base_color": {"type": "rgb", "value": clipped(linear_from_srgb(srgb))},
        "roughness": roughness,
        "metallic": metallic,
        "specular": specular,
    }


def linear_from_srgb(srgb: tuple[int, int, int]) -> Array:
    value = np.asarray(srgb, dtype=np.float64) / 255.0
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def srgb8_from_linear(linear: Array) -> NDArray[np.uint8]:
    # Straight up to the knee, then a shoulder that reaches white only in the limit.
    knee = 0.6
    over = np.maximum(linear - knee, 0.0) / (1.0 - knee)
    value = np.minimum(np.maximum(linear, 0.0), knee) + (1.0 - knee) * over / (1.0 + over)
    value = np.where(value <= 0.0031308, value * 12.92, 1.055 * value ** (1 / 2.4) - 0.055)
    return np.round(value * 255.0).astype(np.uint8)


def clipped(rgb: Array) -> list[float]:
    return [float(c) for c in np.clip(rgb, 0.0, 0.95)]


def ambient_tint(rig: Light) -> list[float]:
    return [0.5 + 0.5 * c for c in rig.lamp_rgb]
