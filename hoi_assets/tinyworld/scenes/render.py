"""Draws a scene with mitsuba and reads its truth off the geometry: masks, joints, visible fingers.

Mitsuba's `scalar_rgb` variant is used: it needs no GPU and its pictures are bit-equal from run to
run. World: metres, z up.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hoi_assets.grammar.vocabulary import FINGERS
from hoi_assets.tinyworld.scenes.objects import Surface

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

PICTURE_SIZE = 128
SAMPLES_PER_PIXEL = 16
METAL_ROUGHNESS = 0.45  # a sharper lobe is noisy where emitters alone are sampled
FIELD_OF_VIEW_DEG = 24.0
MIN_RISE = 0.25  # a camera that looks at a table stays above it
VISIBLE_PIXELS = 12  # at 128 px; fewer pixels of a finger do not show it

# sRGB, 0..255.
COLOUR_SRGB: dict[str, tuple[int, int, int]] = {
    "red": (200, 24, 28),
    "orange": (240, 120, 16),
    "yellow": (244, 208, 32),
    "green": (36, 140, 52),
    "blue": (28, 72, 190),
    "purple": (120, 44, 160),
    "white": (236, 236, 232),
    "black": (26, 26, 28),
}
SKIN_SRGB: dict[str, tuple[int, int, int]] = {
    "light": (236, 194, 170),
    "tan": (206, 150, 108),
    "brown": (148, 94, 62),
    "dark": (84, 50, 36),
}
WALL_SRGB: dict[str, tuple[int, int, int]] = {
    "grey wall": (128, 130, 132),
    "white wall": (226, 226, 222),
    "blue wall": (122, 158, 196),
    "green wall": (136, 172, 136),
    "beige wall": (212, 192, 156),
}
ROLE_SRGB: dict[str, tuple[int, int, int]] = {
    "dark": (34, 34, 36),
    "pale": (232, 230, 222),
    "paper": (238, 230, 208),
    "grey": (150, 152, 156),
    "wood": (96, 62, 34),
    "leaf": (64, 120, 36),
    "gold": (206, 164, 72),
    "screen": (58, 74, 92),
    "water": (150, 196, 226),
}
PALE_COLOURS = ("white", "yellow", "orange")


@dataclass(frozen=True)
class Light:
    """A lamp (direction relative to the camera, size in metres, power) and the ambient light.

    Attributes:
        direction: (right, up, towards the camera) as the camera sees it.
    """

    direction: tuple[float, float, float]
    half_size: float
    power: float
    lamp_rgb: tuple[float, float, float]
    ambient: float


LIGHT_RIGS: dict[str, Light] = {
    "soft light": Light((-0.35, 0.9, 0.95), 0.45, 1.5, (1.0, 0.98, 0.96), 0.6),
    "side light": Light((-1.0, 0.25, 0.35), 0.16, 2.6, (1.0, 0.98, 0.95), 0.24),
    "warm light": Light((0.45, 0.8, 0.9), 0.30, 1.7, (1.0, 0.74, 0.46), 0.5),
    "dim light": Light((0.3, 0.9, 0.8), 0.35, 0.36, (0.95, 0.97, 1.0), 0.145),
}


@dataclass(frozen=True)
class HandMesh:
    """A posed hand to draw: vertices (v, 3) in world metres, triangles (f, 3), finger per vertex.

    Attributes:
        finger: (v,) -1 for palm and wrist, 0..4 thumb to little, 5 a sixth finger.
        skin_tone: this hand's own; None takes the look's.
    """

    vertices: Array
    faces: NDArray[np.integer[Any]]
    finger: NDArray[np.integer[Any]]
    skin_tone: str | None = None


@dataclass(frozen=True)
class Stage:
    """What stands before the camera, in world coordinates.

    Attributes:
        surfaces: the object's parts.
        centre: point (3,) to look at, metres.
        radius: of the sphere round `centre` that fills the frame, metres.
        support_z: height of the table top, or None for no table.
        joints_3d: (n, 3) world points to project.
        wall_m: least distance from `centre` to the wall behind it, metres.
    """

    hands: tuple[HandMesh, ...]
    surfaces: tuple[Surface, ...]
    centre: Array
    radius: float
    support_z: float | None
    joints_3d: Array
    wall_m: float = 0.0

    def mirrored(self) -> "Stage":
        """The same scene in a mirror (world x turned round): right hands become left ones."""
        flip = np.array([-1.0, 1.0, 1.0])
        hands = tuple(
            replace(hand, vertices=hand.vertices * flip, faces=hand.faces[:, ::-1])
            for hand in self.hands
        )
        surfaces = tuple(
            replace(
                part,
                vertices=part.vertices * flip,
                faces=part.faces[:, ::-1],
                normals=part.normals * flip,
            )
            for part in self.surfaces
        )
        return Stage(hands, surfaces, self.centre * flip, self.radius, self.support_z,
                     self.joints_3d * flip, self.wall_m)  # fmt: skip


@dataclass(frozen=True)
class Look:
    """The words a picture is drawn from, and the seed of all that no word says."""

    colour: str
    material: str
    skin_tone: str | None
    light: str
    background: str
    seed: int


@dataclass(frozen=True)
class Camera:
    """A pinhole camera looking at `target` from `eye`; square picture, field of view in degrees."""

    eye: tuple[float, float, float]
    target: tuple[float, float, float]
    up: tuple[float, float, float]
    field_of_view_deg: float

    def as_list(self) -> list[float]:
        """eye (3), target (3), up (3), field of view: ten numbers, metres and degrees."""
        return [*self.eye, *self.target, *self.up, self.field_of_view_deg]

    def axes(self) -> Array:
        """Rows: right, up, forward; unit vectors in the world."""
        forward = np.subtract(self.target, self.eye)
        forward = forward / np.linalg.norm(forward)
        right = np.cross(forward, self.up)
        right = right / np.linalg.norm(right)
        return np.stack([right, np.cross(right, forward), forward])

    def project(self, points: Array, size: int) -> Array:
        """World points (n, 3) to pixels (n, 2), x right and y down, of a `size` px picture."""
        seen = (np.asarray(points) - np.asarray(self.eye)) @ self.axes().T
        scale = size / (2 * np.tan(np.radians(self.field_of_view_deg) / 2))
        return size / 2 + np.stack([seen[:, 0], -seen[:, 1]], axis=1) / seen[:, 2:] * scale


@dataclass(frozen=True)
class Picture:
    """A drawn scene with the truth that depends on the camera.

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


