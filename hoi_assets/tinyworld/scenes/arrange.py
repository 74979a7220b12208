"""Turns a plan into a picture: things are set down, hands take theirs, tools go to their targets.

World: metres, z up, the camera on the side of -y. Scenes are arranged for a right hand that acts
and a left hand that holds; the other way round, the finished scene is mirrored. Where a plan lacks
a relation, the scene shows plainly that it does not hold: a tool stays clear of its target.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hoi_assets.grammar.interactions import Item, Plan, sentence, triples
from hoi_assets.grammar.vocabulary import DEFECTS
from hoi_assets.tinyworld.scenes import grasps, objects, render, sample

Array = NDArray[np.float64]

GRASP_VARIANTS = 6  # per category and thing; solving costs more than drawing
OBJECT_SIZES = 5
CAMERA_ATTEMPTS = 4
MIN_SHARE = 0.0025  # of the picture that each thing and hand must show
TOUCH_M = 0.0005
WALL_M = 0.8
FOREARM_START_M, FOREARM_STRETCH = 0.06, 2.8
CLEAR_M = 0.065  # between a tool and a target it leaves alone
POINT_M, MIN_CLEAR_M = 0.035, 0.012  # from a pointing fingertip, and its hand, to the thing
CAMERA_JITTER = 0.6
MIRROR = np.diag([-1.0, 1.0, 1.0, 1.0])
DOWN, UP = np.array([0.0, 0.0, -1.0]), np.array([0.0, 0.0, 1.0])

# The resting frame's direction in which a tool's working end lies.
_ENDS = {
    "bottle": objects.Z, "brush": -objects.Z, "key": objects.X, "pen": -objects.Z,
    "spoon": -objects.Z, "stick": objects.Z,
}  # fmt: skip
_TOOL_GRASPS = {
    "bottle": "power_wrap", "brush": "tripod", "key": "lateral_pinch", "pen": "tripod",
    "spoon": "tripod", "stick": "power_wrap",
}  # fmt: skip
_HOLDING_GRASPS = {
    "apple": "power_sphere", "ball": "power_sphere", "book": "platform", "bottle": "power_wrap",
    "bowl": "platform", "can": "power_wrap", "card": "platform", "egg": "power_sphere",
    "mug": "power_wrap", "plate": "platform",
}  # fmt: skip


@dataclass(frozen=True)
class Body:
    """Something rigid: a thing, a hand, or a hand with what it holds.

    Attributes:
        pose: (4, 4) the shape's frame to the world; a mirror image where its determinant is < 0.
        thing: place among the plan's things; None for a bare hand.
        joints: (21 a hand, 3) world.
    """

    shape: objects.ObjectShape | None
    pose: Array
    thing: int | None = None
    colour: str | None = None
    material: str | None = None
    hands: tuple[render.HandMesh, ...] = ()
    joints: Array = field(default_factory=lambda: np.zeros((0, 3)))

    def moved(self, motion: Array) -> "Body":
        """The body after a rigid motion or reflection (4, 4) of the world."""
        mirrored = np.linalg.det(motion[:3, :3]) < 0
        hands = tuple(
            replace(
                hand,
                vertices=_apply(motion, hand.vertices),
                faces=hand.faces[:, ::-1] if mirrored else hand.faces,
            )
            for hand in self.hands
        )
        pose = motion @ self.pose
        return replace(self, hands=hands, joints=_apply(motion, self.joints), pose=pose)

    def shifted(self, offset: Sequence[float] | NDArray[Any]) -> "Body":
        """The body moved by an offset (3,)."""
        motion = np.eye(4)
        motion[:3, 3] = offset
        return self.moved(motion)

    def turned(self, rotation: Array, about: Array | None = None) -> "Body":
        """The body turned by a rotation (3, 3) about a point, the world's origin where None."""
        motion = np.eye(4)
        motion[:3, :3] = rotation
        if about is not None:
            motion[:3, 3] = about - rotation @ about
        return self.moved(motion)

    @cached_property
    def points(self) -> Array:
        """Vertices of the shape, (n, 3) world."""
        if self.shape is None:
            return np.zeros((0, 3))
        vertices = np.concatenate([part.solid.mesh()[0] for part in self.shape.parts])
        return _apply(self.pose, (vertices - self.shape.origin) @ self.shape.axes.T)

    @cached_property
    def skin(self) -> Array:
        """Vertices of the hands, (n, 3) world."""
        return np.concatenate([np.zeros((0, 3)), *(hand.vertices for hand in self.hands)])

    def distance(self, points: Array) -> Array:
        """Signed distance (n,) of world points to the shape, metres."""
        assert self.shape is not None
        inverse: Array = np.linalg.inv(self.pose).astype(np.float64)
        return self.shape.signed_distance(_apply(inverse, points))

    def at(self, resting_point: Sequence[float]) -> Array:
        """A point of the shape's resting frame in the world (3,)."""
        assert self.shape is not None
        local = self.shape.axes @ (np.asarray(resting_point) - self.shape.origin)
        return _apply(self.pose, local[None])[0]

    @property
    def end(self) -> Array:
        """Middle of a tool's working end, (3,) world."""
        assert self.shape is not None
        along = self.points @ self.end_direction
        return self.points[along > along.max() - 0.002].mean(axis=0)

    @property
    def end_direction(self) -> Array:
        """Unit vector (3,) along the tool towards its working end, world."""
        assert self.shape is not None
        return self.pose[:3, :3] @ self.shape.axes @ _ENDS[self.shape.kind]

    @property
    def forearm(self) -> Array:
        """Unit vector (3,) from the (first) hand's middle knuckle to its wrist, world."""
        along = self.joints[0] - self.joints[9]
        return along / np.linalg.norm(along)

    def surfaces(self) -> tuple[objects.Surface, ...]:
        """The shape's parts as they are drawn."""
        if self.shape is None:
            return ()
        mirrored = np.linalg.det(self.pose[:3, :3]) < 0
        return tuple(
            replace(
                part,
                vertices=_apply(self.pose, part.vertices),
                normals=part.normals @ self.pose[:3, :3].T,
                faces=part.faces[:, ::-1] if mirrored else part.faces,
                colour=self.colour,
                material=self.material,
            )
            for part in self.shape.surfaces
        )


