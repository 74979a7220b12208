"""Defects that a solved hand takes on afterwards: a joint bent backwards, the object displaced."""

from __future__ import annotations

import numpy as np

from hoi_assets.tinyworld.scenes.hands.contact import HandState
from hoi_assets.tinyworld.scenes.rigid import unit
from hoi_assets.tinyworld.scenes.vocabulary import FINGERS

HAND_DEFECTS = ("missing_finger", "extra_finger", "fused_fingers", "bent_joint")
OBJECT_DEFECTS = ("floating", "penetrating")


def bend_backwards(state: HandState, rng: np.random.Generator) -> None:
    """Bend one joint of one finger 50 to 80 degrees against its sense."""
    choices = [k for k in (2, 3, 4) if FINGERS[k - 1] not in state.rig.absent]
    finger = int(rng.choice(choices))
    joint = int(rng.integers(1, 3))
    name = f"finger{finger}-{joint}"
    _, abduction, twist = state.angles[name]
    state.angles[name] = (-float(np.radians(rng.uniform(50.0, 80.0))), abduction, twist)


def displace_object(state: HandState, defect: str, rng: np.random.Generator) -> None:
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
