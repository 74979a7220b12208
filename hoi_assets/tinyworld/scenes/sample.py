"""Chooses what each picture of the tiny world shows, and draws it with its truth.

Pictures come in groups that share one solved grasp (and, where a defect is planned, its spoilt
twin), because solving costs more than drawing. A group is drawn from its seed alone, so any shard
can be drawn anew, by itself.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hoi_assets.errors import HoiError
from hoi_assets.grammar import captions
from hoi_assets.grammar.vocabulary import (
    BACKGROUNDS,
    COLOURS,
    DEFECTS,
    LIGHTS,
    MATERIALS,
    OBJECTS,
    SKIN_TONES,
    VIEWS,
)
from hoi_assets.grasp_specs import GraspSpec, read_grasps
from hoi_assets.taxonomy import Taxonomy, load_taxonomy
from hoi_assets.tinyworld.scenes import grasps, objects, render

Array = NDArray[np.float64]

# Splits never share a seed, hence neither scene nor grasp.
SPLIT_SEEDS = {
    "instance": 11,
    "judge_train": 12,
    "judge_val": 13,
    "judge_test": 14,
    "reference": 15,
    "pretrain": 16,
    "examiner": 17,
    "interactions": 18,
}
STORED_SPLITS = ("instance", "judge_train", "judge_val", "judge_test", "reference")
STREAM_SPLITS = ("pretrain", "examiner")
# Pictures per category, and how many share a grasp.
STORED_COUNTS = {
    "instance": (16, 4),
    "judge_train": (40, 4),
    "judge_val": (15, 3),
    "judge_test": (18, 3),
}
REFERENCE_PICTURES, REFERENCE_GROUP = 60, 2
STREAM_GROUP = 5
# Four of nine pictures (44%) lie or are spoilt.
JUDGE_PATTERN = ("clean", "defect", "clean", "lie", "clean", "defect", "clean", "lie", "clean")
PRETRAIN_DEFECTS, PRETRAIN_LIES, PRETRAIN_ALONE = 0.15, 0.10, 0.08
EXAMINER_DEFECTS, EXAMINER_ALONE = 0.45, 0.04

MAX_CONTACT_MM, MAX_PENETRATION_MM = 4.0, 5.0
MIN_HAND_SHARE, MIN_OBJECT_SHARE, MIN_PAINT_SHARE = 0.05, 0.004, 0.002
MIN_DEFECT_PIXELS = 70  # of 128 x 128 that differ from the unspoilt twin
SOLVE_ATTEMPTS, CAMERA_ATTEMPTS = 12, 6


@dataclass(frozen=True)
class Group:
    """Pictures that share a grasp: what is planned, before anything is solved.

    Attributes:
        first: index of the group's first picture within its split.
        category: None for objects without a hand.
        objects: what the group may show; one is drawn from the seed.
        defect: kind put into the pictures planned as `defect`.
        plans: per picture clean | defect | lie.
        lies: per picture the index that picks the kind of lie.
    """

    split: str
    index: int
    first: int
    category: str | None
    objects: tuple[str, ...]
    defect: str
    plans: tuple[str, ...]

    @property
    def grasp_id(self) -> str:
        return f"{self.split}-g{self.index:05d}"

    def rng(self, *stream: int) -> np.random.Generator:
        return np.random.default_rng([SPLIT_SEEDS[self.split], self.index, *stream])


@dataclass(frozen=True)
class Scene:
    """One drawn picture and its row: `pool.SCHEMA` less file and digest, masks as bool arrays."""

    image: Image.Image
    row: dict[str, Any]


# --- plans ----------------------------------------------------------------------------------------


def plan_stored(taxonomy: Taxonomy) -> list[Group]:
    """The stored pool: per category instance, judge_train, judge_val, judge_test; and reference."""
    groups = []
    for split, (count, size) in STORED_COUNTS.items():
        index = first = spoilt = 0
        for key, category in taxonomy.categories.items():
            names = category.objects
            if split == "judge_test":
                names = names + category.held_out_objects
            for start in range(0, count, size):
                here = min(size, count - start)
                plans = ("clean",) * here
                if split != "instance":
                    # Moved on by one a group, so that no object is always spoilt or never.
                    plans = tuple(_pattern(first + index + k) for k in range(here))
                # Objects take turns, so that each is shown about as often.
                name = names[(start // size) % len(names)]
                # So do defects, among the groups that show one.
                defect = DEFECTS[spoilt % len(DEFECTS)]
                groups.append(Group(split, index, first, key, (name,), defect, plans))
                index, first, spoilt = index + 1, first + here, spoilt + ("defect" in plans)
    keys = tuple(taxonomy.categories)
    for index in range(REFERENCE_PICTURES // REFERENCE_GROUP):
        key = keys[index % len(keys)]
        plans = ("clean",) * REFERENCE_GROUP
        shown = taxonomy.categories[key].objects
        first = index * REFERENCE_GROUP
        groups.append(Group("reference", index, first, key, shown, DEFECTS[0], plans))
    return groups


def plan_stream(taxonomy: Taxonomy, split: str, first: int, count: int) -> list[Group]:
    """Pictures `first` to `first + count` of the pretraining or the examiner's stream.

    pretrain: train objects only, about 15% spoilt, 10% with a lying caption, 8% without a hand.
    examiner: all objects, about 45% spoilt, captions true.
    """
    return [
        _stream_group(taxonomy, split, index)
        for index in range(first // STREAM_GROUP, (first + count) // STREAM_GROUP)
    ]


def _pattern(index: int) -> str:
    return JUDGE_PATTERN[index % len(JUDGE_PATTERN)]


def _stream_group(taxonomy: Taxonomy, split: str, index: int) -> Group:
    rng = np.random.default_rng([SPLIT_SEEDS[split], index, 0xA0])
    pretrain = split == "pretrain"
    first = index * STREAM_GROUP
    alone = rng.random() < (PRETRAIN_ALONE if pretrain else EXAMINER_ALONE)
    share = PRETRAIN_DEFECTS if pretrain else EXAMINER_DEFECTS
    lies = PRETRAIN_LIES if pretrain else 0.0
    # Defects come bundled: half of the pictures of twice as many groups, one twin solved for all.
    spoilt = not alone and rng.random() < min(1.0, 2 * share)
    plans = []
    for _ in range(STREAM_GROUP):
        chance = rng.random()
        if spoilt and chance < share / min(1.0, 2 * share):
            plans.append("defect")
        else:
            plans.append("lie" if rng.random() < lies else "clean")
    defect = DEFECTS[int(rng.integers(len(DEFECTS)))]
    if alone:
        return Group(split, index, first, None, OBJECTS, defect, tuple(plans))
    keys = tuple(taxonomy.categories)
    key = keys[int(rng.integers(len(keys)))]
    shown = taxonomy.categories[key].objects
    if not pretrain:
        shown = shown + taxonomy.categories[key].held_out_objects
    return Group(split, index, first, key, shown, defect, tuple(plans))


# --- drawing --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)  # one world is itself, so that grasps can be kept for it
class World:
    """What drawing reads besides the group: the taxonomy and the grasps' specifications."""

    taxonomy: Taxonomy
    specs: Mapping[str, GraspSpec]

    @property
    def grips(self) -> tuple[str, ...]:
        return tuple(category.grip_phrase for category in self.taxonomy.categories.values())