@dataclass(frozen=True)
class Arrangement:
    """A scene ready to be drawn.

    Attributes:
        marks: what a tool leaves: ink, paint, water.
        look_from: direction from the scene to the camera.
        focus: (n, 3) points that belong in the picture.
        support_z: height of the table, or None.
        gap_mm: from what acts (a tool's end, a fingertip) to its target; None where nothing acts.
        wall_m: least distance to the wall, so that an arm that comes from behind is not cut by it.
    """

    bodies: tuple[Body, ...]
    marks: tuple[objects.Surface, ...]
    look_from: tuple[float, float, float]
    focus: Array
    support_z: float | None
    gap_mm: float | None = None
    wall_m: float = 0.0

    def mirrored(self) -> "Arrangement":
        """The scene in a mirror: right hands become left ones."""
        flip = np.diag(MIRROR)[:3]
        x, y, z = self.look_from
        marks = tuple(
            replace(
                mark,
                vertices=mark.vertices * flip,
                normals=mark.normals * flip,
                faces=mark.faces[:, ::-1],
            )
            for mark in self.marks
        )
        bodies = tuple(body.moved(MIRROR) for body in self.bodies)
        return replace(self, bodies=bodies, marks=marks, look_from=(-x, y, z),
                       focus=self.focus * flip)  # fmt: skip


# --- drawing --------------------------------------------------------------------------------------


