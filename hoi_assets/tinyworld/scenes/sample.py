"""Renders groups of pictures with their truth."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from hoi_assets.grammar.captions import caption
from hoi_assets.grammar.vocabulary import (
    BACKGROUNDS,
    COLOURS,
    LIGHTS,
    MATERIALS,
    OBJECTS,
    SKIN_TONES,
    VIEWS,
)
from hoi_assets.tinyworld.scenes.camera import Camera, aim
from hoi_assets.tinyworld.scenes.false_captions import false_claims_for, with_false_claim
from hoi_assets.tinyworld.scenes.groups import Group
from hoi_assets.tinyworld.scenes.hands.grasps import Grasp
from hoi_assets.tinyworld.scenes.objects.catalogue import make_object
from hoi_assets.tinyworld.scenes.objects.shape import ObjectShape
from hoi_assets.tinyworld.scenes.render import (
    STANDARD,
    Quality,
    Render,
    View,
    read_labels,
    render_stage,
    trace_view,
    view_stage,
)
from hoi_assets.tinyworld.scenes.resting import ALONE_VIEWS, resting_stage
from hoi_assets.tinyworld.scenes.rigid import Array
from hoi_assets.tinyworld.scenes.solving import World, solve_group, stage_of_grasp
from hoi_assets.tinyworld.scenes.stage import Look, Stage

MIN_HAND_SHARE, MIN_OBJECT_SHARE, MIN_PAINT_SHARE = 0.05, 0.004, 0.002
MIN_DEFECT_PIXELS = 70  # of 128 x 128 that differ from the unspoilt twin
CAMERA_ATTEMPTS = 6


@dataclass(frozen=True)
class Scene:
    """A rendered picture and its row: the columns of `SCENES` less file and digest, masks as bool
    arrays."""

    image: Image.Image
    row: dict[str, Any]


def render_group(
    world: World,
    group: Group,
    quality: Quality = STANDARD,
) -> Iterator[Scene]:
    """Render the pictures of one group, in order; equal arguments give equal pixels and rows."""
    if group.category is None:
        for number in range(len(group.plans)):
            yield _render_alone(world, group, number, quality)
        return
    clean, spoilt, shape = solve_group(world, group)
    for number in range(len(group.plans)):
        yield _render_grasp(world, group, number, clean, spoilt, shape, quality)


def draw_words(rng: np.random.Generator) -> dict[str, Any]:
    """Everything about a picture that is drawn at random: its words, mirroring and seed."""

    def pick(choices: Sequence[str]) -> str:
        return choices[int(rng.integers(len(choices)))]

    return {
        "skin_tone": pick(SKIN_TONES),
        "colour": pick(COLOURS),
        "material": pick(MATERIALS),
        "view": pick(VIEWS),
        "light": pick(LIGHTS),
        "background": pick(BACKGROUNDS),
        "mirrored": bool(rng.random() < 0.5),
        "seed": int(rng.integers(2**31)),
    }


def _render_grasp(
    world: World,
    group: Group,
    number: int,
    clean: Grasp,
    spoilt: Grasp | None,
    shape: ObjectShape,
    quality: Quality,
) -> Scene:
    words = draw_words(group.rng(2, number))
    plan = group.plans[number]
    grasp = spoilt if plan == "defect" and spoilt is not None else clean
    side = "both" if len(clean.hands) == 2 else ("left" if words["mirrored"] else "right")
    stages = [stage_of_grasp(each, shape) for each in (grasp, clean)]
    if words["mirrored"]:
        stages = [stage.mirrored() for stage in stages]
    flip = np.array([-1.0 if words["mirrored"] else 1.0, 1.0, 1.0])
    views = {view: np.asarray(clean.views[view]) * flip for view in VIEWS}
    if plan == "defect":
        words["view"], camera = revealing_camera(stages[0], stages[1], views, words, quality)
        view = view_stage(stages[0], camera, look_of(words), quality)
    else:
        view = _clear_view(stages[0], views[words["view"]], words, quality)
    picture = trace_view(view, quality)
    category = world.taxonomy.categories[str(group.category)]
    slots = words | {"side": side, "grip": category.grip_phrase, "object": shape.kind}
    joints = stages[0].joints_3d
    truth = {
        "category": group.category,
        "side": side,
        "hands": len(grasp.hands),
        "defects": list(grasp.defects),
        "contacts": list(grasp.contacts),
        "contact_mm": float(grasp.contact_mm),
        "penetration_mm": float(grasp.penetration_mm),
        "joint_angles": [float(angle) for angle in grasp.joint_angles],
        "joints_3d": [float(value) for value in joints.ravel()],
    }
    return _scene(world, group, number, slots, truth, picture)


def _clear_view(stage: Stage, direction: Array, words: Mapping[str, Any], quality: Quality) -> View:
    """A view that shows hand and painted object; the jitter is drawn again where it does not."""
    best: tuple[float, View] | None = None
    for attempt in range(CAMERA_ATTEMPTS):
        camera = aim(stage, direction, words["seed"] + attempt)
        view = view_stage(stage, camera, look_of(words), quality)
        shown = _clearness(view)
        if best is None or shown > best[0]:
            best = (shown, view)
        if shown >= 1.0:
            break
    assert best is not None
    return best[1]


def is_clear(view: View) -> bool:
    """Whether hand and painted object show well enough."""
    return _clearness(view) >= 1.0


def _clearness(view: View) -> float:
    return min(
        float(view.hand_mask.mean()) / MIN_HAND_SHARE,
        float(view.object_mask.mean()) / MIN_OBJECT_SHARE,
        float(view.paint_mask.mean()) / MIN_PAINT_SHARE,
    )


def revealing_camera(
    stage: Stage,
    clean: Stage,
    views: Mapping[str, Array],
    words: Mapping[str, Any],
    quality: Quality = STANDARD,
) -> tuple[str, Camera]:
    """The first camera from which the spoilt stage differs clearly from its clean twin."""
    best: tuple[int, str, Camera] | None = None
    order = [words["view"], *(view for view in VIEWS if view != words["view"])]
    for attempt in range(CAMERA_ATTEMPTS):
        view = order[(attempt // 2) % len(order)]
        camera = aim(clean, views[view], words["seed"] + attempt)
        changed = int(
            (read_labels(stage, camera, quality) != read_labels(clean, camera, quality)).sum()
        )
        if best is None or changed > best[0]:
            best = (changed, view, camera)
        if changed >= MIN_DEFECT_PIXELS:
            break
    assert best is not None
    return best[1], best[2]


def _render_alone(world: World, group: Group, number: int, quality: Quality) -> Scene:
    rng = group.rng(3, number)
    kind = OBJECTS[int(rng.integers(len(OBJECTS)))]
    words = draw_words(rng) | {"skin_tone": None}
    shape = make_object(kind, None, float(rng.random()))
    stage = resting_stage(shape, kind, rng)
    camera = aim(stage, ALONE_VIEWS[words["view"]], words["seed"])
    slots = words | {"side": None, "grip": None, "object": kind}
    picture = render_stage(stage, camera, look_of(words), quality)
    truth: dict[str, Any] = {
        "category": None,
        "side": None,
        "hands": 0,
        "defects": [],
        "contacts": [],
        "contact_mm": None,
        "penetration_mm": None,
        "joint_angles": [],
        "joints_3d": [],
    }
    return _scene(world, group, number, slots, truth, picture)


def look_of(words: Mapping[str, Any]) -> Look:
    """The look that words of a picture stand for."""
    return Look(
        colour=words["colour"],
        material=words["material"],
        skin_tone=words["skin_tone"],
        light=words["light"],
        background=words["background"],
        seed=words["seed"],
    )


def _scene(
    world: World,
    group: Group,
    number: int,
    slots: Mapping[str, Any],
    truth: Mapping[str, Any],
    picture: Render,
) -> Scene:
    index = group.first + number
    claimed, lies = dict(slots), []
    if group.plans[number] == "false_caption":
        kinds = false_claims_for(slots)
        kind = kinds[(index // 4) % len(kinds)]
        claimed = with_false_claim(slots, kind, random.Random(slots["seed"]), world.grips)
        lies = [kind]
    wording = None if group.split == "instance" else int(slots["seed"])
    row = {
        "scene_id": f"{group.split}-{index:06d}",
        "split": group.split,
        "caption": caption(claimed, wording),
        "true_caption": caption(slots, wording),
        **{name: slots[name] for name in ("object", "colour", "material", "skin_tone")},
        **{name: slots[name] for name in ("view", "light", "background", "seed")},
        **truth,
        "lies": lies,
        "fidelity": not truth["defects"],
        "alignment": not lies,
        "visible_fingers": list(picture.view.visible_fingers),
        "joints_2d": [float(value) for value in picture.view.joints_2d.ravel()],
        "camera": picture.view.camera.as_list(),
        "hand_area": int(picture.view.hand_mask.sum()),
        "object_area": int(picture.view.object_mask.sum()),
        "hand_mask": picture.view.hand_mask,
        "object_mask": picture.view.object_mask,
        "grasp_id": group.grasp_id,
    }
    return Scene(picture.image, row)
