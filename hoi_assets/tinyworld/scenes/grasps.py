"""Solving a grasp: where the object goes, and how far each joint closes until the hand touches it.

Nothing is posed by eye: a category's `GraspSpec` says which parts of the hand meet the object, and
the signed distance of the hand's skin to the object decides the angles. A left hand is solved as a
right hand on the mirrored object; the result is then mirrored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hoi_assets.errors import HoiError
from hoi_assets.grammar.vocabulary import FINGERS
from hoi_assets.grasp_specs import GraspSpec
from hoi_assets.tinyworld.scenes.contact import (
    CONTACT_TOLERANCE_M,
    PRESS_DEPTH_M,
    HandState,
    ObjectGeometry,
    approach,
    close,
    closing_of,
    move,
    rotate_by,
    unit,
)
from hoi_assets.tinyworld.scenes.hand import (
    JOINT_NAMES,
    Array,
    HandRig,
    HandShape,
    angles_vector,
    extra_finger,
    fused_fingers,
    hand_model,
    missing_finger,
)
from hoi_assets.tinyworld.scenes.pinch import pinch

HAND_DEFECTS = ("missing_finger", "extra_finger", "fused_fingers", "bent_joint")
OBJECT_DEFECTS = ("floating", "penetrating")
_MEAN_KNUCKLE_M = 0.113


@dataclass(frozen=True)
class PlacedHand:
    """A hand in the world: vertices (V, 3), faces (F, 3) wound outwards, joints_3d (21, 3),
    finger (V,) with -1 palm and forearm, 0..4 thumb to little finger, 5 a sixth finger."""

    side: str
    vertices: Array
    faces: NDArray[np.int64]
    joints_3d: Array
    finger: NDArray[np.int8]


@dataclass(frozen=True)
class Grasp:
    """A solved grasp in world coordinates: metres, +z up, origin at the grip.

    contact_mm: largest distance of a touching part to the object; penetration_mm: deepest point of
    the hand inside the object, or how far the object was pushed in. joint_angles: 60 float32 a
    hand. views: camera directions by name.
    centre, radius: the sphere worth framing. support_z: height of a table top, or None.
    missing_contacts: parts the category expects to touch, and which do not.
    """

    category: str
    side: str
    hands: tuple[PlacedHand, ...]
    object_pose: Array
    contacts: tuple[str, ...]
    contact_mm: float
    penetration_mm: float
    joint_angles: NDArray[np.float32]
    joints_3d: Array
    joint_names: tuple[str, ...]
    views: dict[str, Array]
    centre: Array
    radius: float
    up: Array
    support_z: float | None
    defects: tuple[str, ...]
    absent_fingers: tuple[str, ...]
    missing_contacts: tuple[str, ...]


@dataclass(frozen=True)
class WornSection:
    """Inner half axes (m) of a band that fits: across the hand, and from palm to back."""

    half_x: float
    half_y: float


def solve_grasp(
    category: str,
    spec: GraspSpec,
    obj: ObjectGeometry,
    *,
    shape_seed: int,
    jitter_seed: int,
    side: str = "right",
    defects: Sequence[str] = (),
) -> Grasp:
    """Solve one grasp; equal arguments give equal results.

    side is `right` or `left` and is ignored for two hands. defects: any of `HAND_DEFECTS` and
    `OBJECT_DEFECTS`. HoiError for an unknown defect or an object the category cannot hold.
    """
    unknown = set(defects) - {*HAND_DEFECTS, *OBJECT_DEFECTS}
    if unknown:
        raise HoiError(
            f"grasp: unknown defect {sorted(unknown)[0]!r}",
            f"use {', '.join((*HAND_DEFECTS, *OBJECT_DEFECTS))}",
        )
    low, high = spec.object.size_range
    size = 2.0 * obj.half_extents[0]
    if not low <= size <= high:
        raise HoiError(
            f"grasp: {category} holds {low * 1000:.0f} to {high * 1000:.0f} mm, "
            f"{obj.kind} is {size * 1000:.1f} mm",
            "make the object another size",
        )
    shape = HandShape.from_seed(shape_seed)
    two = spec.hands == 2
    sides = ("right", "left") if two else (side,)
    states = []
    for number, name in enumerate(sides):
        rng = np.random.default_rng([jitter_seed, shape_seed, number])
        own = [d for d in defects if d in OBJECT_DEFECTS or number == 0]
        mirror = np.array([-1.0 if name == "left" else 1.0, 1.0, 1.0])
        # Defects draw from their own stream: a spoilt grasp is its clean twin but for the defect.
        spoil = np.random.default_rng([jitter_seed, shape_seed, number, 1])
        states.append(_solve_one(spec, obj, shape, mirror, own, rng, spoil))
    return _assemble(category, spec, states, sides, tuple(defects))


def worn_section(kind: str, shape_seed: int) -> WornSection:
    """Inner size of a ring or watch that fits the hand of `shape_seed`."""
    rig = hand_model().rig(HandShape.from_seed(shape_seed))
    _, half_x, half_y = _worn_place(rig, kind, rig.bone_poses({}))
    return WornSection(half_x, half_y)


def _solve_one(
    spec: GraspSpec,
    obj: ObjectGeometry,
    shape: HandShape,
    mirror: Array,
    defects: Sequence[str],
    rng: np.random.Generator,
    spoil: np.random.Generator,
) -> HandState:
    rig = hand_model().rig(shape)
    jitter = rng.normal(size=(len(rig.bones), 3))
    for defect in defects:
        if defect == "missing_finger":
            rig = missing_finger(rig, int(spoil.integers(2, 6)))
        elif defect == "extra_finger":
            between = bool(spoil.random() < 0.6)
            rig = extra_finger(rig, int(spoil.integers(2, 5)) if between else 5, between)
        elif defect == "fused_fingers":
            rig = fused_fingers(rig, int(spoil.integers(2, 5)))
    angles = {}
    for i, bone in enumerate(rig.bones):
        if not bone.startswith("finger"):
            continue
        source = bone.replace("finger6", "finger4")
        preset = np.array(spec.pre_pose.get(source, (0.0, 0.0, 0.0)))
        noise = jitter[min(i, len(jitter) - 1)] * np.array(
            [2.5, 1.5 if bone.endswith("-1") else 0.0, 0.0]
        )
        flexion, abduction, twist = np.radians(preset + noise)
        angles[bone] = (float(flexion), float(abduction), float(twist))
    if rig.fused:
        first, second = rig.fused
        for joint in (1, 2, 3):
            angles[f"finger{second}-{joint}"] = angles[f"finger{first}-{joint}"]
    state = HandState(rig, spec, obj, mirror, angles, _object_start(spec, obj, rig, rng))
    {
        "wrap": _wrap,
        "two_hands": _wrap,
        "pinch": pinch,
        "rest": _rest,
        "press": _press,
        "wear": _wear,
    }[spec.method](state)
    if "bent_joint" in defects:
        _bend_backwards(state, spoil)
    for defect in OBJECT_DEFECTS:
        if defect in defects:
            _displace_object(state, defect, spoil)
    return state


def _object_start(
    spec: GraspSpec, obj: ObjectGeometry, rig: HandRig, rng: np.random.Generator
) -> Array:
    frame = spec.object
    long = unit(np.array(frame.long))
    thin = np.array(frame.thin)
    thin = unit(thin - long * (thin @ long))
    pose = np.eye(4)
    pose[:3, :3] = np.column_stack([thin, np.cross(long, thin), long])
    tilt = np.radians(rng.normal(size=3) * 3.0)
    pose[:3, :3] = rotate_by(tilt) @ pose[:3, :3]
    scale = knuckle_height(rig) / _MEAN_KNUCKLE_M
    pose[:3, 3] = np.array(frame.centre) * scale + rng.normal(size=3) * np.array(
        [0.003, 0.003, 0.0]
    )
    return pose


def knuckle_height(rig: HandRig) -> float:
    """Distance (m) from the wrist to the middle finger's knuckle: the hand's size."""
    poses = rig.bone_poses({})
    return float(np.linalg.norm(poses[rig.index("finger3-1")][:3, 3]))


def _wrap(state: HandState) -> None:
    approach(state)
    for _ in range(3):
        for finger in (2, 3, 4, 5, 6):
            close(state, finger)
        close(state, 1)
        # A moving thumb takes skin of the palm with it: make room and close again.
        if float(state.distance(state.skin(state.palm_rows)).min()) > -2.0 * PRESS_DEPTH_M:
            break
        approach(state)


def _rest(state: HandState) -> None:
    approach(state)
    for finger in (1, 2, 3, 4, 5, 6):
        if closing_of(state, finger):
            close(state, finger)


def _press(state: HandState) -> None:
    """Put the surface under the index fingertip; the finger stands as flat as the fist allows."""
    rig = state.rig
    if "index" in rig.absent:
        _press_with(state, 3)
        return
    _press_with(state, 2)
    close(state, 1)


def _press_with(state: HandState, finger: int) -> None:
    rig = state.rig
    poses = rig.bone_poses(state.angles)
    last = poses[rig.index(f"finger{finger}-3")]
    along, palmar = last[:3, 1], last[:3, 2]
    points = state.skin(np.flatnonzero(rig.bone != rig.index("root")))
    height = 2.0 * state.obj.half_extents[2]
    tip = state.skin(np.flatnonzero(rig.finger == finger - 1))
    for steep in np.radians(np.arange(38.0, 86.0, 4.0)):
        # Outward normal of the surface: against the finger's direction, tilted to face its pad.
        normal = unit(-np.sin(steep) * along - np.cos(steep) * palmar)
        thin = np.array([1.0, 0.0, 0.0])
        thin = unit(thin - normal * (thin @ normal))
        touch = tip[np.argmin(tip @ normal)]
        state.object_pose[:3, :3] = np.column_stack([thin, np.cross(normal, thin), normal])
        state.object_pose[:3, 3] = touch + normal * PRESS_DEPTH_M
        over_table = float((points @ normal).min() - touch @ normal) + height
        if over_table > 0.004 and float(state.distance(points).min()) > -2.0 * PRESS_DEPTH_M:
            break


def _wear(state: HandState) -> None:
    pose, _, _ = _worn_place(state.rig, state.obj.kind, state.rig.bone_poses(state.angles))
    state.object_pose = pose


def _worn_place(rig: HandRig, kind: str, poses: Array) -> tuple[Array, float, float]:
    """Pose of a band's hole and its inner half axes: a ring on the ring finger (the middle one when
    it is missing), a watch on the wrist."""
    skin = rig.skin(poses)
    if kind == "watch":
        frame = np.eye(4)
        frame[:3, 3] = np.array([0.0, -0.030 * knuckle_height(rig) / _MEAN_KNUCKLE_M, 0.0])
        rows = rig.finger < 0
        width = 0.016
    else:
        finger = 4 if "ring" not in rig.absent else 3
        frame = poses[rig.index(f"finger{finger}-1")].copy()
        length = np.linalg.norm(poses[rig.index(f"finger{finger}-2")][:3, 3] - frame[:3, 3])
        frame[:3, 3] = frame[:3, 3] + frame[:3, 1] * length * 0.55
        rows = rig.finger == finger - 1
        width = 0.004
    local = (skin[rows] - frame[:3, 3]) @ frame[:3, :3]
    section = local[np.abs(local[:, 1]) < width]
    for widen in (1.5, 2.5, 4.0):
        if len(section) >= 8:
            break
        section = local[np.abs(local[:, 1]) < width * widen]
    low, high = section.min(axis=0), section.max(axis=0)
    middle = 0.5 * (low + high)
    pose = np.eye(4)
    # Object axes: x across the hand, y towards its back, z along the bone.
    pose[:3, :3] = np.column_stack([frame[:3, 0], -frame[:3, 2], frame[:3, 1]])
    pose[:3, 3] = frame[:3, 3] + frame[:3, 0] * middle[0] + frame[:3, 2] * middle[2]
    return pose, float(high[0] - low[0]) / 2, float(high[2] - low[2]) / 2


def _bend_backwards(state: HandState, rng: np.random.Generator) -> None:
    """Bend one joint of one finger 50 to 80 degrees against its sense."""
    choices = [k for k in (2, 3, 4) if FINGERS[k - 1] not in state.rig.absent]
    finger = int(rng.choice(choices))
    joint = int(rng.integers(1, 3))
    name = f"finger{finger}-{joint}"
    _, abduction, twist = state.angles[name]
    state.angles[name] = (-float(np.radians(rng.uniform(50.0, 80.0))), abduction, twist)


def _displace_object(state: HandState, defect: str, rng: np.random.Generator) -> None:
    """Move the object 20 to 50 mm clear of the hand, or push it into it: 15 to 30 mm, for a pinch
    9 to 18 mm, which is as thick as a finger."""
    rows = np.flatnonzero(state.rig.bone != state.rig.index("root"))
    points = state.skin(rows)
    start = state.object_pose[:3, 3].copy()
    away = -unit(np.array(state.spec.object.approach))
    if state.spec.method == "press":
        away = -state.object_pose[:3, 2]
    elif state.spec.method in ("pinch", "wear"):
        away = np.array([0.0, 0.9, 0.45])
    deepest = 0.030
    if defect == "penetrating" and state.spec.method == "pinch":
        # Through the fingers that press, not deeper between them, which could be meant.
        away, deepest = -state.object_pose[:3, 0], 0.018
    away = unit(away)
    if defect == "floating":
        clear = float(rng.uniform(0.020, 0.050))
        for step in range(1, 60):
            state.object_pose[:3, 3] = start + away * 0.005 * step
            if float(state.distance(points).min()) >= clear:
                return
        return
    depth = float(rng.uniform(0.5 * deepest, deepest))
    for step in range(1, 30):
        state.object_pose[:3, 3] = start - away * 0.002 * step
        if 0.002 * step >= depth:
            break
    state.pushed_m = depth


def _assemble(
    category: str,
    spec: GraspSpec,
    states: list[HandState],
    sides: tuple[str, ...],
    defects: tuple[str, ...],
) -> Grasp:
    hands = []
    contacts: list[str] = []
    missing: list[str] = []
    far = depth = 0.0
    object_pose = np.eye(4)
    for state, side in zip(states, sides, strict=True):
        world = _to_world(spec, states[0])
        if state is not states[0]:
            # Both hands hold one object: the second is seen from the object's frame.
            mirror = np.diag([-1.0, 1.0, 1.0, 1.0])
            frame = mirror @ object_pose @ mirror
            world = frame @ np.linalg.inv(state.object_pose)
        posed = state.rig.pose(state.angles)
        sign = -1.0 if side == "left" else 1.0
        flip = np.diag([sign, 1.0, 1.0])
        vertices = move(world, posed.vertices) * [sign, 1.0, 1.0]
        joints = move(world, posed.joints_3d) * [sign, 1.0, 1.0]
        faces = posed.faces if sign > 0 else posed.faces[:, ::-1]
        pose = np.eye(4)
        placed = world @ state.object_pose
        pose[:3, :3] = flip @ placed[:3, :3] @ flip
        pose[:3, 3] = flip @ placed[:3, 3]
        object_pose = pose
        hands.append(PlacedHand(side, vertices, np.ascontiguousarray(faces), joints, posed.finger))
        prefix = f"{side}:" if len(sides) > 1 else ""
        named, distance, deepest = _contacts(state, posed.vertices)
        contacts += [prefix + name for name in named]
        missing += [
            prefix + part for part in spec.contacts_of(state.obj.kind) if not _touches(part, named)
        ]
        far, depth = max(far, distance), max(depth, deepest)
    names = tuple(f"{h.side}:{j}" if len(hands) > 1 else j for h in hands for j in JOINT_NAMES)
    centre, radius = _framing(spec, hands, states[0].obj, object_pose)
    flip_view = [-1.0 if sides == ("left",) else 1.0, 1.0, 1.0]
    views = {str(name): unit(np.array(view)) * flip_view for name, view in spec.views.items()}
    support = None
    if spec.method == "press":
        support = float(object_pose[2, 3]) - 2.0 * states[0].obj.half_extents[2]
    return Grasp(
        category=category,
        side="both" if len(sides) > 1 else sides[0],
        hands=tuple(hands),
        object_pose=object_pose,
        contacts=tuple(contacts),
        contact_mm=round(far * 1000.0, 3),
        penetration_mm=round(depth * 1000.0, 3),
        joint_angles=np.concatenate([angles_vector(s.angles) for s in states]),
        joints_3d=np.concatenate([h.joints_3d for h in hands]),
        joint_names=names,
        views=views,
        centre=centre,
        radius=radius,
        up=np.array([0.0, 0.0, 1.0]),
        support_z=support,
        defects=defects,
        absent_fingers=tuple(name for s in states for name in s.rig.absent),
        missing_contacts=tuple(missing),
    )


def _to_world(spec: GraspSpec, state: HandState) -> Array:
    """Hand frame to world: the category's up becomes +z, its front faces the camera at -y."""
    up = state.object_pose[:3, 2] if spec.method == "press" else unit(np.array(spec.up))
    front = np.array(spec.front)
    front = unit(front - up * (front @ up))
    world = np.eye(4)
    # Rows of the rotation: world x, y, z seen in the hand frame.
    rotation = np.stack([np.cross(-front, up), -front, up])
    world[:3, :3] = rotation
    world[:3, 3] = -rotation @ state.object_pose[:3, 3]
    return world