def draw_interaction(
    world: sample.World,
    plan: Plan,
    size: int = render.PICTURE_SIZE,
    samples_per_pixel: int = render.SAMPLES_PER_PIXEL,
) -> tuple[Image.Image, dict[str, Any]]:
    """Draw a plan; equal arguments give equal pixels and rows.

    Returns:
        The picture and its truth: scenario, pattern, caption (what it shows), triples (those that
        hold) and plan as JSON, gap_mm, camera, and the pixels of each hand and thing.
    """
    scene = arrange(world, plan)
    stage, owners = stage_of(scene)
    tone = plan.hands[0].skin_tone if plan.hands else None
    look = render.Look("red", "plastic", tone, plan.light, plan.background, plan.seed)
    picture: render.Picture | None = None
    for attempt in range(CAMERA_ATTEMPTS):
        camera = render.aim(stage, scene.look_from, plan.seed + attempt, jitter=CAMERA_JITTER)
        drawn = render.draw(stage, camera, look, size, samples_per_pixel)
        if picture is None or _least(drawn, owners) > _least(picture, owners):
            picture = drawn
        if _least(picture, owners) >= MIN_SHARE * size**2:
            break
    assert picture is not None
    shown = _shown(picture.pixels, owners)
    row = {
        "scenario": plan.scenario,
        "pattern": plan.pattern,
        "caption": sentence(plan),
        "triples": [[each.subject, each.relation, each.object] for each in triples(plan)],
        "plan": plan.as_json(),
        "gap_mm": scene.gap_mm,
        "camera": picture.camera.as_list(),
        "hand_pixels": [count for name, count in shown if name is None],
        "thing_pixels": [count for name, count in shown if name is not None],
        "things": [plan.things[name].kind for name, _ in shown if name is not None],
    }
    return picture.image, row


def draw_item(
    world: sample.World,
    item: Item,
    size: int = render.PICTURE_SIZE,
    samples_per_pixel: int = render.SAMPLES_PER_PIXEL,
) -> sample.Scene:
    """Draw one picture of a stream, with its sentence, questions and answers as a row."""
    image, row = draw_interaction(world, item.drawn, size, samples_per_pixel)
    return sample.Scene(image, row | item.row())


def stage_of(scene: Arrangement) -> tuple[render.Stage, list[tuple[int | None, list[str]]]]:
    """The stage, and per hand (None) and thing (its place) the names of what shows it in
    `render.Picture.pixels`."""
    hands: list[render.HandMesh] = []
    surfaces: list[objects.Surface] = []
    owners: list[tuple[int | None, list[str]]] = []
    for body in scene.bodies:
        for hand in body.hands:
            owners.append((None, [f"hand{len(hands)}"]))
            hands.append(hand)
        parts = body.surfaces()
        if parts:
            names = [f"part{len(surfaces) + number}" for number in range(len(parts))]
            owners.append((body.thing, names))
        surfaces += parts
    surfaces += scene.marks
    joints = np.concatenate([np.zeros((0, 3)), *(body.joints for body in scene.bodies)])
    centre, radius = _framed(scene)
    stage = render.Stage(
        tuple(hands), tuple(surfaces), centre, radius, scene.support_z, joints, scene.wall_m
    )
    return stage, owners


def _framed(scene: Arrangement) -> tuple[Array, float]:
    """Middle and half side of the square that the focus fills as the camera sees it."""
    camera = render.Camera(scene.look_from, (0.0, 0.0, 0.0), (0.0, 0.0, 1.0), 1.0)
    axes = camera.axes()
    seen = scene.focus @ axes.T
    low, high = seen.min(axis=0), seen.max(axis=0)
    # What is nearer than the middle looks larger.
    radius = 0.5 * float((high - low)[:2].max()) * 1.1 + 0.12 * float(high[2] - low[2]) / 2
    return (low + high) / 2 @ axes, radius


def _least(picture: render.Picture, owners: list[tuple[int | None, list[str]]]) -> int:
    """Pixels of what shows least."""
    return min(count for _, count in _shown(picture.pixels, owners))


def _shown(pixels: Any, owners: list[tuple[int | None, list[str]]]) -> list[tuple[int | None, int]]:
    return [(owner, sum(pixels[name] for name in names)) for owner, names in owners]


# --- arranging ------------------------------------------------------------------------------------


def arrange(world: sample.World, plan: Plan) -> Arrangement:
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


