"""Renders a stage and reads its truth off the geometry: masks, joints, visible fingers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hoi_assets.tinyworld.scenes.camera import Camera
from hoi_assets.tinyworld.scenes.denoising import remove_fireflies, smooth
from hoi_assets.tinyworld.scenes.first_hits import FirstHits, trace_first_hits
from hoi_assets.tinyworld.scenes.materials import srgb8_from_linear
from hoi_assets.tinyworld.scenes.mitsuba_scene import build_scene, load_mitsuba
from hoi_assets.tinyworld.scenes.rigid import Array
from hoi_assets.tinyworld.scenes.stage import Look, Stage
from hoi_assets.tinyworld.scenes.vocabulary import FINGERS

Mask = NDArray[np.bool_]
PICTURE_SIZE = 128
SAMPLES_PER_PIXEL = 16
VISIBLE_PIXELS = 12  # at 128 px; fewer pixels of a finger do not show it


@dataclass(frozen=True)
class Render:
    """A rendered scene with the truth that depends on the camera.

    Attributes:
        pixels: how many show each hand (`hand0` ..) and surface (`part0` ..) of the stage.
    """

    image: Image.Image
    camera: Camera
    joints_2d: Array
    hand_mask: Mask
    object_mask: Mask
    paint_mask: Mask
    visible_fingers: tuple[str, ...]
    pixels: Mapping[str, int]


def render_stage(
    stage: Stage,
    camera: Camera,
    look: Look,
    size: int = PICTURE_SIZE,
    samples_per_pixel: int = SAMPLES_PER_PIXEL,
) -> Render:
    """Trace the stage's light and smooth the sampling noise; equal arguments give equal pixels."""
    mi = load_mitsuba()
    rng = np.random.default_rng([look.seed, 0x10])
    scene, labels = build_scene(mi, stage, camera, look, size, rng)
    traced = np.array(mi.render(scene, spp=samples_per_pixel, seed=look.seed % (2**31)))
    seen = trace_first_hits(mi, scene, camera, size)
    traced = remove_fireflies(traced[..., :3])
    image = Image.fromarray(srgb8_from_linear(smooth(traced, seen)))
    hand, thing, paint, fingers = _truth(seen, labels, size)
    return Render(
        image, camera, camera.project(stage.joints_3d, size), hand, thing, paint, fingers,
        _counted(seen, labels),
    )  # fmt: skip


def read_labels(stage: Stage, camera: Camera, size: int = PICTURE_SIZE) -> NDArray[np.int64]:
    """What each pixel shows without tracing light, (size, size): -1 nothing, 0 object, 10 palm or
    forearm, 11..15 thumb to little finger, 16 a sixth finger. Two hands are not told apart."""
    mi = load_mitsuba()
    look = Look("red", "plastic", "tan", "soft light", "grey wall", 0)
    scene, labels = build_scene(mi, stage, camera, look, 16, np.random.default_rng(0))
    seen = trace_first_hits(mi, scene, camera, size)
    shown = np.full((size, size), -1, dtype=np.int64)
    for name, label in labels.items():
        here = seen.name == name
        shown[here] = 11 + label[seen.face[here]] if name.startswith("hand") else 0
    return shown


def _truth(
    seen: FirstHits, labels: Mapping[str, Any], size: int
) -> tuple[Mask, Mask, Mask, tuple[str, ...]]:
    """Hand, object and painted-part masks (size, size), and the fingers that show."""
    hand, thing, paint = (np.zeros((size, size), dtype=bool) for _ in range(3))
    shown = np.zeros(len(FINGERS), dtype=np.int64)
    for name, label in labels.items():
        here = seen.name == name
        if name.startswith("hand"):
            hand |= here
            finger = label[seen.face[here]]
            shown += np.bincount(finger[(finger >= 0) & (finger < 5)], minlength=5)
        else:
            thing |= here
            if label == "colour":
                paint |= here
    enough = VISIBLE_PIXELS * (size / PICTURE_SIZE) ** 2
    return (
        hand,
        thing,
        paint,
        tuple(finger for finger, count in zip(FINGERS, shown, strict=True) if count >= enough),
    )


def _counted(seen: FirstHits, labels: Mapping[str, Any]) -> dict[str, int]:
    return {name: int((seen.name == name).sum()) for name in labels}
