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
from hoi_assets.grasp_specs import GraspSpec
from hoi_assets.tinyworld.scenes.hands.contact import CONTACT_TOLERANCE_M, HandState, ObjectGeometry
from hoi_assets.tinyworld.scenes.hands.defect_poses import (
    HAND_DEFECTS,
    OBJECT_DEFECTS,
    bend_backwards,
    displace_object,
)
from hoi_assets.tinyworld.scenes.hands.defect_rigs import (
    extra_finger,
    fused_fingers,
    missing_finger,
)
from hoi_assets.tinyworld.scenes.hands.methods import (
    MEAN_KNUCKLE_M,
    knuckle_height,
    press,
    rest,
    wear,
    wrap,
)
from hoi_assets.tinyworld.scenes.hands.model import hand_model
from hoi_assets.tinyworld.scenes.hands.pinch import pinch
from hoi_assets.tinyworld.scenes.hands.rig import (
    JOINT_NAMES,
    HandRig,
    HandShape,
    angles_vector,
)
from hoi_assets.tinyworld.scenes.rigid import Array, rotation_from_vector, transform, unit


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
    states: the hands as they were solved.
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
    states: tuple[HandState, ...] = ()


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
        "wrap": wrap,
        "two_hands": wrap,
        "pinch": pinch,
        "rest": rest,
        "press": press,
        "wear": wear,
    }[spec.method](state)
    if "bent_joint" in defects:
        bend_backwards(state, spoil)
    for defect in OBJECT_DEFECTS:
        if defect in defects:
            displace_object(state, defect, spoil)
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
    pose[:3, :3] = rotation_from_vector(tilt) @ pose[:3, :3]
    scale = knuckle_height(rig) / MEAN_KNUCKLE_M
    pose[:3, 3] = np.array(frame.centre) * scale + rng.normal(size=3) * np.array(
        [0.003, 0.003, 0.0]
    )
    return pose


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
        world = hand_to_world(states[0])
        if state is not states[0]:
            # Both hands hold one object: the second is seen from the object's frame.
            mirror = np.diag([-1.0, 1.0, 1.0, 1.0])
            frame = mirror @ object_pose @ mirror
            world = frame @ np.linalg.inv(state.object_pose)
        posed = state.rig.pose(state.angles)
        sign = -1.0 if side == "left" else 1.0
        flip = np.diag([sign, 1.0, 1.0])
        vertices = transform(world, posed.vertices) * [sign, 1.0, 1.0]
        joints = transform(world, posed.joints_3d) * [sign, 1.0, 1.0]
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
        states=tuple(states),
    )


def hand_to_world(state: HandState) -> Array:
    """Hand frame to world: the category's up becomes +z, its front faces the camera at -y."""
    spec = state.spec
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
    mesh = transform(object_pose, np.asarray(obj.mesh.vertices))
    reach = spec.reach if len(hands) == 1 else 1.0
    near = mesh[np.linalg.norm(mesh - object_pose[:3, 3], axis=1) < reach]
    if not len(near):
        near = object_pose[None, :3, 3]
    cloud = np.concatenate([*points, near])
    centre = 0.5 * (cloud.min(axis=0) + cloud.max(axis=0))
    radius = float(np.linalg.norm(cloud - centre, axis=1).max()) + 0.012
    held = 0.5 * (near.min(axis=0) + near.max(axis=0))
    return centre + spec.focus * (held - centre), radius / spec.zoom