def _arrange_use(world: sample.World, plan: Plan, rng: np.random.Generator) -> Arrangement:
    """A tool in a right hand, and its target on the table or in a left hand."""
    tool = _held(world, plan, 0, _TOOL_GRASPS[plan.things[0].kind], rng)
    kind = plan.things[1].kind
    held = plan.holder("thing1") is not None
    if held:
        target = _held(world, plan, 1, _HOLDING_GRASPS[kind], rng).moved(MIRROR)
        # The arm comes from where the other is not, and does not hide what its hand holds.
        low, high = (160, 185)
        if plan.things[0].kind in ("bottle", "stick"):
            low, high = (0, 25) if _HOLDING_GRASPS[kind] == "platform" else (78, 105)
        target = _towards(target, rng.uniform(low, high))
        target = target.shifted(-_seat(target))
    else:
        target = _on_table(plan, 1, rng, lying=kind == "box" and plan.things[0].kind != "key")
    verb = plan.verb("thing0")
    acts = verb is not None
    tool, marks = _led(tool, target, acts, rng)
    bodies = [tool]
    if plan.things[1].count:
        bodies.append(target)
    table = None if held else 0.0
    if table is not None:
        tool_low = min(tool.points[:, 2].min(), _hand_only(tool)[:, 2].min())
        bodies[0] = tool = tool.shifted((0, 0, max(0.0, 0.002 - tool_low)))
    gap = 1000 * _gap(tool, target) if plan.things[1].count else None
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


def _led(
    tool: Body, target: Body, acts: bool, rng: np.random.Generator
) -> tuple[Body, tuple[objects.Surface, ...]]:
    """The tool where it acts on its target, with the marks it leaves; or clear of it."""
    assert tool.shape is not None and target.shape is not None
    kind = tool.shape.kind
    top = float(target.points[:, 2].max())
    centre = _axis_point(target, top)
    if kind == "bottle":
        if not acts:
            return _beside(tool, target, rng), ()
        tool = _tipped(tool, rng.uniform(100, 112), rng.uniform(-15, 10))
        tool = tool.shifted(centre + rng.uniform(0.028, 0.04) * UP - tool.end)
        tool = _raised(tool, target)
        floor = _floor(target, tool.end)
        return tool, (_stream(tool.end, floor),)
    if kind == "stick":
        tool = _tipped(tool, rng.uniform(118, 132), rng.uniform(-15, 10))
        tool = _lowered(tool, target, centre)
        return (tool, ()) if acts else (_beside(tool, target, rng), ())
    if kind == "key":
        facing = np.radians(rng.uniform(-45, -28))
        normal = np.array([np.cos(facing), np.sin(facing), 0.0])
        tool = _pointed(tool, -normal)
        spot = _axis_point(target, top * rng.uniform(0.5, 0.62))
        tool = tool.shifted(spot + 0.2 * normal - tool.end)
        gone = _trace(tool.points, target, -normal)
        tool = tool.shifted(-normal * gone)
        return (tool, ()) if acts else (_beside(tool, target, rng), ())
    if kind == "spoon":
        lean = 22.0 if target.shape.kind == "mug" else rng.uniform(32, 40)
        tool = _leaned(tool, lean)
        aside = -tool.end_direction * [1, 1, 0]
        inner = 0.5 * float(np.ptp(target.points[:, 1]))
        spot = centre - 0.25 * inner * aside / np.linalg.norm(aside)
        tool = tool.shifted(_floor(target, spot) + 0.003 * UP - tool.end)
        tool = _raised(tool, target)
        return (tool, ()) if acts else (_beside(tool, target, rng), ())
    spot = centre + np.array([*rng.uniform(-0.012, 0.012, 2), 0.0])
    tool = _lowered(tool, target, spot)
    if not acts:
        return _beside(tool, target, rng), ()
    mark = _ink(tool.end, target, rng) if kind == "pen" else _daub(tool.end, target, rng)
    return tool, mark


