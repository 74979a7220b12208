"""Objects that are held between finger pads: keys, cards, beads, pens."""

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


def _key(size: float, kind: str) -> Built:
    bow, blade, half = mix(0.013, 0.016, size), mix(0.038, 0.048, size), 0.0014
    parts = [
        Part(flat_ring(bow * 0.36, bow, half)),
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
    return parts, {"pinch": make_grip((0.010 - bow, 0, 0), X, Z, (half, bow, bow + blade / 2))}


def _card(size: float, kind: str) -> Built:
    w, h, half = mix(0.040, 0.044, size), mix(0.025, 0.028, size), 0.0009
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
    body = Extrude(rounded_rectangle(w, h, 0.004), half)
    grips = {"pinch": make_grip((edge - w, 0, 0), X, Z, (half, h, w)),
             "support": make_grip((0, 0, -half), X, Z)}  # fmt: skip
    return [Part(body), *stripes], grips


def _coin(size: float, kind: str) -> Built:
    r, half = mix(0.013, 0.017, size), 0.0012
    disc = cylinder(r, half * 0.7, 0.0003)
    rim = flat_ring(r * 0.86, r * 1.01, half)
    corners = np.radians(72 * np.arange(5) + 90)
    mark = Extrude(np.stack([r * 0.5 * np.cos(corners), r * 0.5 * np.sin(corners)], axis=1), half)
    return [Part(disc), Part(rim), Part(mark)], {
        "pinch": make_grip((0.009 - r, 0, 0), X, Z, (half, r, r))
    }


def _bead(size: float, kind: str) -> Built:
    r = mix(0.006, 0.009, size)
    hole = r * 0.24
    top = float(np.degrees(np.arccos(hole / r)))
    profile = as_profile(*arc((0, 0), r, -top, top, 21))
    return [Part(Revolve(profile))], {"pinch": make_grip((0, 0, 0), Z, Y, (r, r, r))}


def _die(size: float, kind: str) -> Built:
    a = mix(0.006, 0.009, size)
    parts = [Part(Box((a, a, a), a * 0.2))]
    layouts = {1: [(0, 0)], 2: [(-1, -1), (1, 1)], 3: [(-1, -1), (0, 0), (1, 1)],
               4: [(-1, -1), (1, -1), (-1, 1), (1, 1)],
               5: [(-1, -1), (1, -1), (-1, 1), (1, 1), (0, 0)],
               6: [(-1, -1), (1, -1), (-1, 1), (1, 1), (-1, 0), (1, 0)]}  # fmt: skip
    sides = {1: np.eye(3), 6: turn_about(X, 180), 2: turn_about(X, 90), 5: turn_about(X, -90),
             3: turn_about(Y, 90), 4: turn_about(Y, -90)}  # fmt: skip
    for number, turn in sides.items():
        for u, v in layouts[number]:
            pip = Placed(
                cylinder(a * 0.2, a * 0.02, a * 0.01), (u * a * 0.5, v * a * 0.5, a), np.eye(3)
            )
            parts.append(Part(Placed(pip, rotation=turn), "contrast", felt=False))
    return parts, {"pinch": make_grip((0, 0, 0), Z, Y, (a, a, a))}


def _pen(size: float, kind: str) -> Built:
    r, length = mix(0.0042, 0.0052, size), mix(0.135, 0.15, size)
    tip = 0.016
    barrel = as_profile((0, tip), (r * 0.75, tip), (r, tip + 0.008), (r, length - 0.006),
                      (r * 0.9, length - 0.001), (0, length))  # fmt: skip
    point = as_profile((0, 0), (0.0007, 0.0006), (r * 0.8, tip), (0, tip + 0.001))
    ring = Placed(flat_ring(r * 0.5, r * 1.15, 0.0018), (0, 0, length * 0.62))
    clip = Placed(Box((0.0014, 0.0009, length * 0.13), 0.0004), (0, r * 1.35, length * 0.83))
    knob = Placed(cylinder(r * 0.5, 0.004), (0, 0, length + 0.002))
    parts = [Part(Revolve(barrel)), Part(Revolve(point), "steel"), Part(ring, "steel"),
             Part(clip, "steel"), Part(knob, "steel")]  # fmt: skip
    return parts, {"tripod": make_grip((0, 0, 0.034), Z, X, (r, r, length / 2))}


def _brush(size: float, kind: str) -> Built:
    r, length = mix(0.0048, 0.006, size), mix(0.15, 0.17, size)
    tuft, ferrule = 0.026, 0.016
    hair = as_profile((0, 0), (0.0012, 0.002), (r * 1.5, tuft * 0.55), (r * 1.15, tuft), (0, tuft))
    sleeve = as_profile((0, tuft), (r * 1.15, tuft), (r * 1.0, tuft + ferrule), (0, tuft + ferrule))
    shaft = as_profile((0, tuft + ferrule), (r, tuft + ferrule), (r * 1.2, tuft + 0.05),
                     (r * 0.6, length), (0, length + 0.002))  # fmt: skip
    parts = [Part(Revolve(shaft)), Part(Revolve(hair), "contrast"), Part(Revolve(sleeve), "steel")]
    return parts, {
        "tripod": make_grip((0, 0, tuft + ferrule + 0.014), Z, X, (r * 1.15, r * 1.15, length / 2))
    }


def _spoon(size: float, kind: str) -> Built:
    length, wide = mix(0.13, 0.15, size), mix(0.017, 0.020, size)
    long = wide * 1.45
    bowl = []
    for t in np.linspace(0, np.pi / 2, 12):
        bowl.append((np.sin(t), -0.62 * np.cos(t)))
    inner = [(x * 0.9, z * 0.82 + 0.02) for x, z in bowl[::-1]]
    profile = as_profile((0.0, bowl[0][1]), *bowl[1:], *inner[:-1], (0.0, inner[-1][1]))
    # The scoop lies in the x-z plane, opening towards +y.
    scoop = Placed(
        Stretch(Revolve(profile), (wide, long, wide * 0.75)), (0, 0.004, long), turn_about(X, -90)
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
        Stretch(sphere(1.0), (0.0062, 0.003, 0.016)), (0, 0.0045, 2 * long + length * 0.75)
    )
    parts = [Part(scoop), Part(Tube(neck, 0.0032)), Part(end)]
    return parts, {
        "tripod": make_grip((0, 0.0005, 2 * long + 0.012), Z, X, (0.0034, 0.0034, length / 2))
    }


FINGERTIP_OBJECTS: dict[str, Callable[..., Built]] = {
    "bead": _bead,
    "brush": _brush,
    "card": _card,
    "coin": _coin,
    "die": _die,
    "key": _key,
    "pen": _pen,
    "spoon": _spoon,
}