def aim(
    stage: Stage,
    direction: Sequence[float] | Array,
    seed: int,
    margin: float = 1.0,
    jitter: float = 1.0,
) -> Camera:
    """Place a camera along `direction` (from the scene towards it), with jitter from the seed."""
    rng = np.random.default_rng([seed, 0xCA])
    towards = np.asarray(direction, dtype=np.float64)
    towards = towards / np.linalg.norm(towards)
    up = np.array([0.0, 0.0, 1.0])
    if abs(towards[2]) > 0.9:
        up = np.array([0.0, 1.0, 0.0])
    right = np.cross(up, towards)
    right /= np.linalg.norm(right)
    above = np.cross(towards, right)
    swing = np.radians(jitter * 11.0) * rng.uniform(-1, 1, 2)
    towards = towards + np.tan(swing[0]) * right + np.tan(swing[1]) * above
    towards /= np.linalg.norm(towards)
    if stage.support_z is not None and towards[2] < MIN_RISE:
        towards[2] = MIN_RISE
        towards /= np.linalg.norm(towards)
    roll = np.radians(jitter * 5.0) * rng.uniform(-1, 1)
    up = above * np.cos(roll) + right * np.sin(roll)
    off = jitter * 0.07 * stage.radius * rng.uniform(-1, 1, 2)
    target = stage.centre + off[0] * right + off[1] * above
    fill = margin * (1 + jitter * 0.07 * rng.uniform(-1, 1))
    distance = stage.radius * fill / np.sin(np.radians(FIELD_OF_VIEW_DEG) / 2)
    eye = target + towards * distance
    return Camera(_triple(eye), _triple(target), _triple(up), FIELD_OF_VIEW_DEG)


def draw(
    stage: Stage,
    camera: Camera,
    look: Look,
    size: int = PICTURE_SIZE,
    samples_per_pixel: int = SAMPLES_PER_PIXEL,
) -> Picture:
    """Trace the stage's light and smooth the sampling noise; equal arguments give equal pixels."""
    mi = _mitsuba()
    rng = np.random.default_rng([look.seed, 0x10])
    scene, labels = _build(mi, stage, camera, look, size, rng)
    traced = np.array(mi.render(scene, spp=samples_per_pixel, seed=look.seed % (2**31)))
    seen = _first_hits(mi, scene, camera, size)
    traced = _without_fireflies(traced[..., :3])
    image = Image.fromarray(_to_srgb8(_smoothed(traced, seen)))
    hand, thing, paint, fingers = _truth(seen, labels, size)
    return Picture(
        image, camera, camera.project(stage.joints_3d, size), hand, thing, paint, fingers,
        _counted(seen, labels),
    )  # fmt: skip


