"""Renders pictures of interactions with their truth."""

from typing import Any

import numpy as np
from PIL import Image

from hoi_assets.grammar.plans import Plan
from hoi_assets.grammar.sentences import sentence, triples
from hoi_assets.tinyworld.scenes.camera import Camera, aim
from hoi_assets.tinyworld.scenes.interactions.arrange import arrange
from hoi_assets.tinyworld.scenes.interactions.body import Arrangement
from hoi_assets.tinyworld.scenes.interactions.stream import StreamItem
from hoi_assets.tinyworld.scenes.objects.shape import Surface
from hoi_assets.tinyworld.scenes.render import STANDARD, Quality, View, trace_view, view_stage
from hoi_assets.tinyworld.scenes.rigid import Array
from hoi_assets.tinyworld.scenes.sample import Scene
from hoi_assets.tinyworld.scenes.solving import World
from hoi_assets.tinyworld.scenes.stage import HandMesh, Look, Stage

CAMERA_ATTEMPTS = 4
MIN_SHARE = 0.0025  # of the picture that each thing and hand must show
CAMERA_JITTER = 0.6


def render_interaction(
    world: World,
    plan: Plan,
    quality: Quality = STANDARD,
) -> tuple[Image.Image, dict[str, Any]]:
    """Render a plan; equal arguments give equal pixels and rows.

    Returns:
        The picture and its truth: scenario, pattern, caption (what it shows), triples (those that
        hold) and plan as JSON, gap_mm, camera, and the pixels of each hand and thing.
    """
    scene = arrange(world, plan)
    stage, owners = stage_of_arrangement(scene)
    tone = plan.hands[0].skin_tone if plan.hands else None
    look = Look("red", "plastic", tone, plan.light, plan.background, plan.seed)
    view: View | None = None
    for attempt in range(CAMERA_ATTEMPTS):
        camera = aim(stage, scene.look_from, plan.seed + attempt, jitter=CAMERA_JITTER)
        tried = view_stage(stage, camera, look, quality)
        if view is None or _least(tried, owners) > _least(view, owners):
            view = tried
        if _least(view, owners) >= MIN_SHARE * quality.size**2:
            break
    assert view is not None
    shown = _shown(view.pixels, owners)
    row = {
        "scenario": plan.scenario,
        "pattern": plan.pattern,
        "caption": sentence(plan),
        "triples": [[each.subject, each.relation, each.object] for each in triples(plan)],
        "plan": plan.as_json(),
        "gap_mm": scene.gap_mm,
        "camera": view.camera.as_list(),
        "hand_pixels": [count for name, count in shown if name is None],
        "thing_pixels": [count for name, count in shown if name is not None],
        "things": [plan.things[name].kind for name, _ in shown if name is not None],
    }
    return trace_view(view, quality).image, row


def render_item(
    world: World,
    item: StreamItem,
    quality: Quality = STANDARD,
) -> Scene:
    """Render one picture of a stream, with its sentence, questions and answers as a row."""
    image, row = render_interaction(world, item.drawn, quality)
    return Scene(image, row | item.row())


def stage_of_arrangement(scene: Arrangement) -> tuple[Stage, list[tuple[int | None, list[str]]]]:
    """The stage, and per hand (None) and thing (its place) the names of what shows it in
    `View.pixels`."""
    hands: list[HandMesh] = []
    surfaces: list[Surface] = []
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
    stage = Stage(
        tuple(hands), tuple(surfaces), centre, radius, scene.support_z, joints, scene.wall_m
    )
    return stage, owners


def _framed(scene: Arrangement) -> tuple[Array, float]:
    """Middle and half side of the square that the focus fills as the camera sees it."""
    camera = Camera(scene.look_from, (0.0, 0.0, 0.0), (0.0, 0.0, 1.0), 1.0)
    axes = camera.axes()
    seen = scene.focus @ axes.T
    low, high = seen.min(axis=0), seen.max(axis=0)
    # What is nearer than the middle looks larger.
    radius = 0.5 * float((high - low)[:2].max()) * 1.1 + 0.12 * float(high[2] - low[2]) / 2
    return (low + high) / 2 @ axes, radius


def _least(view: View, owners: list[tuple[int | None, list[str]]]) -> int:
    """Pixels of what shows least."""
    return min(count for _, count in _shown(view.pixels, owners))


def _shown(pixels: Any, owners: list[tuple[int | None, list[str]]]) -> list[tuple[int | None, int]]:
    return [(owner, sum(pixels[name] for name in names)) for owner, names in owners]
