"""A hand meeting an object: distances, and closing fingers until their skin touches.

What belongs here moves fingers or the object of one right hand, in the hand frame, by signed
distance. Which fingers, where the object starts and what comes of it is decided in `grasps`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hoi_assets.grasp_specs import Closing, GraspSpec
from hoi_assets.tinyworld.scenes.hands.rig import HandRig
from hoi_assets.tinyworld.scenes.rigid import Array, unit
from hoi_assets.tinyworld.scenes.vocabulary import FINGERS

CONTACT_TOLERANCE_M = 0.003
# Skin gives way a little where it presses.
PRESS_DEPTH_M = 0.0008
_CLOSING_STEPS = 45
# Turns (flexion, abduction, next joint's flexion; radians) tried in order, the smallest first.
_FREE_MOVES = sorted(
    (
        (float(np.radians(f)), float(np.radians(a)), 0.4 * float(np.radians(f)))
        for f in range(-40, 41, 8)
        for a in range(-32, 33, 16)
    ),
    key=lambda transform: (round(sum(x * x for x in transform), 6), transform),
)


class ObjectGeometry(Protocol):
    """An object made for one category, in a frame whose origin is the grip point.

    half_extents (m) are those of the gripped part. Axes: z along a gripped bar or out of a touched
    surface or through a hole; x across a thin part, from thumb to fingers.
    """

    @property
    def kind(self) -> str: ...

    @property
    def half_extents(self) -> tuple[float, float, float]: ...

    @property
    def mesh(self) -> Any:
        """trimesh.Trimesh in the object frame, metres."""

    def signed_distance(self, points: Array) -> Array:
        """(N, 3) object frame -> (N,) metres, negative inside."""


@dataclass
class HandState:
    """A right hand being solved, in the hand frame.

    mirror (3,): signs that turn the object's frame into that of the mirrored object a left hand's
    twin holds. angles (radians) and object_pose (4, 4) are what solving changes.
    pushed_m: how far a penetrating object was pushed in on purpose.
    """

    rig: HandRig
    spec: GraspSpec
    obj: ObjectGeometry
    mirror: Array
    angles: dict[str, tuple[float, float, float]]
    object_pose: Array
    pushed_m: float = 0.0

    def __post_init__(self) -> None:
        # Fingers are counted from 1, as the bones are.
        self.rows = {k: np.flatnonzero(self.rig.finger == k - 1) for k in (1, 2, 3, 4, 5, 6)}
        palm = self.rig.finger < 0
        hand = self.rig.bone != self.rig.index("root")
        self.palm_rows = np.flatnonzero(palm & hand)

    def distance(self, points: Array) -> Array:
        """Signed distance of hand-frame points to the object."""
        return self.obj.signed_distance(self.local(points))

    def local(self, points: Array) -> Array:
        """Hand-frame points in the object's frame."""
        return ((points - self.object_pose[:3, 3]) @ self.object_pose[:3, :3]) * self.mirror

    def skin(self, rows: NDArray[Any]) -> Array:
        """Vertices `rows` at the present angles, hand frame."""
        return self.rig.skin(self.rig.bone_poses(self.angles), rows)


class NearDistance:
    """Signed distance of points that move a little from call to call.

    A point that was d away and has moved by m is still at least d - m away, so only points that may
    have come within `margin` are asked for again; for the others that bound is returned.
    """

    def __init__(self, state: HandState, margin: float = 0.002) -> None:
        self.state = state
        self.margin = margin
        self.at: Array | None = None
        self.value = np.zeros(0)

    def __call__(self, points: Array) -> Array:
        local = self.state.local(points)
        if self.at is None:
            self.at, self.value = local.copy(), self.state.obj.signed_distance(local)
            return self.value
        bound = self.value - np.linalg.norm(local - self.at, axis=1)
        asked = np.flatnonzero(bound < self.margin)
        if len(asked):
            found = self.state.obj.signed_distance(local[asked])
            self.at[asked], self.value[asked], bound[asked] = local[asked], found, found
        return bound


def approach(state: HandState) -> None:
    """Slide the object along the approach direction until it touches the named parts."""
    direction = unit(np.array(state.spec.object.approach))
    points = state.skin(_touching_rows(state))
    start = state.object_pose[:3, 3] - direction * 0.25

    near = NearDistance(state, margin=0.005)

    def gap(travel: float) -> float:
        state.object_pose[:3, 3] = start + direction * travel
        return float(near(points).min()) + PRESS_DEPTH_M

    # Sphere tracing: a signed distance never overstates the free way.
    travel = 0.0
    for _ in range(60):
        free = gap(travel)
        if free < 1e-4 or travel > 0.6:
            break
        travel += max(free, 1e-4)
    # A distance that overstates the way (a bound, not exact) is made good here.
    while gap(travel) < -2e-4 and travel > 0.0:
        travel -= 2e-4


