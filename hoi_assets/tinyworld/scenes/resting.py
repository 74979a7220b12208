"""Objects without a hand, as they lie or stand on a table."""

import numpy as np

from hoi_assets.tinyworld.scenes.objects.shape import ObjectShape, Surface
from hoi_assets.tinyworld.scenes.rigid import axis_rotation
from hoi_assets.tinyworld.scenes.stage import Stage

ALONE_VIEWS = {"front": (0.0, -1.0, 0.32), "side": (0.85, -0.6, 0.34), "above": (0.1, -0.6, 0.9)}
# Flat things lean back towards the camera, long ones lie, dials face the front.
_LEANING = ("book", "card", "coin", "key", "phone", "plate")
_LYING = ("pen", "brush", "spoon", "stick")
_FACING = ("watch", "ring")


def resting_stage(shape: ObjectShape, kind: str, rng: np.random.Generator) -> Stage:
    """The object alone on a table, turned at random the way its kind lies or stands."""
    turn = axis_rotation(2, rng.uniform(-40, 40))
    if kind in _LEANING:
        turn = turn @ axis_rotation(0, rng.uniform(50, 70))
    elif kind in _LYING:
        turn = turn @ axis_rotation(1, 90.0) @ axis_rotation(2, rng.uniform(-20, 20) - 90)
    elif kind in _FACING:
        turn = turn @ axis_rotation(2, -90.0) @ axis_rotation(1, -rng.uniform(15, 40))
    elif kind in ("die", "box", "bead"):
        turn = axis_rotation(2, rng.uniform(20, 70))
    surfaces = tuple(
        Surface(part.vertices @ turn.T, part.faces, part.normals @ turn.T, part.role)
        for part in shape.surfaces
    )
    vertices = np.concatenate([part.vertices for part in surfaces])
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    centre = (low + high) / 2
    radius = 1.12 * float(np.linalg.norm(vertices - centre, axis=1).max())
    return Stage((), surfaces, centre, radius, float(low[2]), np.zeros((0, 3)))
