"""Moves bodies: turning, tipping, lowering until they touch."""

import numpy as np

from hoi_assets.tinyworld.scenes.interactions.bodies import axis_point, hand_only
from hoi_assets.tinyworld.scenes.interactions.body import DOWN, UP, Body
from hoi_assets.tinyworld.scenes.rigid import Array, axis_rotation, rotation_about, rotation_between

TOUCH_M = 0.0005
CLEAR_M = 0.065  # between a tool and a target it leaves alone


def face(body: Body, degrees: float) -> Body:
    """Turn a hand about the vertical through its thing so that its forearm points at an azimuth."""
    now = np.degrees(np.arctan2(body.forearm[1], body.forearm[0]))
    about = body.pose[:3, 3]
    return body.turned(axis_rotation(2, degrees - now), about)


def lean_over(tool: Body, degrees: float) -> Body:
    """Lean a tool that points down by this much from the vertical, the way it leans."""
    away = -tool.end_direction
    flat = away * [1, 1, 0]
    flat = flat / np.linalg.norm(flat)
    angle = np.radians(degrees)
    return tool.turned(rotation_between(away, np.sin(angle) * flat + np.cos(angle) * UP))


def tip_over(tool: Body, roll: float, azimuth: float) -> Body:
    """Roll the forearm so that an upright tool's end comes down over the palm's side, `roll`
    degrees from upright, and turn it towards an azimuth (0: +x)."""
    wrist, index, little = tool.joints[0], tool.joints[5], tool.joints[17]
    palm = np.cross(index - wrist, little - wrist) * [1, 1, 0]
    palm = palm / np.linalg.norm(palm)
    axis = np.cross(UP, palm)
    tool = tool.turned(rotation_about(axis, np.radians(roll)))
    now = np.degrees(np.arctan2(tool.end_direction[1], tool.end_direction[0]))
    return tool.turned(axis_rotation(2, azimuth - now))


def point_along(tool: Body, direction: Array) -> Body:
    """Turn a tool about the vertical, then tilt it, to point along a horizontal direction."""
    now = np.arctan2(tool.end_direction[1], tool.end_direction[0])
    wanted = np.arctan2(direction[1], direction[0])
    tool = tool.turned(axis_rotation(2, np.degrees(wanted - now)))
    return tool.turned(rotation_between(tool.end_direction, direction))


def lower(tool: Body, target: Body, spot: Array) -> Body:
    """Lower a tool over a spot until it touches the target."""
    tool = tool.shifted(spot + 0.15 * UP - tool.end)
    return tool.shifted(DOWN * free_way(tool.points, target, DOWN))


def drop(body: Body, base: Body) -> Body:
    """Lower a thing onto, or into, the middle of another."""
    top = float(base.points[:, 2].max())
    body = body.shifted(axis_point(base, top + 0.01))
    return body.shifted(DOWN * free_way(body.points, base, DOWN))


def raise_clear(tool: Body, target: Body) -> Body:
    """Raise a tool and its hand until neither is inside the target."""
    points = np.concatenate([tool.points, hand_only(tool)])
    risen = 0.0
    for _ in range(60):
        # What is above the target cannot come into it by rising.
        low = points[points[:, 2] + risen < target.points[:, 2].max() + TOUCH_M]
        gap = float(target.distance(low + risen * UP).min()) if len(low) else 0.0
        if gap >= -TOUCH_M:
            break
        risen += max(0.002, -gap)
    return tool.shifted(risen * UP)


def move_aside(tool: Body, target: Body, rng: np.random.Generator) -> Body:
    """Move a tool and its hand aside, over the table, until it is clear of its target."""
    middle = hand_only(tool).mean(axis=0)
    aside = (middle - tool.end) * [1, 1, 0]
    aside = aside / np.linalg.norm(aside)
    if abs(aside[0]) < 0.8:  # sideways as the camera sees it, so that the gap shows
        aside = np.array([1.0 if aside[0] >= 0 else -1.0, 0.0, 0.0])
    height = float(target.points[:, 2].min()) + rng.uniform(0.02, 0.035)
    low = float(np.concatenate([tool.points, hand_only(tool)])[:, 2].min())
    tool = tool.shifted(axis_point(target, 0.0) - tool.end * [1, 1, 0])
    tool = tool.shifted((0, 0, height - low))
    points, gone = np.concatenate([tool.points, hand_only(tool)])[::2], 0.0
    for _ in range(80):
        gap = float(target.distance(points + gone * aside).min())
        if gap >= CLEAR_M:
            break
        gone += max(0.004, 0.7 * (CLEAR_M - gap))
    return tool.shifted(gone * aside)


def free_way(points: Array, target: Body, direction: Array, limit: float = 0.5) -> float:
    """How far (m) points can go along a direction before they touch the target."""
    gone = 0.0
    for _ in range(80):
        gap = float(target.distance(points + gone * direction).min())
        if gap <= TOUCH_M or gone > limit:
            break
        gone += gap - 0.5 * TOUCH_M
    return gone


def floor_below(target: Body, spot: Array) -> Array:
    """The point of the target's inside below a spot."""
    return spot + DOWN * free_way(spot[None], target, DOWN)


def working_gap(tool: Body, target: Body) -> float:
    """Distance (m) from a tool's working end to the target's surface."""
    near = np.linalg.norm(tool.points - tool.end, axis=1) < 0.02
    return float(target.distance(tool.points[near]).min())
