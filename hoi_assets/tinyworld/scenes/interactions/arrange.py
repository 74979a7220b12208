"""Arranges plans: things are set down, hands take theirs, tools go to their targets.

Scenes are arranged for a right hand that acts and a left hand that holds; the other way round, the
finished scene is mirrored. Where a plan lacks a relation, the scene shows plainly that it does not
hold: a tool stays clear of its target.
"""

from dataclasses import replace

import numpy as np

from hoi_assets.grammar.plans import Plan
from hoi_assets.tinyworld.scenes.interactions.bodies import (
    GRASP_VARIANTS,
    axis_point,
    fingertip,
    hand_body,
    hand_only,
    on_table,
    seat,
    solved_grasp,
    thing_in_hand,
)
from hoi_assets.tinyworld.scenes.interactions.body import DOWN, MIRROR, UP, Arrangement
from hoi_assets.tinyworld.scenes.interactions.motions import (
    CLEAR_M,
    drop,
    face,
    free_way,
    working_gap,
)
from hoi_assets.tinyworld.scenes.interactions.tools import lead_tool
from hoi_assets.tinyworld.scenes.rigid import Array, axis_rotation
from hoi_assets.tinyworld.scenes.solving import World

WALL_M = 0.8
POINT_M, MIN_CLEAR_M = 0.035, 0.012  # from a pointing fingertip, and its hand, to the thing
_TOOL_GRASPS = {
    "bottle": "power_wrap", "brush": "tripod", "key": "lateral_pinch", "pen": "tripod",
    "spoon": "tripod", "stick": "power_wrap",
}  # fmt: skip
_HOLDING_GRASPS = {
    "apple": "power_sphere", "ball": "power_sphere", "book": "platform", "bottle": "power_wrap",
    "bowl": "platform", "can": "power_wrap", "card": "platform", "egg": "power_sphere",
    "mug": "power_wrap", "plate": "platform",
}  # fmt: skip


def arrange(world: World, plan: Plan) -> Arrangement:
    """Place what the plan names so that exactly its relations hold."""
    rng = np.random.default_rng([plan.seed, 0xA7])
    patterns = {
        "use": _arrange_use, "form": _arrange_form, "place": _arrange_place,
        "hold_use": _arrange_use, "together": _arrange_together, "each": _arrange_each,
        "offer": _arrange_offer,
    }  # fmt: skip
    scene = patterns[plan.pattern](world, plan, rng)
    # The hand that acts is arranged as a right hand; so are the two that share a thing.
    acting = plan.hands[-1].side if plan.hands else ("right" if rng.random() < 0.5 else "left")
    return scene.mirrored() if acting == "left" and plan.pattern != "each" else scene


def _arrange_use(world: World, plan: Plan, rng: np.random.Generator) -> Arrangement:
    """A tool in a right hand, and its target on the table or in a left hand."""
    tool = thing_in_hand(world, plan, 0, _TOOL_GRASPS[plan.things[0].kind], rng)
    kind = plan.things[1].kind
    held = plan.holder("thing1") is not None
    if held:
        target = thing_in_hand(world, plan, 1, _HOLDING_GRASPS[kind], rng).moved(MIRROR)
        # The arm comes from where the other is not, and does not hide what its hand holds.
        low, high = (160, 185)
        if plan.things[0].kind in ("bottle", "stick"):
            low, high = (0, 25) if _HOLDING_GRASPS[kind] == "platform" else (78, 105)
        target = face(target, rng.uniform(low, high))
        target = target.shifted(-seat(target))
    else:
        target = on_table(plan, 1, rng, lying=kind == "box" and plan.things[0].kind != "key")
    verb = plan.verb("thing0")
    acts = verb is not None
    tool, marks = lead_tool(tool, target, acts, rng)
    bodies = [tool]
    if plan.things[1].count:
        bodies.append(target)
    table = None if held else 0.0
    if table is not None:
        tool_low = min(tool.points[:, 2].min(), hand_only(tool)[:, 2].min())
        bodies[0] = tool = tool.shifted((0, 0, max(0.0, 0.002 - tool_low)))
    gap = 1000 * working_gap(tool, target) if plan.things[1].count else None
    near = tool.points
    if plan.things[0].kind == "stick":
        # The free end may leave the picture.
        near = near[np.linalg.norm(near - tool.end, axis=1) < 0.2]
    focus = [near, tool.joints]
    if plan.things[1].count:
        focus += [target.points, target.joints]
    from_above = plan.things[0].kind in ("pen", "brush", "spoon")
    look_from = (0.05, -0.80, 0.60) if from_above else (0.05, -0.92, 0.40)
    wall = 0.0 if from_above else WALL_M
    return Arrangement(tuple(bodies), marks, look_from, np.concatenate(focus), table, gap, wall)


