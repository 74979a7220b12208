"""Renders a stage and reads its truth off the geometry: masks, joints, visible fingers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hoi_assets.tinyworld.scenes.camera import Camera
from hoi_assets.tinyworld.scenes.denoising import Smoothing, remove_fireflies, smooth
from hoi_assets.tinyworld.scenes.first_hits import FirstHits, trace_first_hits
from hoi_assets.tinyworld.scenes.materials import srgb8_from_linear
from hoi_assets.tinyworld.scenes.mitsuba_scene import (
    build_scene,
    load_mitsuba,
    look_rng,
    shape_labels,
    stage_planes,
)
from hoi_assets.tinyworld.scenes.raster import collect_triangles, rasterise
from hoi_assets.tinyworld.scenes.rigid import Array
from hoi_assets.tinyworld.scenes.stage import Look, Stage
from hoi_assets.tinyworld.scenes.vocabulary import FINGERS

Mask = NDArray[np.bool_]
PICTURE_SIZE = 128
VISIBLE_PIXELS = 12  # at 128 px; fewer pixels of a finger do not show it
STANDARD_SMOOTHING = Smoothing()
LABEL_LOOK = Look("red", "plastic", "tan", "soft light", "grey wall", 0)


@dataclass(frozen=True)
class Quality:
    """How pictures are rendered.

    Attributes:
        size: side of the picture, pixels.
        samples_per_pixel: paths traced a pixel.
        rasterised: find first hits by scan conversion, several times as fast; a few pixels on
            edges differ.
        smoothing: of the sampling noise.
    """

    size: int = PICTURE_SIZE
    samples_per_pixel: int = 16
    rasterised: bool = False
    smoothing: Smoothing = STANDARD_SMOOTHING


STANDARD = Quality()
# About 1 dB noisier than the standard, and twice as fast.
FAST = Quality(samples_per_pixel=6, rasterised=True, smoothing=Smoothing(tone=0.25))


@dataclass(frozen=True)
class View:
    """What a camera sees of a stage, known before light is traced.

    Attributes:
        scene: mitsuba's, where it was needed already.
        joints_2d: (n, 2) pixels.
        pixels: how many show each hand (`hand0` ..) and surface (`part0` ..) of the stage.
    """

    stage: Stage
    camera: Camera
    look: Look
    scene: Any | None
    seen: FirstHits
    joints_2d: Array
    hand_mask: Mask
    object_mask: Mask
    paint_mask: Mask
    visible_fingers: tuple[str, ...]
    pixels: Mapping[str, int]


@dataclass(frozen=True)
class Render:
    """A rendered picture, and what it shows."""

    image: Image.Image
    view: View


def render_stage(stage: Stage, camera: Camera, look: Look, quality: Quality = STANDARD) -> Render:
    """Trace the stage's light and smooth the sampling noise; equal arguments give equal pixels."""
    return trace_view(view_stage(stage, camera, look, quality), quality)


def view_stage(stage: Stage, camera: Camera, look: Look, quality: Quality = STANDARD) -> View:
    """What the camera sees, before any light is traced."""
    scene, size = None, quality.size
    if quality.rasterised:
        planes = stage_planes(stage, camera, look, look_rng(look))
        seen = rasterise(collect_triangles(stage), camera, size, planes)
    else:
        mi = load_mitsuba()
        scene = build_scene(mi, stage, camera, look, size, look_rng(look))
        seen = trace_first_hits(mi, scene, camera, size)
    labels = shape_labels(stage)
    hand, thing, paint, fingers = _truth(seen, labels, size)
    return View(
        stage, camera, look, scene, seen, camera.project(stage.joints_3d, size), hand, thing,
        paint, fingers, {name: int(seen.where(name).sum()) for name in labels},
    )  # fmt: skip


def trace_view(view: View, quality: Quality = STANDARD) -> Render:
    """Trace a view's light and smooth the sampling noise."""
    mi, look = load_mitsuba(), view.look
    scene = view.scene or build_scene(
        mi, view.stage, view.camera, look, quality.size, look_rng(look)
    )
    traced = np.array(mi.render(scene, spp=quality.samples_per_pixel, seed=look.seed % (2**31)))
    light = smooth(remove_fireflies(traced[..., :3]), view.seen, quality.smoothing)
    return Render(Image.fromarray(srgb8_from_linear(light)), view)


def read_labels(stage: Stage, camera: Camera, quality: Quality = STANDARD) -> NDArray[np.int64]:
    """What each pixel shows without tracing light, (size, size): -1 nothing, 0 object, 10 palm or
    forearm, 11..15 thumb to little finger, 16 a sixth finger. Two hands share their labels."""
    rng, size = np.random.default_rng(0), quality.size
    if quality.rasterised:
        planes = stage_planes(stage, camera, LABEL_LOOK, rng)
        seen = rasterise(collect_triangles(stage), camera, size, planes)
    else:
        mi = load_mitsuba()
        scene = build_scene(mi, stage, camera, LABEL_LOOK, 16, rng)
        seen = trace_first_hits(mi, scene, camera, size)
    shown = np.full(seen.shape.shape, -1, dtype=np.int64)
    for name, label in shape_labels(stage).items():
        here = seen.where(name)
        shown[here] = 11 + label[seen.face[here]] if name.startswith("hand") else 0
    return shown


def _truth(
    seen: FirstHits, labels: Mapping[str, Any], size: int
) -> tuple[Mask, Mask, Mask, tuple[str, ...]]:
    """Hand, object and painted-part masks (size, size), and the fingers that show."""
    hand, thing, paint = (np.zeros((size, size), dtype=bool) for _ in range(3))
    shown = np.zeros(len(FINGERS), dtype=np.int64)
    for name, label in labels.items():
        here = seen.where(name)
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