def _touching_rows(state: HandState) -> NDArray[Any]:
    parts = state.spec.object.touches
    rows = []
    for part in parts:
        if part == "palm":
            rows.append(state.palm_rows)
        elif "-" in part:
            rows.append(np.flatnonzero(state.rig.bone == state.rig.index(part)))
        else:
            rows.append(state.rows[int(part.removeprefix("finger"))])
    return np.concatenate(rows)


def closing_of(state: HandState, finger: int) -> Closing | None:
    """How the category closes a finger; a sixth finger closes as the ring finger does."""
    key = f"finger{4 if finger == 6 else finger}"
    return state.spec.closing.get(key)


def close(state: HandState, finger: int) -> None:
    """Close a finger as its category says."""
    closing = closing_of(state, finger)
    if closing is None:
        return
    if closing.base_first:
        base, *rest = closing.speeds
        _close_joints(state, finger, closing.model_copy(update={"speeds": (base, 0.0, 0.0)}))
        closing = closing.model_copy(update={"speeds": (0.0, *rest)})
    _close_joints(state, finger, closing)


def _close_joints(state: HandState, finger: int, closing: Closing) -> None:
    """Turn a finger's joints together; a joint stops once a bone beyond or at it touches."""
    rows = state.rows[finger]
    if len(rows) == 0 or f"finger{finger}-1" not in state.rig.bones:
        return
    if FINGERS[min(finger, 5) - 1] in state.rig.absent and finger <= 5:
        return
    if state.rig.fused and finger == state.rig.fused[1]:
        first = state.rig.fused[0]
        for joint in (1, 2, 3):
            flexion = state.angles[f"finger{first}-{joint}"][0]
            _, abduction, twist = state.angles[f"finger{finger}-{joint}"]
            state.angles[f"finger{finger}-{joint}"] = (flexion, abduction, twist)
        return
    if state.rig.fused and finger == state.rig.fused[0]:
        rows = np.concatenate([rows, state.rows[state.rig.fused[1]]])
    names = [f"finger{finger}-{joint}" for joint in (1, 2, 3)]
    level = np.array([int(state.rig.bones[b][-1]) for b in state.rig.bone[rows]])
    base = [state.angles[name] for name in names]
    turned = np.zeros(3)
    speeds = np.radians(np.array(closing.speeds)) * 2.2
    limits = np.maximum(np.radians(np.array(closing.limits)) - [b[0] for b in base], 0.0)
    free = np.ones(3, dtype=bool)
    near = NearDistance(state)

    def gaps(amount: Array) -> Array:
        for i, name in enumerate(names):
            state.angles[name] = (base[i][0] + float(amount[i]), base[i][1], base[i][2])
            if state.rig.fused and finger == state.rig.fused[0]:
                other = f"finger{state.rig.fused[1]}-{i + 1}"
                _, abduction, twist = state.angles[other]
                state.angles[other] = (base[i][0] + float(amount[i]), abduction, twist)
        points = state.skin(rows)
        distance = np.minimum(near(points), _self_distance(state, finger, points))
        return np.array([distance[level == j].min(initial=1.0) for j in (1, 2, 3)]) + PRESS_DEPTH_M

    reached = gaps(turned)
    if reached.min() < 0.0:
        _free_finger(state, finger)
        base = [state.angles[name] for name in names]
        reached = gaps(turned)
        if reached.min() < -CONTACT_TOLERANCE_M:
            return
    for _ in range(_CLOSING_STEPS):
        for j in (3, 2, 1):
            if reached[j - 1] <= 2e-4:
                # What turns at or before a touching bone would drive it into the object.
                free[:j] = False
                break
        free &= (turned < limits) & (speeds > 0.0)
        if not free.any():
            break
        step = np.where(free, speeds, 0.0)
        trial = np.minimum(turned + step, np.maximum(limits, turned))
        after = gaps(trial)
        if after.min() < 0.0:
            low, high = 0.0, 1.0
            for _ in range(7):
                half = 0.5 * (low + high)
                if gaps(turned + half * (trial - turned)).min() < 0.0:
                    high = half
                else:
                    low = half
            trial = turned + low * (trial - turned)
            after = gaps(trial)
            worst = int(np.argmin(after))
            after[worst] = 0.0
        turned, reached = trial, after
    gaps(turned)