@lru_cache(maxsize=4)
def load_world(folder: Path) -> World:
    """Read the taxonomy folder once per process."""
    return World(load_taxonomy(folder), read_grasps(folder / "grasps.yaml"))


def draw_group(
    world: World,
    group: Group,
    size: int = render.PICTURE_SIZE,
    samples_per_pixel: int = render.SAMPLES_PER_PIXEL,
) -> Iterator[Scene]:
    """Draw the pictures of one group, in order; equal arguments give equal pixels and rows."""
    settings = {"size": size, "samples_per_pixel": samples_per_pixel}
    if group.category is None:
        for number in range(len(group.plans)):
            yield _draw_alone(world, group, number, settings)
        return
    clean, spoilt, shape = solve_group(world, group)
    for number in range(len(group.plans)):
        yield _draw_grasp(world, group, number, clean, spoilt, shape, settings)


def solve_group(
    world: World, group: Group
) -> tuple[grasps.Grasp, grasps.Grasp | None, objects.ObjectShape]:
    """The group's grasp, its spoilt twin where one is planned, and the object held.

    Raises:
        HoiError: when no attempt gives a plausible grasp.
    """
    key = str(group.category)
    spec = world.specs[key]
    rng = group.rng(1)
    kind = group.objects[int(rng.integers(len(group.objects)))]
    last = ""
    for _ in range(SOLVE_ATTEMPTS):
        shape_seed, jitter_seed = (int(seed) for seed in rng.integers(2**31, size=2))
        try:
            shape = _object_for(spec, kind, float(rng.random()), shape_seed)
            solve = partial(
                grasps.solve_grasp, key, spec, shape, shape_seed=shape_seed, jitter_seed=jitter_seed
            )
            clean = solve()
            if not _plausible(clean):
                last = f"contact {clean.contact_mm:.1f} mm, depth {clean.penetration_mm:.1f} mm"
                continue
            spoilt = None
            if "defect" in group.plans:
                spoilt = solve(defects=(group.defect,))
            return clean, spoilt, shape
        except HoiError as error:
            last = str(error)
    raise HoiError(
        f"scenes: {key} with {kind} found no plausible grasp in {SOLVE_ATTEMPTS} attempts ({last})",
        f"Adjust '{key}' in grasps.yaml, or take '{kind}' from the category's objects.",
    )