def _arrange_form(world: sample.World, plan: Plan, rng: np.random.Generator) -> Arrangement:
    """Things that form a shape, and another near it."""
    count, kind = plan.things[0].count, plan.things[0].kind
    one = _on_table(plan, 0, rng, lying=kind == "box")
    partner = _on_table(plan, 1, rng) if plan.things[1].count else None
    wide = 1.12 * float(np.ptp(one.points[:, :2], axis=0).max())
    inside = 0.5 * float(np.ptp(partner.points[:, :2], axis=0).max()) if partner else 0.0
    relation = plan.verb("shape")
    least = inside + 0.55 * wide + 0.008 if relation == "surrounds" else 0.0
    tall = float(np.ptp(one.points[:, 2]))
    places = _shape_places(str(plan.shape), count, wide, tall, least, rng)
    bodies = []
    for place in places:
        angle = rng.uniform(-8, 8) if kind in ("box", "book") else rng.uniform(0, 360)
        bodies.append(one.turned(sample.rotation_about(2, angle)).shifted(place))
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
    return flat @ sample.rotation_about(2, rng.uniform(-12, 12)).T


def _arrange_place(world: sample.World, plan: Plan, rng: np.random.Generator) -> Arrangement:
    """A thing on, in or beside another, which is beside a third."""
    top, _, partner = plan.things
    base = _on_table(plan, 1, rng, lying=True)
    bodies = [base]
    wide = float(np.ptp(base.points[:, 0])) / 2
    if top.count:
        body = _on_table(plan, 0, rng)
        if plan.verb("thing0") == "is beside":
            offset = wide + float(np.ptp(body.points[:, 0])) / 2 + 0.015
            bodies.append(body.shifted((-offset, -0.01, 0.0)))
        else:
            bodies.append(_dropped(body, base))
    if partner.count:
        body = _on_table(plan, 2, rng)
        offset = wide + float(np.ptp(body.points[:, 0])) / 2 + 0.018
        bodies.append(body.shifted((offset, rng.uniform(-0.02, 0.02), 0.0)))
    focus = np.concatenate([body.points for body in bodies])
    return Arrangement(tuple(bodies), (), (0.0, -0.85, 0.52), focus, 0.0)


def _arrange_together(world: sample.World, plan: Plan, rng: np.random.Generator) -> Arrangement:
    """Two hands hold a thing, and another is on or in it."""
    base = _held(world, plan, 0, "bimanual", rng)
    bodies = [base]
    if plan.things[1].count:
        bodies.append(_dropped(_on_table(plan, 1, rng), base))
    focus = np.concatenate([base.joints, *(body.points for body in bodies)])
    look_from = (0.0, -0.85, 0.52)
    return Arrangement(tuple(bodies), (), look_from, focus, None, wall_m=WALL_M)


def _arrange_each(world: sample.World, plan: Plan, rng: np.random.Generator) -> Arrangement:
    """Each hand with its own thing, the right hand on the right."""
    bodies = []
    for place, hand in enumerate(plan.hands):
        if not plan.things[place].count:
            continue
        category = _HOLDING_GRASPS[plan.things[place].kind]
        body = _held(world, plan, place, category, rng)
        if category == "platform":
            body = _towards(body, 50.0)
        extent = np.concatenate([body.points, body.joints])
        low, high = extent.min(axis=0), extent.max(axis=0)
        body = body.shifted((0.018 - low[0], 0.0, -(low[2] + high[2]) / 2))
        bodies.append(body.moved(MIRROR) if hand.side == "left" else body)
    focus = np.concatenate([np.concatenate([body.points, body.joints]) for body in bodies])
    return Arrangement(tuple(bodies), (), (0.0, -0.95, 0.3), focus, None)