def _free_finger(state: HandState, finger: int) -> None:
    """Move a finger that starts inside something to the nearest free pose, or the freest."""
    first, second = f"finger{finger}-1", f"finger{finger}-2"
    rows = state.rows[finger]
    start, bend = state.angles[first], state.angles[second]
    best, best_gap = (start, bend), -1.0
    near = NearDistance(state, margin=0.0)
    for flexion, abduction, more in _FREE_MOVES:
        state.angles[first] = (start[0] + flexion, start[1] + abduction, start[2])
        state.angles[second] = (bend[0] + more, bend[1], bend[2])
        points = state.skin(rows)
        gap = float(np.minimum(near(points), _self_distance(state, finger, points)).min())
        if gap > best_gap:
            best, best_gap = (state.angles[first], state.angles[second]), gap
        if gap >= -PRESS_DEPTH_M:
            break
    state.angles[first], state.angles[second] = best


def _self_distance(state: HandState, finger: int, points: Array) -> Array:
    """Distance of a thumb's skin to the other fingers (capsules); far for other fingers."""
    if finger != 1:
        return np.full(len(points), 1.0)
    poses = state.rig.bone_poses(state.angles)
    distance = np.full(len(points), 1.0)
    for other in (2, 3, 4, 5):
        if FINGERS[other - 1] in state.rig.absent:
            continue
        ends = [poses[state.rig.index(f"finger{other}-{j}")][:3, 3] for j in (1, 2, 3)]
        ends.append(state.rig.tip(poses, other))
        for j in (1, 2, 3):
            radius = state.rig.radius[state.rig.index(f"finger{other}-{j}")] * 0.9
            distance = np.minimum(distance, _capsule(points, ends[j - 1], ends[j], radius))
    return distance


def _capsule(points: Array, a: Array, b: Array, radius: float) -> Array:
    axis = b - a
    t = np.clip((points - a) @ axis / (axis @ axis), 0.0, 1.0)
    away: Array = np.linalg.norm(points - a - t[:, None] * axis, axis=1) - radius
    return away


def settle(state: HandState, finger: int) -> None:
    """Open or close a finger along its closing direction until its skin just touches."""
    closing = closing_of(state, finger)
    if closing is None or FINGERS[finger - 1] in state.rig.absent:
        return
    names = [f"finger{finger}-{joint}" for joint in (1, 2, 3)]
    base = [state.angles[name] for name in names]
    speeds = np.radians(np.array(closing.speeds))
    rows = state.rows[finger]
    if state.spec.rests_on in names:
        # What the object leans on stays; the finger's other bones close.
        rows = rows[state.rig.bone[rows] != state.rig.index(names[0])]

    near = NearDistance(state)

    def gap(amount: float) -> float:
        for i, name in enumerate(names):
            state.angles[name] = (base[i][0] + amount * float(speeds[i]), base[i][1], base[i][2])
        return float(near(state.skin(rows)).min()) + PRESS_DEPTH_M

    now = gap(0.0)
    way = 1.0 if now > 0.0 else -1.0
    previous = 0.0
    for step in range(1, 41):
        amount = way * step
        reached = gap(amount)
        if (reached <= 0.0) == (now > 0.0):
            low, high = previous, amount
            for _ in range(8):
                half = 0.5 * (low + high)
                if (gap(half) > 0.0) == (now > 0.0):
                    low = half
                else:
                    high = half
            gap(low if now > 0.0 else high)
            return
        previous = amount
    gap(0.0)


def avoid(state: HandState, finger: int) -> None:
    """Bend a finger that has no part in the grasp out of the object's way, if it is in it."""
    rows = state.rows[finger]
    if len(rows) == 0:
        return
    names = [f"finger{finger}-{joint}" for joint in (1, 2, 3)]
    base = [state.angles[name] for name in names]
    best, best_gap = base, float(state.distance(state.skin(rows)).min())
    if best_gap > -0.0005:
        return
    for step in range(1, 13):
        for way in (1.0, -1.0):
            turn = np.radians(4.0 * step * way)
            for name, given in zip(names, base, strict=True):
                state.angles[name] = (given[0] + turn, given[1], given[2])
            gap = float(state.distance(state.skin(rows)).min())
            if gap > best_gap:
                best, best_gap = [state.angles[name] for name in names], gap
            if gap > 0.0:
                return
    for name, given in zip(names, best, strict=True):
        state.angles[name] = given
