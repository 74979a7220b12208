"""Builds mitsuba scenes from stages.

Mitsuba's `scalar_rgb` variant is used: it needs no GPU and its pictures are bit-equal from run to
run. World: metres, z up.
"""

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from hoi_assets.tinyworld.scenes.camera import Camera, as_triple
from hoi_assets.tinyworld.scenes.materials import (
    LIGHT_RIGS,
    WALL_SRGB,
    Light,
    ambient_tint,
    clipped,
    linear_from_srgb,
    paint_bsdf,
    skin_bsdf,
)
from hoi_assets.tinyworld.scenes.objects.shape import Surface
from hoi_assets.tinyworld.scenes.rigid import Array, vertex_normals
from hoi_assets.tinyworld.scenes.stage import Look, Plane, Stage


@lru_cache(maxsize=1)
def load_mitsuba() -> Any:
    """The module `mitsuba`, set to one variant and one thread."""
    import drjit
    import mitsuba

    mi: Any = mitsuba  # its variants are made at run time, past what its type stubs know
    mi.set_variant("scalar_rgb")
    mi.logger().set_log_level(mi.LogLevel.Error)
    # Several threads add up the same pixels in any order; one thread keeps the bits.
    drjit.set_thread_count(1)
    return mi


def build_scene(
    mi: Any, stage: Stage, camera: Camera, look: Look, size: int, rng: np.random.Generator
) -> Any:
    """A stage as mitsuba's scene.

    Args:
        size: side of the picture, pixels.
        rng: of all that no word says: lamp, wall and skin, in this order.
    """
    right, up, forward = camera.axes()
    rig = LIGHT_RIGS[look.light]
    scene: dict[str, Any] = {
        "type": "scene",
        # One bounce, emitters sampled: half a path tracer's time. The rigs' ambient light makes up
        # for what light between surfaces would add.
        "integrator": {"type": "direct", "emitter_samples": 1, "bsdf_samples": 0},
        "sensor": make_sensor(mi, camera, size),
        "ambient": {
            "type": "constant",
            "radiance": {"type": "rgb", "value": [rig.ambient * c for c in ambient_tint(rig)]},
        },
    }
    lamp_from = _lamp_direction(rig, rng)
    reach = stage.radius * 7.0
    lamp_at = stage.centre + reach * (
        lamp_from[0] * right + lamp_from[1] * up - lamp_from[2] * forward
    )
    half = rig.half_size * reach
    # A rectangle radiates like its area over the squared distance: `power` stays what arrives.
    radiance = rig.power * np.pi * reach**2 / (4 * half**2)
    scene["lamp"] = {
        "type": "rectangle",
        "to_world": mi.ScalarTransform4f().look_at(
            origin=as_triple(lamp_at),
            target=as_triple(stage.centre),
            up=as_triple(_any_normal(lamp_from)),
        )
        @ mi.ScalarTransform4f().scale([half, half, 1]),
        "emitter": {
            "type": "area",
            "radiance": {"type": "rgb", "value": [radiance * c for c in rig.lamp_rgb]},
        },
    }
    for plane in wall_planes(stage, camera, look, rng):
        scene[plane.name] = _plane(mi, plane, 40 * stage.radius)
    for index, hand in enumerate(stage.hands):
        name = f"hand{index}"
        surface = Surface(hand.vertices, np.asarray(hand.faces), np.zeros((0, 3)), "skin")
        own = replace(look, skin_tone=hand.skin_tone or look.skin_tone)
        scene[name] = _mesh(mi, name, surface, skin_bsdf(own, rng))
    for index, part in enumerate(stage.surfaces):
        name = f"part{index}"
        own = replace(
            look, colour=part.colour or look.colour, material=part.material or look.material
        )
        scene[name] = _mesh(mi, name, part, paint_bsdf(own, part.role))
    return mi.load_dict(scene)


def look_rng(look: Look) -> np.random.Generator:
    """What `build_scene` draws from for a look."""
    return np.random.default_rng([look.seed, 0x10])


def shape_labels(stage: Stage) -> dict[str, Any]:
    """By name of a shape, the finger of each triangle of a hand, or the role of a surface."""
    labels: dict[str, Any] = {}
    for index, hand in enumerate(stage.hands):
        labels[f"hand{index}"] = hand.finger[hand.faces[:, 0]]
    for index, part in enumerate(stage.surfaces):
        labels[f"part{index}"] = part.role
    return labels