def _arrange_form(world: World, plan: Plan, rng: np.random.Generator) -> Arrangement:
    """Things that form a shape, and another near it."""
    count, kind = plan.things[0].count, plan.things[0].kind
    one = on_table(plan, 0, rng, lying=kind == "box")
    partner = on_table(plan, 1, rng) if plan.things[1].count else None
    wide = 1.12 * float(np.ptp(one.points[:, :2], axis=0).max())
    inside = 0.5 * float(np.ptp(partner.points[:, :2], axis=0).max()) if partner else 0.0
    relation = plan.verb("shape")
    least = inside + 0.55 * wide + 0.008 if relation == "surrounds" else 0.0
    tall = float(np.ptp(one.points[:, 2]))
    places = _shape_places(str(plan.shape), count, wide, tall, least, rng)
    bodies = []
    for place in places:
        angle = rng.uniform(-8, 8) if kind in ("box", "book") else rng.uniform(0, 360)
        bodies.append(one.turned(axis_rotation(2, angle)).shifted(place))
    if partner is not None:
        reach = np.abs(places[:, :2]).max(axis=0) + 0.5 * wide + inside + 0.018
        if relation == "is beside":
            offset = (reach[0], rng.uniform(-0.2, 0.2) * wide, 0.0)
        elif relation == "is in front of":
            offset = (rng.uniform(0.3, 0.6) * reach[0], reach[1], 0.0)
        else:
            offset = (0.0, 0.0, 0.0)
        bodies.append(partner.shifted(offset))
    look_from = (0.0, -0.90, 0.44) if plan.shape in ("row", "tower") else (0.0, -0.62, 0.78)
    focus = np.concatenate([body.points for body in bodies])
    return Arrangement(tuple(bodies), (), look_from, focus, 0.0)


def _shape_places(
    shape: str, count: int, wide: float, tall: float, least: float, rng: np.random.Generator
) -> Array:
    """Where `count` things `wide` and `tall` metres stand to form a shape; (count, 3).

    least: a ring's least radius.
    """
    flat = np.zeros((count, 3))
    number = np.arange(count)
    if shape == "tower":
        flat[:, 2] = number * (tall + 0.0002)
        flat[:, :2] = rng.uniform(-0.004, 0.004, (count, 2))
        return flat
    if shape == "ring":
        radius = max(0.5 * wide / np.sin(np.pi / count), least)
        turn = 2 * np.pi * (number + rng.random()) / count
        flat[:, 0], flat[:, 1] = radius * np.cos(turn), radius * np.sin(turn)
        return flat
    if shape == "row":
        flat[:, 0] = (number - (count - 1) / 2) * wide * 1.05
    elif shape == "zigzag":
        flat[:, 0] = (number - (count - 1) / 2) * wide * 0.85
        flat[:, 1] = np.where(number % 2 == 0, -0.75, 0.75) * wide
    elif shape == "cross":
        arms = np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])
        steps = np.concatenate([arms, 2 * arms[1:]])[:count]
        flat[:, :2] = steps * wide * 1.02
    else:
        rows = [1, 2] if count == 3 else [1, 2, 3]
        spots = [
            ((k - (size - 1) / 2) * wide * 1.1, -line * wide * 0.98)
            for line, size in enumerate(rows)
            for k in range(size)
        ]
        flat[:, :2] = spots
        flat[:, 1] -= flat[:, 1].mean()
    return flat @ axis_rotation(2, rng.uniform(-12, 12)).T