def labels_seen(stage: Stage, camera: Camera, size: int = PICTURE_SIZE) -> NDArray[np.int64]:
    """What each pixel shows without tracing light, (size, size): -1 nothing, 0 object, 10 palm or
    forearm, 11..15 thumb to little finger, 16 a sixth finger. Two hands are not told apart."""
    mi = _mitsuba()
    look = Look("red", "plastic", "tan", "soft light", "grey wall", 0)
    scene, labels = _build(mi, stage, camera, look, 16, np.random.default_rng(0))
    seen = _first_hits(mi, scene, camera, size)
    shown = np.full((size, size), -1, dtype=np.int64)
    for name, label in labels.items():
        here = seen.name == name
        shown[here] = 11 + label[seen.face[here]] if name.startswith("hand") else 0
    return shown


# --- building the mitsuba scene ------------------------------------------------------------------


@lru_cache(maxsize=1)
def _mitsuba() -> Any:
    import drjit
    import mitsuba

    mi: Any = mitsuba  # its variants are made at run time, past what its type stubs know
    mi.set_variant("scalar_rgb")
    mi.logger().set_log_level(mi.LogLevel.Error)
    # Several threads add up the same pixels in any order; one thread keeps the bits.
    drjit.set_thread_count(1)
    return mi


def _build(
    mi: Any, stage: Stage, camera: Camera, look: Look, size: int, rng: np.random.Generator
) -> tuple[Any, dict[str, Any]]:
    right, up, forward = camera.axes()
    rig = LIGHT_RIGS[look.light]
    scene: dict[str, Any] = {
        "type": "scene",
        # One bounce, emitters sampled: half a path tracer's time. The rigs' ambient light makes up
        # for what light between surfaces would add.
        "integrator": {"type": "direct", "emitter_samples": 1, "bsdf_samples": 0},
        "sensor": _sensor(mi, camera, size),
        "ambient": {
            "type": "constant",
            "radiance": {"type": "rgb", "value": [rig.ambient * c for c in _ambient_tint(rig)]},
        },
    }
    lamp_from = np.asarray(rig.direction) + 0.15 * rng.uniform(-1, 1, 3)
    if rng.random() < 0.5:
        lamp_from[0] = -lamp_from[0]
    lamp_from /= np.linalg.norm(lamp_from)
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
            origin=_triple(lamp_at),
            target=_triple(stage.centre),
            up=_triple(_any_normal(lamp_from)),
        )
        @ mi.ScalarTransform4f().scale([half, half, 1]),
        "emitter": {
            "type": "area",
            "radiance": {"type": "rgb", "value": [radiance * c for c in rig.lamp_rgb]},
        },
    }
    scene.update(_walls(mi, stage, camera, look, rng))
    labels: dict[str, Any] = {}
    for index, hand in enumerate(stage.hands):
        name = f"hand{index}"
        surface = Surface(hand.vertices, np.asarray(hand.faces), np.zeros((0, 3)), "skin")
        own = replace(look, skin_tone=hand.skin_tone or look.skin_tone)
        scene[name] = _mesh(mi, name, surface, _skin(own, rng))
        labels[name] = hand.finger[hand.faces[:, 0]]
    for index, part in enumerate(stage.surfaces):
        name = f"part{index}"
        own = replace(
            look, colour=part.colour or look.colour, material=part.material or look.material
        )
        scene[name] = _mesh(mi, name, part, _paint(own, part.role))
        labels[name] = part.role
    return mi.load_dict(scene), labels


def _sensor(mi: Any, camera: Camera, size: int) -> dict[str, Any]:
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


