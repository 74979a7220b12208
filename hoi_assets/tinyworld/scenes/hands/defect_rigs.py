"""Rigs of spoilt hands: a finger missing, a sixth one, two fused, one of the wrong length."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hoi_assets.tinyworld.scenes.hands.rig import HandRig, rotation
from hoi_assets.tinyworld.scenes.rigid import Array, transform
from hoi_assets.tinyworld.scenes.vocabulary import FINGERS

SIXTH = 5
SIXTH_BONES = ("finger6-1", "finger6-2", "finger6-3")


def missing_finger(rig: HandRig, finger: int) -> HandRig:
    """Take finger 1 (thumb) .. 5 (little) off; what is left ends in a rounded stump."""
    first = rig.index(f"finger{finger}-1")
    chain = [rig.index(f"finger{finger}-{joint}") for joint in (1, 2, 3)]
    lengths = [float(np.linalg.norm(rig.local[b][:3, 3])) for b in chain[1:]]
    starts = dict(zip(chain, (0.0, lengths[0], lengths[0] + lengths[1]), strict=True))
    own = np.isin(rig.bone, chain)
    along = np.zeros(len(rig.bone))
    across = np.zeros((len(rig.bone), 2))
    for b in chain:
        rows = rig.bone == b
        points = transform(rig.inverse_rest[b], rig.rest_vertices[rows])
        along[rows] = points[:, 1] + starts[b]
        across[rows] = points[:, [0, 2]]
    total = float(along[own].max())
    # A thumb's first bone lies in the palm.
    cut = (0.9 if finger == 1 else 0.25) * lengths[0]
    rows = own & (along > cut)
    t = (along[rows] - cut) / (total - cut)
    # Most of the finger's skin is folded into a dome as high as the finger is thick.
    angle = 0.5 * np.pi * np.clip(t / 0.55, 0.0, 1.0)
    dome = 0.8 * rig.radius[first]
    squeeze = np.cos(angle)[:, None]
    points = np.column_stack(
        [
            across[rows, 0] * squeeze[:, 0],
            cut + dome * np.sin(angle),
            across[rows, 1] * squeeze[:, 0],
        ]
    )
    vertices = rig.rest_vertices.copy()
    vertices[rows] = transform(np.linalg.inv(rig.inverse_rest[first]), points)
    weights = rig.weights.copy()
    weights[rows] = 0.0
    weights[rows, first] = 1.0
    tips = dict(rig.tips)
    return replace(
        rig, rest_vertices=vertices, weights=weights, tips=tips,
        absent=(*rig.absent, FINGERS[finger - 1]),
    )  # fmt: skip


def extra_finger(rig: HandRig, beside: int, between: bool) -> HandRig:
    """Grow a sixth finger, a copy of finger `beside` (2..5), on that finger's little-finger side.

    With `between` the neighbours are spread to make room; `beside` must then be at most 4.
    """
    chain = _chain(rig, beside)
    local = rig.local.copy()
    sixth = local[chain].copy()
    width = 2.0 * rig.radius[chain[0]]
    if between:
        step = 0.55 * width
        for finger in range(2, 6):
            first = rig.index(f"finger{finger}-1")
            way = 1.0 if finger <= beside else -1.0
            near = 1.0 if finger in (beside, beside + 1) else 1.35
            local[first] = _shift_in_parent(local[first], way * step * 0.75 * near)
            local[first] = local[first] @ rotation(0.0, way * np.radians(5.0 * near))
        gap = rig.index(f"finger{beside + 1}-1")
        middle = 0.5 * (_in_wrist(rig, chain[0])[:3, 3] + _in_wrist(rig, gap)[:3, 3])
        parent = _in_wrist(rig, rig.parents[chain[0]])
        inverse: Array = np.linalg.inv(parent).astype(np.float64)
        sixth[0][:3, 3] = transform(inverse, middle[None])[0]
    else:
        sixth[0] = _shift_in_parent(sixth[0], -0.75 * width) @ rotation(0.0, -np.radians(16.0))
        sixth[0][1, 3] -= 0.012
    return _grown(replace(rig, local=local), beside, sixth)


def second_thumb(rig: HandRig, abduction: float) -> HandRig:
    """Let a second thumb fork off the first, turned away from it by radians."""
    sixth = rig.local[_chain(rig, 1)].copy()
    # Mostly above the first bone, which lies in the palm: the copy's open root must stay hidden.
    sixth[0] = sixth[0] @ rotation(0.0, 0.25 * abduction)
    sixth[1] = sixth[1] @ rotation(0.0, 0.75 * abduction)
    grown = _grown(rig, 1, sixth)
    thinner = np.diag([0.96, 1.0, 0.96, 1.0])
    inverse_rest = grown.inverse_rest.copy()
    inverse_rest[-3:] = thinner @ inverse_rest[-3:]
    return replace(grown, inverse_rest=inverse_rest)


def stretched_finger(rig: HandRig, finger: int, factor: float) -> HandRig:
    """Make finger 1 (thumb) .. 5 (little) `factor` times as long, and as thick as it was."""
    chain = _chain(rig, finger)
    stretch = np.diag([1.0, factor, 1.0, 1.0])
    local, inverse_rest = rig.local.copy(), rig.inverse_rest.copy()
    inverse_rest[chain] = stretch @ inverse_rest[chain]
    local[chain[1:], 1, 3] *= factor
    tips = dict(rig.tips)
    last = f"finger{finger}-3"
    tips[last] = (tips[last][0], tips[last][1] * factor, tips[last][2])
    return replace(rig, local=local, inverse_rest=inverse_rest, tips=tips)


def _chain(rig: HandRig, finger: int) -> list[int]:
    return [rig.index(f"finger{finger}-{joint}") for joint in (1, 2, 3)]


def _grown(rig: HandRig, finger: int, sixth: Array) -> HandRig:
    """Add a copy of a finger's skin and bones; `sixth` (3, 4, 4) are the new bones in their
    parents' frames."""
    chain = _chain(rig, finger)
    grown = rig.weights[:, chain].sum(axis=1)
    inside = (grown[rig.faces] > 0.25).all(axis=1)
    keep = np.unique(rig.faces[inside])
    renumber = np.full(len(rig.rest_vertices), -1)
    renumber[keep] = np.arange(len(keep)) + len(rig.rest_vertices)
    weights = np.zeros((len(rig.weights) + len(keep), len(rig.bones) + 3))
    weights[: len(rig.weights), : len(rig.bones)] = rig.weights
    weights[len(rig.weights) :, len(rig.bones) :] = (
        rig.weights[np.ix_(keep, np.array(chain))] / grown[keep, None]
    )
    count = len(rig.bones)
    return replace(
        rig,
        bones=(*rig.bones, *SIXTH_BONES),
        parents=(*rig.parents, rig.parents[chain[0]], count, count + 1),
        rest_vertices=np.concatenate([rig.rest_vertices, rig.rest_vertices[keep]]),
        faces=np.concatenate([rig.faces, renumber[rig.faces[inside]]]),
        inverse_rest=np.concatenate([rig.inverse_rest, rig.inverse_rest[chain]]),
        local=np.concatenate([rig.local, sixth]),
        weights=weights,
        finger=np.concatenate([rig.finger, np.full(len(keep), SIXTH, np.int8)]),
        bone=np.concatenate([rig.bone, weights[len(rig.weights) :].argmax(axis=1)]),
        tips={**rig.tips, "finger6-3": rig.tips[f"finger{finger}-3"]},
        radius=np.concatenate([rig.radius, rig.radius[chain]]),
        copied=finger,
    )