def stage_planes(stage: Stage, camera: Camera, look: Look, rng: np.random.Generator) -> list[Plane]:
    """The planes of the scene that `build_scene` makes of the same arguments."""
    _lamp_direction(LIGHT_RIGS[look.light], rng)
    return wall_planes(stage, camera, look, rng)


def _lamp_direction(rig: Light, rng: np.random.Generator) -> Array:
    """Where the lamp stands: (right, up, towards the camera), a unit vector."""
    lamp_from = np.asarray(rig.direction) + 0.15 * rng.uniform(-1, 1, 3)
    if rng.random() < 0.5:
        lamp_from[0] = -lamp_from[0]
    lamp_from /= np.linalg.norm(lamp_from)
    return lamp_from


def make_sensor(mi: Any, camera: Camera, size: int) -> dict[str, Any]:
    """The camera as mitsuba's sensor, with its film of `size` px."""
    return {
        "type": "perspective",
        "fov": camera.field_of_view_deg,
        "to_world": mi.ScalarTransform4f().look_at(
            origin=camera.eye, target=camera.target, up=camera.up
        ),
        "near_clip": 0.01,
        "film": {
            "type": "hdrfilm",
            "width": size,
            "height": size,
            "pixel_format": "rgb",
            "component_format": "float32",
            "rfilter": {"type": "gaussian", "stddev": 0.45},
        },
        "sampler": {"type": "multijitter", "sample_count": 16},
    }


def wall_planes(stage: Stage, camera: Camera, look: Look, rng: np.random.Generator) -> list[Plane]:
    """The wall behind the scene, and the table under it where there is one."""
    wall_rgb = linear_from_srgb(WALL_SRGB[look.background]) * rng.uniform(0.93, 1.05)
    toward = -camera.axes()[2]
    everything = np.concatenate(
        [hand.vertices for hand in stage.hands] + [part.vertices for part in stage.surfaces]
    )
    facing_down = abs(toward[2]) > 0.5
    normal = np.array([0.0, 0.0, 1.0]) if facing_down else np.array([toward[0], toward[1], 0.0])
    normal = normal / np.linalg.norm(normal)
    near = np.linalg.norm(everything - stage.centre, axis=1) < 1.6 * stage.radius
    depth = float(((everything[near] - stage.centre) @ normal).min())
    if facing_down and stage.support_z is not None:
        depth = stage.support_z - stage.centre[2]
    else:
        depth = min(depth - stage.radius * rng.uniform(0.15, 0.45), -stage.wall_m)
    planes = [Plane("wall", stage.centre + depth * normal, normal, wall_rgb)]
    if stage.support_z is not None and not facing_down:
        at = np.array([stage.centre[0], stage.centre[1], stage.support_z])
        planes.append(Plane("table", at, np.array([0.0, 0.0, 1.0]), wall_rgb * 0.8))
    return planes


def _plane(mi: Any, plane: Plane, half: float) -> dict[str, Any]:
    look_at = mi.ScalarTransform4f().look_at(
        origin=as_triple(plane.at),
        target=as_triple(plane.at + plane.normal),
        up=as_triple(_any_normal(plane.normal)),
    )
    return {
        "type": "rectangle",
        "to_world": look_at @ mi.ScalarTransform4f().scale([half, half, 1]),
        "bsdf": {"type": "diffuse", "reflectance": {"type": "rgb", "value": clipped(plane.rgb)}},
    }


def _mesh(mi: Any, name: str, surface: Surface, bsdf: dict[str, Any]) -> Any:
    given = len(surface.normals) > 0
    properties = mi.Properties()
    properties["mesh_bsdf"] = mi.load_dict(bsdf)
    mesh = mi.Mesh(
        name,
        vertex_count=len(surface.vertices),
        face_count=len(surface.faces),
        has_vertex_normals=True,
        props=properties,
    )
    params = mi.traverse(mesh)
    params["vertex_positions"] = np.ascontiguousarray(surface.vertices, np.float32).ravel()
    params["faces"] = np.ascontiguousarray(surface.faces, np.uint32).ravel()
    normals = surface.normals if given else vertex_normals(surface.vertices, surface.faces)
    params["vertex_normals"] = np.ascontiguousarray(normals, np.float32).ravel()
    params.update()
    return mesh


def _any_normal(vector: Array) -> Array:
    helper = np.array([0.0, 0.0, 1.0]) if abs(vector[2]) < 0.9 else np.array([0.0, 1.0, 0.0])
    return helper