def stage_of(grasp: grasps.Grasp, shape: objects.ObjectShape) -> render.Stage:
    """What the camera sees of a grasp, in world coordinates."""
    rotation, origin = grasp.object_pose[:3, :3], grasp.object_pose[:3, 3]
    surfaces = tuple(
        objects.Surface(
            part.vertices @ rotation.T + origin, part.faces, part.normals @ rotation.T, part.role
        )
        for part in shape.surfaces
    )
    hands = tuple(render.HandMesh(hand.vertices, hand.faces, hand.finger) for hand in grasp.hands)
    return render.Stage(
        hands, surfaces, grasp.centre, grasp.radius, grasp.support_z, grasp.joints_3d
    )


def _plausible(grasp: grasps.Grasp) -> bool:
    return (
        not grasp.missing_contacts
        and grasp.contact_mm <= MAX_CONTACT_MM
        and grasp.penetration_mm <= MAX_PENETRATION_MM
    )


def _object_for(spec: GraspSpec, kind: str, size: float, shape_seed: int) -> objects.ObjectShape:
    grip = spec.grip_of(kind)
    if grip != "wear":
        return objects.make_object(kind, grip, size)
    section = grasps.worn_section(kind, shape_seed)
    return objects.make_object(kind, grip, size, hole=(section.half_x, section.half_y))


def _words(rng: np.random.Generator) -> dict[str, Any]:
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


def _draw_grasp(
    world: World,
    group: Group,
    number: int,
    clean: grasps.Grasp,
    spoilt: grasps.Grasp | None,
    shape: objects.ObjectShape,
    settings: Mapping[str, int],
) -> Scene:
    words = _words(group.rng(2, number))
    plan = group.plans[number]
    grasp = spoilt if plan == "defect" and spoilt is not None else clean
    side = "both" if len(clean.hands) == 2 else ("left" if words["mirrored"] else "right")
    stages = [stage_of(each, shape) for each in (grasp, clean)]
    if words["mirrored"]:
        stages = [stage.mirrored() for stage in stages]
    flip = np.array([-1.0 if words["mirrored"] else 1.0, 1.0, 1.0])
    views = {view: np.asarray(clean.views[view]) * flip for view in VIEWS}
    if plan == "defect":
        view, camera = _revealing_camera(stages[0], stages[1], views, words)
        words["view"] = view
        picture = render.draw(stages[0], camera, _look(words), **settings)
    else:
        picture = _clear_picture(stages[0], views[words["view"]], words, settings)
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


def _clear_picture(
    stage: render.Stage,
    direction: Array,
    words: Mapping[str, Any],
    settings: Mapping[str, int],
) -> render.Picture:
    """A picture that shows hand and painted object; the jitter is drawn again where it does not."""
    best: tuple[float, render.Picture] | None = None
    for attempt in range(CAMERA_ATTEMPTS):
        camera = render.aim(stage, direction, words["seed"] + attempt)
        picture = render.draw(stage, camera, _look(words), **settings)
        shown = min(
            float(picture.hand_mask.mean()) / MIN_HAND_SHARE,
            float(picture.object_mask.mean()) / MIN_OBJECT_SHARE,
            float(picture.paint_mask.mean()) / MIN_PAINT_SHARE,
        )
        if best is None or shown > best[0]:
            best = (shown, picture)
        if shown >= 1.0:
            break
    assert best is not None
    return best[1]