def fused_fingers(rig: HandRig, finger: int) -> HandRig:
    """Merge fingers `finger` and `finger + 1` (finger 2..4) along their whole length."""
    first, second = rig.index(f"finger{finger}-1"), rig.index(f"finger{finger + 1}-1")
    local = rig.local.copy()
    a, b = _in_wrist(rig, first), _in_wrist(rig, second)
    shift = 0.5 * (float(np.linalg.norm(a[:3, 3] - b[:3, 3])) - float(rig.radius[first]))
    centre = 0.5 * (a[:3, 3] + b[:3, 3])
    mean = _mean_rotation(a[:3, :3], b[:3, :3])
    for bone, pose in ((first, a), (second, b)):
        way = pose[:3, 3] - centre
        merged = np.eye(4)
        merged[:3, :3] = mean
        merged[:3, 3] = pose[:3, 3] - way / np.linalg.norm(way) * shift
        local[bone] = np.linalg.inv(_in_wrist(rig, rig.parents[bone])) @ merged
    return replace(rig, local=local, fused=(finger, finger + 1))


def _mean_rotation(a: Array, b: Array) -> Array:
    left, _, right = np.linalg.svd(a + b)
    mean: Array = left @ right
    return mean


def _in_wrist(rig: HandRig, bone: int) -> Array:
    pose = rig.local[bone]
    parent = rig.parents[bone]
    while parent >= 0:
        pose = rig.local[parent] @ pose
        parent = rig.parents[parent]
    return pose


def _shift_in_parent(local: Array, sideways_m: float) -> Array:
    """Move a bone along its own x axis (towards the thumb)."""
    moved = local.copy()
    moved[:3, 3] += moved[:3, 0] * sideways_m
    return moved