def _contacts(state: HandState, vertices: Array) -> tuple[list[str], float, float]:
    """Parts within 3 mm of the object, the largest such gap and the deepest penetration (m)."""
    distance = state.distance(vertices)
    near: dict[str, float] = {}
    for bone in np.unique(state.rig.bone):
        name = state.rig.bones[bone]
        label = name if name.startswith("finger") else "wrist" if name == "root" else "palm"
        closest = float(distance[state.rig.bone == bone].min())
        near[label] = min(near.get(label, 1.0), closest)
    touching = {name: gap for name, gap in near.items() if gap <= CONTACT_TOLERANCE_M}
    deepest = max(0.0, state.pushed_m, -float(distance.min()))
    return sorted(touching), max((max(g, 0.0) for g in touching.values()), default=0.0), deepest


def _touches(part: str, contacts: Sequence[str]) -> bool:
    """Whether a bone, or any bone of a finger, is among the contacts."""
    return any(name == part or name.startswith(f"{part}-") for name in contacts)


def _framing(
    spec: GraspSpec, hands: list[PlacedHand], obj: ObjectGeometry, object_pose: Array
) -> tuple[Array, float]:
    """A sphere round the hands and the near part of the object."""
    points = [h.joints_3d for h in hands]
    mesh = move(object_pose, np.asarray(obj.mesh.vertices))
    reach = spec.reach if len(hands) == 1 else 1.0
    near = mesh[np.linalg.norm(mesh - object_pose[:3, 3], axis=1) < reach]
    if not len(near):
        near = object_pose[None, :3, 3]
    cloud = np.concatenate([*points, near])
    centre = 0.5 * (cloud.min(axis=0) + cloud.max(axis=0))
    radius = float(np.linalg.norm(cloud - centre, axis=1).max()) + 0.012
    held = 0.5 * (near.min(axis=0) + near.max(axis=0))
    return centre + spec.focus * (held - centre), radius / spec.zoom