def _arrange_offer(world: sample.World, plan: Plan, rng: np.random.Generator) -> Arrangement:
    """A thing on a left palm, and a right index finger that points at it or presses it."""
    held = plan.holder("thing0") is not None
    if held:
        thing = _held(world, plan, 0, "platform", rng).moved(MIRROR)
        thing = _towards(thing, 165.0 + rng.uniform(-12, 12))
        thing = thing.shifted(-_seat(thing))
    else:
        thing = _on_table(plan, 0, rng)
    grasp, _ = _solved(world, "index_press", "bell", int(rng.integers(GRASP_VARIANTS)))
    finger = replace(_body(grasp, None, None, plan), pose=np.eye(4))
    finger = _towards(finger, 45.0 + rng.uniform(-10, 10))
    tip = _fingertip(finger)
    centre = _axis_point(thing, float(thing.points[:, 2].max()))
    verb = plan.verb("hand1")
    if verb == "presses":
        finger = finger.shifted(centre + 0.1 * UP - tip)
        near = finger.skin[np.linalg.norm(finger.skin - _fingertip(finger), axis=1) < 0.03]
        finger = finger.shifted(DOWN * _trace(near, thing, DOWN))
    else:
        finger = finger.shifted(centre + POINT_M * UP - tip)
        clear = float(thing.distance(_hand_only(finger)).min())
        finger = finger.shifted(max(0.0, MIN_CLEAR_M - clear) * UP)
    if verb is None:
        aside = float(np.ptp(thing.points[:, 0])) / 2 + CLEAR_M + 0.02
        finger = finger.shifted((aside, 0.0, 0.0))
    gap = 1000 * float(thing.distance(_fingertip(finger)[None])[0])
    bodies = (thing, finger)
    focus = np.concatenate([thing.points, thing.joints, finger.joints])
    return Arrangement(bodies, (), (0.05, -0.86, 0.50), focus, None if held else 0.0, gap)


# --- bodies ---------------------------------------------------------------------------------------


@lru_cache(maxsize=512)
def _solved(
    world: sample.World, category: str, kind: str, variant: int
) -> tuple[grasps.Grasp, objects.ObjectShape]:
    group = sample.Group("interactions", variant, 0, category, (kind,), DEFECTS[0], ("clean",))
    grasp, _, shape = sample.solve_group(world, group)
    return grasp, shape


def _held(
    world: sample.World, plan: Plan, place: int, category: str, rng: np.random.Generator
) -> Body:
    """A thing in a right hand, or in two."""
    variant = int(rng.integers(GRASP_VARIANTS))
    grasp, shape = _solved(world, category, plan.things[place].kind, variant)
    return _body(grasp, shape, place, plan)


def _body(
    grasp: grasps.Grasp, shape: objects.ObjectShape | None, place: int | None, plan: Plan
) -> Body:
    tone = plan.hands[0].skin_tone
    hands = tuple(
        render.HandMesh(_long_forearm(hand), hand.faces, hand.finger, tone) for hand in grasp.hands
    )
    body = Body(shape, grasp.object_pose, place, hands=hands, joints=grasp.joints_3d)
    if place is None:
        return body
    thing = plan.things[place]
    return replace(body, colour=thing.colour, material=thing.material)


def _long_forearm(hand: grasps.PlacedHand) -> Array:
    """A hand's vertices with the forearm drawn out, so that it ends outside wide pictures, too."""
    wrist, knuckle = hand.joints_3d[0], hand.joints_3d[9]
    axis = (wrist - knuckle) / np.linalg.norm(wrist - knuckle)
    beyond = np.maximum((hand.vertices - wrist) @ axis - FOREARM_START_M, 0.0)
    return hand.vertices + FOREARM_STRETCH * beyond[:, None] * axis


@lru_cache(maxsize=256)
def _standing(kind: str, size: int) -> objects.ObjectShape:
    return objects.make_object(kind, None, size / (OBJECT_SIZES - 1))


def _on_table(plan: Plan, place: int, rng: np.random.Generator, lying: bool = False) -> Body:
    """A thing that stands on z = 0 over the origin, turned at random."""
    thing = plan.things[place]
    shape = _standing(thing.kind, int(rng.integers(OBJECT_SIZES)))
    body = Body(shape, np.eye(4), place, thing.colour, thing.material)
    turn = rng.uniform(-25, 25)
    if thing.kind == "box" and lying:
        body = body.turned(sample.rotation_about(1, 90.0))
    if thing.kind == "box" and not lying:
        turn = -30.0
    body = body.turned(sample.rotation_about(2, turn))
    low, high = body.points.min(axis=0), body.points.max(axis=0)
    middle = (low + high) / 2 if thing.kind == "box" else np.zeros(3)
    return body.shifted((-middle[0], -middle[1], -low[2]))


def _seat(body: Body) -> Array:
    """The point on a thing's axis at its lowest height."""
    return _axis_point(body, float(body.points[:, 2].min()))


