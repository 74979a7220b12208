"""Tools at work on their targets, and the marks they leave."""

import numpy as np

from hoi_assets.tinyworld.scenes.interactions.bodies import axis_point
from hoi_assets.tinyworld.scenes.interactions.body import UP, Body
from hoi_assets.tinyworld.scenes.interactions.motions import (
    floor_below,
    free_way,
    lean_over,
    lower,
    move_aside,
    point_along,
    raise_clear,
    tip_over,
)
from hoi_assets.tinyworld.scenes.objects.shape import Surface, shaded
from hoi_assets.tinyworld.scenes.objects.solids import Box, Placed, Solid, Tube
from hoi_assets.tinyworld.scenes.rigid import Array, axis_rotation


def lead_tool(
    tool: Body, target: Body, acts: bool, rng: np.random.Generator
) -> tuple[Body, tuple[Surface, ...]]:
    """The tool where it acts on its target, with the marks it leaves; or clear of it."""
    assert tool.shape is not None and target.shape is not None
    kind = tool.shape.kind
    top = float(target.points[:, 2].max())
    centre = axis_point(target, top)
    if kind == "bottle":
        if not acts:
            return move_aside(tool, target, rng), ()
        tool = tip_over(tool, rng.uniform(100, 112), rng.uniform(-15, 10))
        tool = tool.shifted(centre + rng.uniform(0.028, 0.04) * UP - tool.end)
        tool = raise_clear(tool, target)
        floor = floor_below(target, tool.end)
        return tool, (_stream(tool.end, floor),)
    if kind == "stick":
        tool = tip_over(tool, rng.uniform(118, 132), rng.uniform(-15, 10))
        tool = lower(tool, target, centre)
        return (tool, ()) if acts else (move_aside(tool, target, rng), ())
    if kind == "key":
        facing = np.radians(rng.uniform(-45, -28))
        normal = np.array([np.cos(facing), np.sin(facing), 0.0])
        tool = point_along(tool, -normal)
        spot = axis_point(target, top * rng.uniform(0.5, 0.62))
        tool = tool.shifted(spot + 0.2 * normal - tool.end)
        gone = free_way(tool.points, target, -normal)
        tool = tool.shifted(-normal * gone)
        return (tool, ()) if acts else (move_aside(tool, target, rng), ())
    if kind == "spoon":
        lean = 22.0 if target.shape.kind == "mug" else rng.uniform(32, 40)
        tool = lean_over(tool, lean)
        aside = -tool.end_direction * [1, 1, 0]
        inner = 0.5 * float(np.ptp(target.points[:, 1]))
        spot = centre - 0.25 * inner * aside / np.linalg.norm(aside)
        tool = tool.shifted(floor_below(target, spot) + 0.003 * UP - tool.end)
        tool = raise_clear(tool, target)
        return (tool, ()) if acts else (move_aside(tool, target, rng), ())
    spot = centre + np.array([*rng.uniform(-0.012, 0.012, 2), 0.0])
    tool = lower(tool, target, spot)
    if not acts:
        return move_aside(tool, target, rng), ()
    mark = _ink(tool.end, target, rng) if kind == "pen" else _daub(tool.end, target, rng)
    return tool, mark


def _mark(solid: Solid, role: str, target: Body | None = None) -> Surface:
    vertices, faces, normals = shaded(*solid.mesh())
    return Surface(vertices, faces, normals, role, target.colour if target else None)


def _stream(mouth: Array, floor: Array) -> Surface:
    """Water from a bottle's mouth to the floor of what it pours into."""
    path = np.linspace(mouth, np.array([mouth[0], mouth[1], floor[2] + 0.004]), 6)
    return _mark(Tube(path, 0.0038), "water")


def _ink(end: Array, target: Body, rng: np.random.Generator) -> tuple[Surface, ...]:
    """Lines that a pen wrote, the last one up to its tip."""
    lines = []
    for line in range(3):
        across = np.linspace(-0.03, 0.0 if line == 0 else 0.008, 14)
        wave = 0.0018 * np.sin(across * 900 + rng.uniform(0, 6)) + 0.009 * line
        at = np.stack([end[0] + across, end[1] + wave, np.full(14, end[2])], axis=1)
        on = at[np.abs(target.distance(at)) < 0.002]
        if len(on) > 2:
            lines.append(_mark(Tube(on, 0.0009), "contrast", target))
    return tuple(lines)


def _daub(end: Array, target: Body, rng: np.random.Generator) -> tuple[Surface, ...]:
    """A stroke of paint that ends under the brush."""
    patch = Placed(
        Box((0.02, 0.007, 0.0008), 0.0006),
        (end[0] - 0.016, end[1], end[2] - 0.0004),
        axis_rotation(2, rng.uniform(-8, 8)),
    )
    return (_mark(patch, "contrast", target),)
