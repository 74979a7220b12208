"""Every object of the tiny world by name, in the frame of the grip it is made for."""

from dataclasses import replace

import numpy as np

from hoi_assets.errors import HoiError
from hoi_assets.tinyworld.scenes.objects.fingertips import FINGERTIP_OBJECTS
from hoi_assets.tinyworld.scenes.objects.shape import Grip, ObjectShape
from hoi_assets.tinyworld.scenes.objects.touched import TOUCHED_OBJECTS
from hoi_assets.tinyworld.scenes.objects.whole_hand import WHOLE_HAND_OBJECTS
from hoi_assets.tinyworld.scenes.rigid import Array

_BUILDERS = dict(sorted((WHOLE_HAND_OBJECTS | FINGERTIP_OBJECTS | TOUCHED_OBJECTS).items()))

# Which of a grip's directions become the object frame's axes: (x, y, z), None follows.
_FRAMES = {
    **dict.fromkeys(("wrap", "sphere", "pinch", "pinch_broad", "tripod", "occlude"), "nxa"),
    **dict.fromkeys(("hook", "wear"), "xna"),
    **dict.fromkeys(("support", "press", "both"), "axn"),
}


def make_object(
    kind: str,
    grip: str | None = None,
    size: float = 0.5,
    hole: tuple[float, float] | None = None,
) -> ObjectShape:
    """Build one object in the frame of the grip it is made for.

    Frames: wrap, occlude, tripod: z along the gripped part (tool tips at -z). pinch, pinch_broad
    (whole finger pads), sphere: x thin, z into the object from its gripped edge. hook: z along the
    bar, y up. wear: z through the hole, y to the stone or dial. support, press: z up, origin at the
    touched point. both: x between the hands, z up. None: the resting frame.

    Args:
        kind: one of vocabulary.OBJECTS.
        size: 0 (smallest of its natural range) to 1 (largest).
        hole: inner half axes (x, y) of ring and watch in metres, to fit a finger or a wrist.

    Raises:
        HoiError: for an unknown object or grip, a grip this object does not offer, or a hole in
            something that is not worn.
    """
    if kind not in _BUILDERS:
        raise HoiError(
            f"no object '{kind}' in the tiny world", f"Choose one of: {', '.join(_BUILDERS)}."
        )
    if hole is not None and kind not in ("ring", "watch"):
        raise HoiError(f"a hole was given for '{kind}'", "Give it for ring and watch only.")
    extra = {} if hole is None else {"hole": hole}
    parts, grips = _BUILDERS[kind](size, grip or "", **extra)
    offered = grips | ({"pinch_broad": grips["pinch"]} if "pinch" in grips else {})
    if grip is not None and grip not in offered:
        raise HoiError(f"'{kind}' offers no grip '{grip}'", f"Choose one of: {', '.join(offered)}.")
    origin, axes, half_extents = np.zeros(3), np.eye(3), None
    if grip is not None:
        taken = offered[grip]
        origin, half_extents = taken.centre, taken.half_extents
        axes = _axes(_FRAMES[grip], taken)
    shape = ObjectShape(kind, (0.0, 0.0, 0.0), tuple(parts), origin, axes)
    low, high = shape.bounds
    half_x, half_y, half_z = (high - low) / 2 if half_extents is None else half_extents
    return replace(shape, half_extents=(float(half_x), float(half_y), float(half_z)))


def _axes(order: str, grip: Grip) -> Array:
    """Rows are the frame's axes; 'a' takes the grip's axis, 'n' its normal, 'x' what is left."""
    given = {"a": grip.axis, "n": grip.normal, "x": np.zeros(3)}
    rows = np.stack([given[letter] for letter in order])
    left = order.index("x")
    rows[left] = np.cross(rows[(left + 1) % 3], rows[(left + 2) % 3])
    return rows