def _revealing_camera(
    stage: render.Stage, clean: render.Stage, views: Mapping[str, Array], words: Mapping[str, Any]
) -> tuple[str, render.Camera]:
    """The first camera from which the spoilt stage differs clearly from its clean twin."""
    best: tuple[int, str, render.Camera] | None = None
    order = [words["view"], *(view for view in VIEWS if view != words["view"])]
    for attempt in range(CAMERA_ATTEMPTS):
        view = order[(attempt // 2) % len(order)]
        camera = render.aim(clean, views[view], words["seed"] + attempt)
        changed = int(
            (render.labels_seen(stage, camera) != render.labels_seen(clean, camera)).sum()
        )
        if best is None or changed > best[0]:
            best = (changed, view, camera)
        if changed >= MIN_DEFECT_PIXELS:
            break
    assert best is not None
    return best[1], best[2]


def _draw_alone(world: World, group: Group, number: int, settings: Mapping[str, int]) -> Scene:
    rng = group.rng(3, number)
    kind = OBJECTS[int(rng.integers(len(OBJECTS)))]
    words = _words(rng) | {"skin_tone": None}
    shape = objects.make_object(kind, None, float(rng.random()))
    stage = _resting(shape, kind, rng)
    camera = render.aim(stage, ALONE_VIEWS[words["view"]], words["seed"])
    slots = words | {"side": None, "grip": None, "object": kind}
    picture = render.draw(stage, camera, _look(words), **settings)
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


ALONE_VIEWS = {"front": (0.0, -1.0, 0.32), "side": (0.85, -0.6, 0.34), "above": (0.1, -0.6, 0.9)}
# Flat things lean back towards the camera, long ones lie, dials face the front.
_LEANING = ("book", "card", "coin", "key", "phone", "plate")
_LYING = ("pen", "brush", "spoon", "stick")
_FACING = ("watch", "ring")


def _resting(shape: objects.ObjectShape, kind: str, rng: np.random.Generator) -> render.Stage:
    turn = rotation_about(2, rng.uniform(-40, 40))
    if kind in _LEANING:
        turn = turn @ rotation_about(0, rng.uniform(50, 70))
    elif kind in _LYING:
        turn = turn @ rotation_about(1, 90.0) @ rotation_about(2, rng.uniform(-20, 20) - 90)
    elif kind in _FACING:
        turn = turn @ rotation_about(2, -90.0) @ rotation_about(1, -rng.uniform(15, 40))
    elif kind in ("die", "box", "bead"):
        turn = rotation_about(2, rng.uniform(20, 70))
    surfaces = tuple(
        objects.Surface(part.vertices @ turn.T, part.faces, part.normals @ turn.T, part.role)
        for part in shape.surfaces
    )
    vertices = np.concatenate([part.vertices for part in surfaces])
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    centre = (low + high) / 2
    radius = 1.12 * float(np.linalg.norm(vertices - centre, axis=1).max())
    return render.Stage((), surfaces, centre, radius, float(low[2]), np.zeros((0, 3)))


def rotation_about(axis: int, degrees: float) -> Array:
    """Rotation matrix (3, 3) about the x, y or z axis (0, 1, 2)."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix = np.eye(3)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix[i, i] = matrix[j, j] = cos
    matrix[i, j], matrix[j, i] = -sin, sin
    return matrix


def _look(words: Mapping[str, Any]) -> render.Look:
    return render.Look(
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
    picture: render.Picture,
) -> Scene:
    index = group.first + number
    told, lies = dict(slots), []
    if group.plans[number] == "lie":
        kinds = captions.lies_for(slots)
        kind = kinds[(index // 4) % len(kinds)]
        told = captions.lie(slots, kind, random.Random(slots["seed"]), world.grips)
        lies = [kind]
    wording = None if group.split == "instance" else int(slots["seed"])
    row = {
        "scene_id": f"{group.split}-{index:06d}",
        "split": group.split,
        "caption": captions.caption(told, wording),
        "true_caption": captions.caption(slots, wording),
        **{name: slots[name] for name in ("object", "colour", "material", "skin_tone")},
        **{name: slots[name] for name in ("view", "light", "background", "seed")},
        **truth,
        "lies": lies,
        "fidelity": not truth["defects"],
        "alignment": not lies,
        "visible_fingers": list(picture.visible_fingers),
        "joints_2d": [float(value) for value in picture.joints_2d.ravel()],
        "camera": picture.camera.as_list(),
        "hand_area": int(picture.hand_mask.sum()),
        "object_area": int(picture.object_mask.sum()),
        "hand_mask": picture.hand_mask,
        "object_mask": picture.object_mask,
        "grasp_id": group.grasp_id,
    }
    return Scene(picture.image, row)