def _walls(
    mi: Any, stage: Stage, camera: Camera, look: Look, rng: np.random.Generator
) -> dict[str, Any]:
    wall_rgb = _linear(WALL_SRGB[look.background]) * rng.uniform(0.93, 1.05)
    bsdf = {"type": "diffuse", "reflectance": {"type": "rgb", "value": _clipped(wall_rgb)}}
    toward = -camera.axes()[2]
    everything = np.concatenate(
        [hand.vertices for hand in stage.hands] + [part.vertices for part in stage.surfaces]
    )
    walls = {}
    facing_down = abs(toward[2]) > 0.5
    normal = np.array([0.0, 0.0, 1.0]) if facing_down else np.array([toward[0], toward[1], 0.0])
    normal = normal / np.linalg.norm(normal)
    near = np.linalg.norm(everything - stage.centre, axis=1) < 1.6 * stage.radius
    depth = float(((everything[near] - stage.centre) @ normal).min())
    if facing_down and stage.support_z is not None:
        depth = stage.support_z - stage.centre[2]
    else:
        depth = min(depth - stage.radius * rng.uniform(0.15, 0.45), -stage.wall_m)
    walls["wall"] = _plane(mi, stage.centre + depth * normal, normal, 40 * stage.radius, bsdf)
    if stage.support_z is not None and not facing_down:
        table_rgb = wall_rgb * 0.8
        table = {"type": "diffuse", "reflectance": {"type": "rgb", "value": _clipped(table_rgb)}}
        at = np.array([stage.centre[0], stage.centre[1], stage.support_z])
        walls["table"] = _plane(mi, at, np.array([0.0, 0.0, 1.0]), 40 * stage.radius, table)
    return walls


def _plane(
    mi: Any, at: Array, normal: Array, half: float, bsdf: Mapping[str, Any]
) -> dict[str, Any]:
    look_at = mi.ScalarTransform4f().look_at(
        origin=_triple(at), target=_triple(at + normal), up=_triple(_any_normal(normal))
    )
    return {
        "type": "rectangle",
        "to_world": look_at @ mi.ScalarTransform4f().scale([half, half, 1]),
        "bsdf": dict(bsdf),
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
    normals = surface.normals if given else _vertex_normals(surface.vertices, surface.faces)
    params["vertex_normals"] = np.ascontiguousarray(normals, np.float32).ravel()
    params.update()
    return mesh


def _vertex_normals(vertices: Array, faces: NDArray[np.integer[Any]]) -> Array:
    corners = vertices[faces]
    weighted = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(normals, faces[:, corner], weighted)
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-18)


def _skin(look: Look, rng: np.random.Generator) -> dict[str, Any]:
    rgb = _linear(SKIN_SRGB[look.skin_tone or "tan"])
    rgb = rgb * rng.uniform(0.92, 1.07) * (1 + 0.04 * rng.uniform(-1, 1, 3))
    return {
        "type": "principled",
        "base_color": {"type": "rgb", "value": _clipped(rgb)},
        "roughness": 0.52,
        "specular": 0.4,
        "flatness": 0.4,
    }


def _paint(look: Look, role: str) -> dict[str, Any]:
    if role == "steel":
        return _principled((178, 180, 184), roughness=METAL_ROUGHNESS, metallic=0.9)
    if role == "contrast":
        pale = look.colour not in PALE_COLOURS
        return _principled(ROLE_SRGB["pale" if pale else "dark"], roughness=0.45, specular=0.4)
    if role != "colour":
        return _principled(ROLE_SRGB[role], roughness=0.5, specular=0.4)
    srgb = COLOUR_SRGB[look.colour]
    if look.material == "metal":
        return _principled(srgb, roughness=METAL_ROUGHNESS, metallic=0.75, specular=0.8)
    if look.material == "rubber":
        return _principled(srgb, roughness=0.85, specular=0.15)
    return _principled(srgb, roughness=0.25, specular=0.55)


def _principled(
    srgb: tuple[int, int, int], roughness: float, metallic: float = 0.0, specular: float = 0.5
) -> dict[str, Any]:
    return {
        "type": "principled",
        "base_color": {"type": "rgb", "value": _clipped(_linear(srgb))},
        "roughness": roughness,
        "metallic": metallic,
        "specular": specular,
    }


# --- truth ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Hits:
    """What each pixel's middle ray meets: shape's name ("" for none), triangle, normal."""

    name: NDArray[np.str_]
    face: NDArray[np.int64]
    normal: Array