def _axis_point(body: Body, height: float) -> Array:
    """The point over a thing's middle at a height."""
    assert body.shape is not None
    middle = body.at((0.0, 0.0, 0.0))
    if body.shape.kind == "box":
        middle = (body.points.min(axis=0) + body.points.max(axis=0)) / 2
    return np.array([middle[0], middle[1], height])


def _hand_only(body: Body) -> Array:
    """Skin without the forearm."""
    near = np.linalg.norm(body.skin - body.joints[9], axis=1) < 0.13
    return body.skin[near]


def _fingertip(body: Body) -> Array:
    """The lowest point of the index finger (3,)."""
    hand = body.hands[0]
    index = hand.vertices[hand.finger == 1]
    return index[np.argmin(index[:, 2])]


# --- motions --------------------------------------------------------------------------------------


def _towards(body: Body, degrees: float) -> Body:
    """Turn a hand about the vertical through its thing so that its forearm points at an azimuth."""
    now = np.degrees(np.arctan2(body.forearm[1], body.forearm[0]))
    about = body.pose[:3, 3]
    return body.turned(sample.rotation_about(2, degrees - now), about)


def _leaned(tool: Body, degrees: float) -> Body:
    """Lean a tool that points down by this much from the vertical, the way it leans."""
    away = -tool.end_direction
    flat = away * [1, 1, 0]
    flat = flat / np.linalg.norm(flat)
    angle = np.radians(degrees)
    return tool.turned(_between(away, np.sin(angle) * flat + np.cos(angle) * UP))


def _tipped(tool: Body, roll: float, azimuth: float) -> Body:
    """Roll the forearm so that an upright tool's end comes down over the palm's side, `roll`
    degrees from upright, and turn it towards an azimuth (0: +x)."""
    wrist, index, little = tool.joints[0], tool.joints[5], tool.joints[17]
    palm = np.cross(index - wrist, little - wrist) * [1, 1, 0]
    palm = palm / np.linalg.norm(palm)
    axis = np.cross(UP, palm)
    tool = tool.turned(_about(axis, np.radians(roll)))
    now = np.degrees(np.arctan2(tool.end_direction[1], tool.end_direction[0]))
    return tool.turned(sample.rotation_about(2, azimuth - now))


def _pointed(tool: Body, direction: Array) -> Body:
    """Turn a tool about the vertical, then tilt it, to point along a horizontal direction."""
    now = np.arctan2(tool.end_direction[1], tool.end_direction[0])
    wanted = np.arctan2(direction[1], direction[0])
    tool = tool.turned(sample.rotation_about(2, np.degrees(wanted - now)))
    return tool.turned(_between(tool.end_direction, direction))


def _lowered(tool: Body, target: Body, spot: Array) -> Body:
    """Lower a tool over a spot until it touches the target."""
    tool = tool.shifted(spot + 0.15 * UP - tool.end)
    return tool.shifted(DOWN * _trace(tool.points, target, DOWN))


def _dropped(body: Body, base: Body) -> Body:
    """Lower a thing onto, or into, the middle of another."""
    top = float(base.points[:, 2].max())
    body = body.shifted(_axis_point(base, top + 0.01))
    return body.shifted(DOWN * _trace(body.points, base, DOWN))


def _raised(tool: Body, target: Body) -> Body:
    """Raise a tool and its hand until neither is inside the target."""
    points = np.concatenate([tool.points, _hand_only(tool)])
    risen = 0.0
    for _ in range(60):
        # What is above the target cannot come into it by rising.
        low = points[points[:, 2] + risen < target.points[:, 2].max() + TOUCH_M]
        gap = float(target.distance(low + risen * UP).min()) if len(low) else 0.0
        if gap >= -TOUCH_M:
            break
        risen += max(0.002, -gap)
    return tool.shifted(risen * UP)


