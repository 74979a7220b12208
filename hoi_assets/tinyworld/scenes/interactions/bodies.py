"""Makes the bodies of a plan: things in hands, things on the table."""

from dataclasses import replace
from functools import lru_cache

import numpy as np

from hoi_assets.grammar.plans import Plan
from hoi_assets.tinyworld.scenes.groups import Group
from hoi_assets.tinyworld.scenes.hands.grasps import Grasp, PlacedHand
from hoi_assets.tinyworld.scenes.interactions.body import Body
from hoi_assets.tinyworld.scenes.objects.catalogue import make_object
from hoi_assets.tinyworld.scenes.objects.shape import ObjectShape
from hoi_assets.tinyworld.scenes.rigid import Array, axis_rotation
from hoi_assets.tinyworld.scenes.solving import World, solve_group
from hoi_assets.tinyworld.scenes.stage import HandMesh
from hoi_assets.tinyworld.scenes.vocabulary import DEFECTS

GRASP_VARIANTS = 6  # per category and thing; solving costs more than drawing
OBJECT_SIZES = 5
FOREARM_START_M, FOREARM_STRETCH = 0.06, 2.8


@lru_cache(maxsize=512)
def solved_grasp(world: World, category: str, kind: str, variant: int) -> tuple[Grasp, ObjectShape]:
    group = Group("interactions", variant, 0, category, (kind,), DEFECTS[0], ("clean",))
    grasp, _, shape = solve_group(world, group)
    return grasp, shape


def thing_in_hand(
    world: World, plan: Plan, place: int, category: str, rng: np.random.Generator
) -> Body:
    """A thing in a right hand, or in two."""
    variant = int(rng.integers(GRASP_VARIANTS))
    grasp, shape = solved_grasp(world, category, plan.things[place].kind, variant)
    return hand_body(grasp, shape, place, plan)


def hand_body(grasp: Grasp, shape: ObjectShape | None, place: int | None, plan: Plan) -> Body:
    tone = plan.hands[0].skin_tone
    hands = tuple(
        HandMesh(_long_forearm(hand), hand.faces, hand.finger, tone) for hand in grasp.hands
    )
    body = Body(shape, grasp.object_pose, place, hands=hands, joints=grasp.joints_3d)
    if place is None:
        return body
    thing = plan.things[place]
    return replace(body, colour=thing.colour, material=thing.material)


def _long_forearm(hand: PlacedHand) -> Array:
    """A hand's vertices with the forearm drawn out, so that it ends outside wide pictures, too."""
    wrist, knuckle = hand.joints_3d[0], hand.joints_3d[9]
    axis = (wrist - knuckle) / np.linalg.norm(wrist - knuckle)
    beyond = np.maximum((hand.vertices - wrist) @ axis - FOREARM_START_M, 0.0)
    return hand.vertices + FOREARM_STRETCH * beyond[:, None] * axis


@lru_cache(maxsize=256)
def _standing(kind: str, size: int) -> ObjectShape:
    return make_object(kind, None, size / (OBJECT_SIZES - 1))


def on_table(plan: Plan, place: int, rng: np.random.Generator, lying: bool = False) -> Body:
    """A thing that stands on z = 0 over the origin, turned at random."""
    thing = plan.things[place]
    shape = _standing(thing.kind, int(rng.integers(OBJECT_SIZES)))
    body = Body(shape, np.eye(4), place, thing.colour, thing.material)
    turn = rng.uniform(-25, 25)
    if thing.kind == "box" and lying:
        body = body.turned(axis_rotation(1, 90.0))
    if thing.kind == "box" and not lying:
        turn = -30.0
    body = body.turned(axis_rotation(2, turn))
    low, high = body.points.min(axis=0), body.points.max(axis=0)
    middle = (low + high) / 2 if thing.kind == "box" else np.zeros(3)
    return body.shifted((-middle[0], -middle[1], -low[2]))


def seat(body: Body) -> Array:
    """The point on a thing's axis at its lowest height."""
    return axis_point(body, float(body.points[:, 2].min()))


def axis_point(body: Body, height: float) -> Array:
    """The point over a thing's middle at a height."""
    assert body.shape is not None
    middle = body.at((0.0, 0.0, 0.0))
    if body.shape.kind == "box":
        middle = (body.points.min(axis=0) + body.points.max(axis=0)) / 2
    return np.array([middle[0], middle[1], height])


def hand_only(body: Body) -> Array:
    """Skin without the forearm."""
    near = np.linalg.norm(body.skin - body.joints[9], axis=1) < 0.13
    return body.skin[near]


def fingertip(body: Body) -> Array:
    """The lowest point of the index finger (3,)."""
    hand = body.hands[0]
    index = hand.vertices[hand.finger == 1]
    return index[np.argmin(index[:, 2])]