def _arrange_place(world: World, plan: Plan, rng: np.random.Generator) -> Arrangement:
    """A thing on, in or beside another, which is beside a third."""
    top, _, partner = plan.things
    base = on_table(plan, 1, rng, lying=True)
    bodies = [base]
    wide = float(np.ptp(base.points[:, 0])) / 2
    if top.count:
        body = on_table(plan, 0, rng)
        if plan.verb("thing0") == "is beside":
            offset = wide + float(np.ptp(body.points[:, 0])) / 2 + 0.015
            bodies.append(body.shifted((-offset, -0.01, 0.0)))
        else:
            bodies.append(drop(body, base))
    if partner.count:
        body = on_table(plan, 2, rng)
        offset = wide + float(np.ptp(body.points[:, 0])) / 2 + 0.018
        bodies.append(body.shifted((offset, rng.uniform(-0.02, 0.02), 0.0)))
    focus = np.concatenate([body.points for body in bodies])
    return Arrangement(tuple(bodies), (), (0.0, -0.85, 0.52), focus, 0.0)


def _arrange_together(world: World, plan: Plan, rng: np.random.Generator) -> Arrangement:
    """Two hands hold a thing, and another is on or in it."""
    base = thing_in_hand(world, plan, 0, "bimanual", rng)
    bodies = [base]
    if plan.things[1].count:
        bodies.append(drop(on_table(plan, 1, rng), base))
    focus = np.concatenate([base.joints, *(body.points for body in bodies)])
    look_from = (0.0, -0.85, 0.52)
    return Arrangement(tuple(bodies), (), look_from, focus, None, wall_m=WALL_M)


def _arrange_each(world: World, plan: Plan, rng: np.random.Generator) -> Arrangement:
    """Each hand with its own thing, the right hand on the right."""
    bodies = []
    for place, hand in enumerate(plan.hands):
        if not plan.things[place].count:
            continue
        category = _HOLDING_GRASPS[plan.things[place].kind]
        body = thing_in_hand(world, plan, place, category, rng)
        if category == "platform":
            body = face(body, 50.0)
        extent = np.concatenate([body.points, body.joints])
        low, high = extent.min(axis=0), extent.max(axis=0)
        body = body.shifted((0.018 - low[0], 0.0, -(low[2] + high[2]) / 2))
        bodies.append(body.moved(MIRROR) if hand.side == "left" else body)
    focus = np.concatenate([np.concatenate([body.points, body.joints]) for body in bodies])
    return Arrangement(tuple(bodies), (), (0.0, -0.95, 0.3), focus, None)


def _arrange_offer(world: World, plan: Plan, rng: np.random.Generator) -> Arrangement:
    """A thing on a left palm, and a right index finger that points at it or presses it."""
    held = plan.holder("thing0") is not None
    if held:
        thing = thing_in_hand(world, plan, 0, "platform", rng).moved(MIRROR)
        thing = face(thing, 165.0 + rng.uniform(-12, 12))
        thing = thing.shifted(-seat(thing))
    else:
        thing = on_table(plan, 0, rng)
    grasp, _ = solved_grasp(world, "index_press", "bell", int(rng.integers(GRASP_VARIANTS)))
    finger = replace(hand_body(grasp, None, None, plan), pose=np.eye(4))
    finger = face(finger, 45.0 + rng.uniform(-10, 10))
    tip = fingertip(finger)
    centre = axis_point(thing, float(thing.points[:, 2].max()))
    verb = plan.verb("hand1")
    if verb == "presses":
        finger = finger.shifted(centre + 0.1 * UP - tip)
        near = finger.skin[np.linalg.norm(finger.skin - fingertip(finger), axis=1) < 0.03]
        finger = finger.shifted(DOWN * free_way(near, thing, DOWN))
    else:
        finger = finger.shifted(centre + POINT_M * UP - tip)
        clear = float(thing.distance(hand_only(finger)).min())
        finger = finger.shifted(max(0.0, MIN_CLEAR_M - clear) * UP)
    if verb is None:
        aside = float(np.ptp(thing.points[:, 0])) / 2 + CLEAR_M + 0.02
        finger = finger.shifted((aside, 0.0, 0.0))
    gap = 1000 * float(thing.distance(fingertip(finger)[None])[0])
    bodies = (thing, finger)
    focus = np.concatenate([thing.points, thing.joints, finger.joints])
    return Arrangement(bodies, (), (0.05, -0.86, 0.50), focus, None if held else 0.0, gap)
