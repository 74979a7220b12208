"""Objects that lie on the palm, are pressed or are worn."""

from collections.abc import Callable

import numpy as np

from hoi_assets.tinyworld.scenes.objects.kit import (
    Built,
    X,
    Y,
    Z,
    as_profile,
    cylinder,
    flat_ring,
    make_grip,
    mix,
    rounded_rectangle,
    sphere,
    turn_about,
)
from hoi_assets.tinyworld.scenes.objects.shape import Part
from hoi_assets.tinyworld.scenes.objects.solids import Box, Extrude, Placed, Revolve, Stretch


def _book(size: float, kind: str) -> Built:
    w, h, half = mix(0.055, 0.065, size), mix(0.078, 0.09, size), mix(0.008, 0.011, size)
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
        "pinch": make_grip((w - 0.028, 0, 0), -X, Z, (half, h, w)),
        "support": make_grip((0, 0, -half), X, Z),
        "occlude": make_grip((0, 0, 0), Y, Z, (half, w, h)),
    }  # fmt: skip
    return parts, grips


def _phone(size: float, kind: str) -> Built:
    w, h, half = mix(0.033, 0.038, size), mix(0.068, 0.076, size), 0.0045
    body = Extrude(rounded_rectangle(w, h, 0.010), half)
    screen = Placed(Extrude(rounded_rectangle(w * 0.82, h * 0.78, 0.003), 0.0003), (0, 0, half))
    home = Placed(cylinder(w * 0.12, 0.0004, 0.0002), (0, -h * 0.89, half))
    lens = [
        Part(
            Placed(cylinder(0.006, 0.0008, 0.0004), (-w * 0.55, h * (0.8 - 0.2 * k), -half)),
            "dark",
            felt=False,
        )
        for k in (0, 1)
    ]
    grips = {
        "pinch": make_grip((0, 0.028 - h, 0), Y, Z, (half, w, h)),
        "press": make_grip((0, -h * 0.1, half), X, Z), "support": make_grip((0, 0, -half), X, Z),
    }  # fmt: skip
    return [
        Part(body),
        Part(screen, "screen", felt=False),
        Part(home, "dark", felt=False),
        *lens,
    ], grips


def _plate(size: float, kind: str) -> Built:
    r = mix(0.075, 0.095, size)
    profile = as_profile(
        (0, 0), (r * 0.55, 0), (r * 0.66, 0.004), (r, 0.0155), (r, 0.0185),
        (r * 0.66, 0.0075), (r * 0.55, 0.0045), (0, 0.0045),
    )  # fmt: skip
    line = Placed(flat_ring(r * 0.62, r * 0.65, 0.0008), (0, 0, 0.0072))
    grips = {"support": make_grip((0, 0, 0), X, Z)}
    return [Part(Revolve(profile, 64)), Part(line, "contrast", felt=False)], grips


def _button(size: float, kind: str) -> Built:
    r = mix(0.017, 0.022, size)
    plate = Placed(Box((r * 2.0, r * 2.0, 0.007), 0.004), (0, 0, 0.007))
    collar = Placed(flat_ring(r * 0.9, r * 1.22, 0.004), (0, 0, 0.016))
    dome = [(r * np.sin(t), 0.022 + r * 0.28 * np.cos(t)) for t in np.linspace(np.pi / 2, 0, 9)]
    knob = Revolve(as_profile((0, 0.012), (r, 0.012), *dome[:-1], (0.0, dome[-1][1])))
    top = 0.022 + r * 0.28
    parts = [Part(knob), Part(plate, "grey"), Part(collar, "steel")]
    return parts, {"press": make_grip((0, 0, top), X, Z)}


def _bell(size: float, kind: str) -> Built:
    r = mix(0.033, 0.040, size)
    dome = [
        (r * np.sin(t) ** 0.9, 0.012 + r * 0.78 * np.cos(t)) for t in np.linspace(np.pi / 2, 0, 14)
    ]
    shell = Revolve(
        as_profile(
            (0, 0.011), (r * 1.06, 0.010), (r * 1.06, 0.013), *dome[1:-1], (0.0, dome[-1][1])
        )
    )
    base = as_profile((0, 0), (r * 1.18, 0), (r * 1.18, 0.006), (r * 1.02, 0.011), (0, 0.011))
    top = 0.012 + r * 0.78
    stem = Placed(cylinder(0.0035, 0.006), (0, 0, top + 0.003))
    knob = Placed(Stretch(sphere(1.0), (0.008, 0.008, 0.0055)), (0, 0, top + 0.011))
    parts = [Part(shell), Part(Revolve(base), "dark"), Part(stem, "steel"), Part(knob, "steel")]
    return parts, {"press": make_grip((0, 0, top + 0.0165), X, Z)}


def _ring(size: float, kind: str, hole: tuple[float, float] | None = None) -> Built:
    half_x, half_y = hole or (mix(0.0085, 0.0105, size),) * 2
    thick, half = 0.0022, 0.0032
    # The resting frame's x is the side of the stone, which is the wearer's back of the finger.
    band = Stretch(flat_ring(half_y, half_y + thick, half), (1.0, half_x / half_y, 1.0))
    top = half_y + thick
    stone = Placed(Stretch(sphere(1.0), (0.0042, 0.0048, 0.0048)), (top + 0.0018, 0, 0))
    seat = Placed(Box((0.0016, 0.0045, 0.0042), 0.0008), (top - 0.0002, 0, 0))
    grip = make_grip((0, 0, 0), Z, X, (half_x, half_y, half))
    return [Part(band), Part(seat), Part(stone)], {"wear": grip}


def _watch(size: float, kind: str, hole: tuple[float, float] | None = None) -> Built:
    half_x, half_y = hole or (mix(0.028, 0.031, size),) * 2
    top = half_y + 0.0035
    strap = Stretch(flat_ring(half_y, top, 0.010), (1.0, half_x / half_y, 1.0))
    case = Placed(cylinder(0.0195, 0.005, 0.0015), (top + 0.0015, 0, 0), turn_about(Y, 90))
    face = Placed(cylinder(0.0165, 0.0008, 0.0003), (top + 0.0067, 0, 0), turn_about(Y, 90))
    long = Placed(Box((0.0005, 0.0011, 0.0062), 0.0003), (top + 0.0077, 0, 0.005))
    short = Placed(Box((0.0005, 0.0045, 0.0012), 0.0003), (top + 0.0077, 0.0035, 0))
    crown = Placed(cylinder(0.0025, 0.002), (top + 0.0015, 0.0, -0.0205))
    tick = Box((0.0004, 0.001, 0.0014), 0.0002)
    ticks = [
        Placed(tick, (top + 0.0074, 0.0138 * np.sin(turn), 0.0138 * np.cos(turn)))
        for turn in np.radians([0, 90, 180, 270])
    ]
    parts = [Part(strap), Part(case), Part(face, "pale", felt=False), Part(crown, "steel")]
    parts += [Part(mark, "dark", felt=False) for mark in (long, short, *ticks)]
    return parts, {"wear": make_grip((0, 0, 0), Z, X, (half_x, half_y, 0.010))}


TOUCHED_OBJECTS: dict[str, Callable[..., Built]] = {
    "bell": _bell,
    "book": _book,
    "button": _button,
    "phone": _phone,
    "plate": _plate,
    "ring": _ring,
    "watch": _watch,
}