def _beside(tool: Body, target: Body, rng: np.random.Generator) -> Body:
    """Move a tool and its hand aside, over the table, until it is clear of its target."""
    middle = _hand_only(tool).mean(axis=0)
    aside = (middle - tool.end) * [1, 1, 0]
    aside = aside / np.linalg.norm(aside)
    if abs(aside[0]) < 0.8:  # sideways as the camera sees it, so that the gap shows
        aside = np.array([1.0 if aside[0] >= 0 else -1.0, 0.0, 0.0])
    height = float(target.points[:, 2].min()) + rng.uniform(0.02, 0.035)
    low = float(np.concatenate([tool.points, _hand_only(tool)])[:, 2].min())
    tool = tool.shifted(_axis_point(target, 0.0) - tool.end * [1, 1, 0])
    tool = tool.shifted((0, 0, height - low))
    points, gone = np.concatenate([tool.points, _hand_only(tool)])[::2], 0.0
    for _ in range(80):
        gap = float(target.distance(points + gone * aside).min())
        if gap >= CLEAR_M:
            break
        gone += max(0.004, 0.7 * (CLEAR_M - gap))
    return tool.shifted(gone * aside)


def _trace(points: Array, target: Body, direction: Array, limit: float = 0.5) -> float:
    """How far (m) points can go along a direction before they touch the target."""
    gone = 0.0
    for _ in range(80):
        gap = float(target.distance(points + gone * direction).min())
        if gap <= TOUCH_M or gone > limit:
            break
        gone += gap - 0.5 * TOUCH_M
    return gone


def _floor(target: Body, spot: Array) -> Array:
    """The point of the target's inside below a spot."""
    return spot + DOWN * _trace(spot[None], target, DOWN)


def _gap(tool: Body, target: Body) -> float:
    """Distance (m) from a tool's working end to the target's surface."""
    near = np.linalg.norm(tool.points - tool.end, axis=1) < 0.02
    return float(target.distance(tool.points[near]).min())


def _between(one: Array, other: Array) -> Array:
    """The smallest rotation (3, 3) that takes one unit vector to another."""
    axis = np.cross(one, other)
    sine = float(np.linalg.norm(axis))
    if sine < 1e-9:
        return np.eye(3)
    return _about(axis / sine, float(np.arctan2(sine, one @ other)))


def _about(axis: Array, angle: float) -> Array:
    """Rotation (3, 3) about a unit axis by radians."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    turned: Array = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return turned


def _apply(motion: Array, points: Array) -> Array:
    moved: Array = points @ motion[:3, :3].T + motion[:3, 3]
    return moved


# --- marks ----------------------------------------------------------------------------------------


def _mark(solid: objects.Solid, role: str, target: Body | None = None) -> objects.Surface:
    vertices, faces, normals = objects.shaded(*solid.mesh())
    return objects.Surface(vertices, faces, normals, role, target.colour if target else None)


def _stream(mouth: Array, floor: Array) -> objects.Surface:
    """Water from a bottle's mouth to the floor of what it pours into."""
    path = np.linspace(mouth, np.array([mouth[0], mouth[1], floor[2] + 0.004]), 6)
    return _mark(objects.Tube(path, 0.0038), "water")


def _ink(end: Array, target: Body, rng: np.random.Generator) -> tuple[objects.Surface, ...]:
    """Lines that a pen wrote, the last one up to its tip."""
    lines = []
    for line in range(3):
        across = np.linspace(-0.03, 0.0 if line == 0 else 0.008, 14)
        wave = 0.0018 * np.sin(across * 900 + rng.uniform(0, 6)) + 0.009 * line
        at = np.stack([end[0] + across, end[1] + wave, np.full(14, end[2])], axis=1)
        on = at[np.abs(target.distance(at)) < 0.002]
        if len(on) > 2:
            lines.append(_mark(objects.Tube(on, 0.0009), "contrast", target))
    return tuple(lines)


def _daub(end: Array, target: Body, rng: np.random.Generator) -> tuple[objects.Surface, ...]:
    """A stroke of paint that ends under the brush."""
    patch = objects.Placed(
        objects.Box((0.02, 0.007, 0.0008), 0.0006),
        (end[0] - 0.016, end[1], end[2] - 0.0004),
        sample.rotation_about(2, rng.uniform(-8, 8)),
    )
    return (_mark(patch, "contrast", target),)
