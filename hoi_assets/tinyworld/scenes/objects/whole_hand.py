"""Objects that are held in the whole hand or carried by a handle."""

from collections.abc import Callable

import numpy as np

from hoi_assets.tinyworld.scenes.objects.kit import (
    Built,
    X,
    Y,
    Z,
    arc,
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
from hoi_assets.tinyworld.scenes.objects.solids import Box, Extrude, Placed, Revolve, Stretch, Tube


def _bottle(size: float, kind: str) -> Built:
    r, h = mix(0.025, 0.033, size), mix(0.18, 0.22, size)
    neck, shoulder = r * 0.38, h * 0.68
    body = as_profile(
        (0, 0), *arc((r - 0.004, 0.004), 0.004, -90, 0, 4),
        *[(r - (r - neck) * (1 - np.cos(t * np.pi)) / 2, shoulder + t * h * 0.16)
          for t in np.linspace(0, 1, 9)],
        (neck, h * 0.92), (0, h * 0.92),
    )  # fmt: skip
    cap = Placed(cylinder(neck * 1.25, h * 0.045, 0.0015), (0, 0, h * 0.94))
    grips = {"wrap": make_grip((0, 0, h * 0.38), Z, X, (r, r, h * 0.34))}
    return [Part(Revolve(body)), Part(cap, "contrast")], grips


def _can(size: float, kind: str) -> Built:
    r, h = mix(0.027, 0.034, size), mix(0.105, 0.125, size)
    body = as_profile((0, 0.005), (r * 0.86, 0.005), (r, 0.012), (r, h - 0.012),
                    (r * 0.88, h - 0.003), (0, h - 0.003))  # fmt: skip
    foot = Placed(cylinder(r * 0.86, 0.004), (0, 0, 0.004))
    lid = Placed(cylinder(r * 0.8, 0.002, 0.0008), (0, 0, h - 0.003))
    rim = Placed(flat_ring(r * 0.8, r * 0.9, 0.0035), (0, 0, h - 0.002))
    tab = Placed(
        Extrude(rounded_rectangle(r * 0.2, r * 0.34, r * 0.18), 0.001), (0, r * 0.25, h + 0.001)
    )
    grips = {"wrap": make_grip((0, 0, h / 2), Z, X, (r, r, h / 2))}
    return [Part(Revolve(body)), Part(foot, "steel"), Part(lid, "steel"), Part(rim, "steel"),
            Part(tab, "steel")], grips  # fmt: skip


def _stick(size: float, kind: str) -> Built:
    r, h = mix(0.010, 0.015, size), mix(0.15, 0.18, size)
    ends = [
        Part(Placed(cylinder(r * 1.12, 0.008, 0.002), (0, 0, s * (h - 0.008))), "contrast")
        for s in (-1, 1)
    ]
    if kind == "hook":
        rod = Placed(cylinder(r, h, 0.002), rotation=turn_about(Y, 90))
        ends = [Part(Placed(p.solid, rotation=turn_about(Y, 90)), p.role) for p in ends]
        return [Part(rod), *ends], {"hook": make_grip((0, 0, 0), X, Z, (r, r, h))}
    return [Part(cylinder(r, h, 0.002)), *ends], {"wrap": make_grip((0, 0, 0), Z, X, (r, r, h))}


def _mug(size: float, kind: str) -> Built:
    r, h = mix(0.033, 0.039, size), mix(0.085, 0.098, size)
    wall = 0.0035
    cup = as_profile(
        (0, 0), *arc((r - 0.006, 0.006), 0.006, -90, 0, 5),
        *arc((r - wall / 2, h - wall / 2), wall / 2, 0, 180, 6),
        (r - wall, 0.010), (r - wall - 0.004, 0.006), (0, 0.006),
    )  # fmt: skip
    angle = np.radians(np.linspace(-90, 90, 15))
    handle = np.stack(
        [r - 0.003 + 0.026 * np.cos(angle), 0 * angle, h / 2 + h * 0.29 * np.sin(angle)], 1
    )
    grips = {"wrap": make_grip((0, 0, h / 2), Z, X, (r, r, h / 2))}
    return [Part(Revolve(cup)), Part(Tube(handle, 0.005))], grips


def _ball(size: float, kind: str) -> Built:
    small, large = {"both": (0.075, 0.105), "support": (0.034, 0.045)}.get(kind, (0.031, 0.039))
    r = mix(small, large, size)
    seams = [
        Part(
            Placed(flat_ring(r * 0.985, r * 1.006, r * 0.035), rotation=turn),
            "contrast",
            felt=False,
        )
        for turn in (turn_about(X, 25), turn_about(X, 25) @ turn_about(Y, 90))
    ]
    grips = {
        "sphere": make_grip((0, 0, 0), Z, X, (r, r, r)), "support": make_grip((0, 0, -r), X, Z),
        "both": make_grip((0, 0, 0), X, Z, (r, r, r)),
    }  # fmt: skip
    return [Part(sphere(r)), *seams], grips


def _apple(size: float, kind: str) -> Built:
    r = mix(0.031, 0.038, size)
    points = []
    for t in np.linspace(0, np.pi, 36):
        radial = 1 - 0.33 * np.exp(-((t / 0.42) ** 2)) - 0.14 * np.exp(-(((np.pi - t) / 0.3) ** 2))
        wide = 1.0 + 0.07 * np.exp(-(((t - 1.25) / 0.6) ** 2))
        points.append((max(r * radial * wide * np.sin(t), 0.0), r * radial * 0.94 * np.cos(t)))
    profile = as_profile((0.0, points[0][1]), *points[1:-1], (0.0, points[-1][1]))[::-1]
    stem = Tube(np.array([[0, 0, r * 0.55], [0.001, 0, r * 0.85], [0.004, 0, r * 1.15]]), 0.0018)
    leaf = Placed(
        Stretch(sphere(1.0), (0.013, 0.006, 0.0012)), (0.014, 0, r * 1.02), turn_about(Y, -20)
    )
    grips = {"sphere": make_grip((0, 0, 0), Z, X, (r, r, r))}
    return [Part(Revolve(profile)), Part(stem, "wood"), Part(leaf, "leaf")], grips


def _egg(size: float, kind: str) -> Built:
    r = mix(0.023, 0.029, size)
    points = []
    for t in np.linspace(0, np.pi, 32):
        points.append((r * np.sin(t) * (1 - 0.14 * np.cos(t)), 1.32 * r * np.cos(t)))
    profile = as_profile((0.0, points[0][1]), *points[1:-1], (0.0, points[-1][1]))[::-1]
    return [Part(Revolve(profile))], {"sphere": make_grip((0, 0, 0), Z, X, (r, r, r * 1.32))}


def _bag(size: float, kind: str) -> Built:
    w, h, d = mix(0.060, 0.075, size), mix(0.085, 0.105, size), 0.026
    drop = 0.07
    outline = as_profile((-w, -h), (w, -h), (w * 0.86, 0), (-w * 0.86, 0))
    body = Placed(Extrude(outline, d), (0, 0, -drop), turn_about(X, 90))
    trim = Placed(Box((w * 0.875, d + 0.0015, 0.006), 0.001), (0, 0, -drop - 0.006))
    angle = np.radians(np.linspace(0, 180, 17))
    rise = np.clip(np.sin(angle), 0, 0.82) / 0.82
    handle = np.stack([w * 0.5 * np.cos(angle), 0 * angle, -drop + drop * rise], 1)
    parts = [Part(body), Part(trim, "contrast"), Part(Tube(handle, 0.006), "contrast")]
    return parts, {"hook": make_grip((0, 0, 0), X, Z, (0.006, 0.006, w * 0.28))}


def _bucket(size: float, kind: str) -> Built:
    r, h = mix(0.058, 0.066, size), mix(0.075, 0.09, size)
    drop, wall = 0.08, 0.003
    pail = as_profile(
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
    return parts, {"hook": make_grip((0, 0, 0), X, Z, (0.0075, 0.0075, 0.05))}


def _box(size: float, kind: str) -> Built:
    if kind == "both":
        w, d, h = mix(0.085, 0.115, size), mix(0.06, 0.08, size), mix(0.05, 0.07, size)
    else:
        w, d, h = mix(0.021, 0.027, size), mix(0.05, 0.06, size), mix(0.055, 0.07, size)
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
        "both": make_grip((0, 0, 0), X, Z, (w, d, h)),
        "occlude": make_grip((0, 0, 0), Z, X, (w, d, h)),
    }
    return parts, grips


def _bowl(size: float, kind: str) -> Built:
    r = mix(0.075, 0.10, size) if kind == "both" else mix(0.055, 0.065, size)
    wall = 0.0035
    outer = [(r * np.sin(t), r * 0.62 * (1 - np.cos(t))) for t in np.linspace(0.42, np.pi / 2, 14)]
    low = outer[0][1]
    outer = [(x, z - low + 0.006) for x, z in outer]
    rim = outer[-1]
    inner = [(x - wall, z + wall * 0.6) for x, z in outer[::-1]]
    foot = outer[0][0]
    profile = as_profile(
        (0, 0), (foot * 0.95, 0), (foot, 0.005), *outer[1:], (rim[0] - wall / 2, rim[1] + wall),
        *inner[1:], (0, inner[-1][1]),
    )  # fmt: skip
    grips = {"both": make_grip((0, 0, rim[1] * 0.55), X, Z), "support": make_grip((0, 0, 0), X, Z)}
    return [Part(Revolve(profile, 64))], grips


WHOLE_HAND_OBJECTS: dict[str, Callable[..., Built]] = {
    "apple": _apple,
    "bag": _bag,
    "ball": _ball,
    "bottle": _bottle,
    "bowl": _bowl,
    "box": _box,
    "bucket": _bucket,
    "can": _can,
    "egg": _egg,
    "mug": _mug,
    "stick": _stick,
}