def _first_hits(mi: Any, scene: Any, camera: Camera, size: int) -> _Hits:
    sensor = _sensor(mi, camera, size)
    # A box filter and one unjittered ray a pixel keep the indices whole.
    sensor["film"]["rfilter"] = {"type": "box"}
    sensor["sampler"] = {"type": "stratified", "sample_count": 1, "jitter": False}
    integrator = mi.load_dict(
        {"type": "aov", "aovs": "shape:shape_index,face:prim_index,normal:sh_normal"}
    )
    seen = np.array(
        mi.render(scene, sensor=mi.load_dict(sensor), integrator=integrator, spp=1, seed=0)
    )
    names = np.array(["", *(shape.id() for shape in scene.shapes())])
    index = np.round(seen[..., 0]).astype(np.int64)
    return _Hits(names[index], np.round(seen[..., 1]).astype(np.int64), seen[..., 2:5])


def _truth(
    seen: _Hits, labels: Mapping[str, Any], size: int
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


def _counted(seen: _Hits, labels: Mapping[str, Any]) -> dict[str, int]:
    return {name: int((seen.name == name).sum()) for name in labels}


# --- noise ---------------------------------------------------------------------------------------


def _smoothed(colour: Array, seen: _Hits, radius: int = 1, rounds: int = 3) -> Array:
    """Cross-bilateral filter of a noisy picture (h, w, 3), guided by noise-free surfaces."""
    _, surface = np.unique(seen.name, return_inverse=True)
    features = np.concatenate(
        [surface.reshape(*seen.name.shape, 1) * 10.0, seen.normal * 3.0], axis=-1
    ).astype(np.float32)
    for spacing in (2**power for power in range(rounds)):
        colour = _filter_round(colour, features, radius, spacing)
    return colour


def _without_fireflies(colour: Array) -> Array:
    """Bound each pixel by the third brightest of its 3 x 3 neighbourhood."""
    height, width = colour.shape[:2]
    wide = np.pad(colour.max(axis=-1), 1, mode="edge")
    around = np.stack(
        [wide[y : y + height, x : x + width] for y in range(3) for x in range(3)], axis=-1
    )
    bound = np.sort(around, axis=-1)[..., 6]
    own = np.maximum(colour.max(axis=-1), 1e-6)
    return colour * np.minimum(1.0, bound * 1.15 / own)[..., None]


def _filter_round(
    light: Array, features: NDArray[np.floating[Any]], radius: int, spacing: int
) -> Array:
    reach = radius * spacing
    edge = ((reach, reach), (reach, reach), (0, 0))
    light_wide = np.pad(light, edge, mode="edge")
    features_wide = np.pad(features, edge, mode="edge")
    tone = np.log1p(light.mean(axis=-1))
    tone_wide = np.log1p(light_wide.mean(axis=-1))
    height, width = light.shape[:2]
    total, weights = np.zeros_like(light), np.zeros((height, width, 1))
    for dy in range(-reach, reach + 1, spacing):
        for dx in range(-reach, reach + 1, spacing):
            window = (slice(reach + dy, reach + dy + height), slice(reach + dx, reach + dx + width))
            gap = ((features_wide[window] - features) ** 2).sum(axis=-1)
            contrast = ((tone_wide[window] - tone) / 0.16) ** 2
            place = (dx * dx + dy * dy) / (2 * (1.2 * spacing) ** 2)
            weight = np.exp(-gap - contrast - place)[..., None]
            total += weight * light_wide[window]
            weights += weight
    return total / weights


# --- colour --------------------------------------------------------------------------------------


def _linear(srgb: tuple[int, int, int]) -> Array:
    value = np.asarray(srgb, dtype=np.float64) / 255.0
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def _to_srgb8(linear: Array) -> NDArray[np.uint8]:
    # Straight up to the knee, then a shoulder that reaches white only in the limit.
    knee = 0.6
    over = np.maximum(linear - knee, 0.0) / (1.0 - knee)
    value = np.minimum(np.maximum(linear, 0.0), knee) + (1.0 - knee) * over / (1.0 + over)
    value = np.where(value <= 0.0031308, value * 12.92, 1.055 * value ** (1 / 2.4) - 0.055)
    return np.round(value * 255.0).astype(np.uint8)


def _clipped(rgb: Array) -> list[float]:
    return [float(c) for c in np.clip(rgb, 0.0, 0.95)]


def _ambient_tint(rig: Light) -> list[float]:
    return [0.5 + 0.5 * c for c in rig.lamp_rgb]


def _triple(vector: Any) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in vector)
    return x, y, z


def _any_normal(vector: Array) -> Array:
    helper = np.array([0.0, 0.0, 1.0]) if abs(vector[2]) < 0.9 else np.array([0.0, 1.0, 0.0])
    return helper
