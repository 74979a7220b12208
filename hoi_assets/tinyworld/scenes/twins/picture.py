"""Renders twins: a spoilt picture, and the same scene, camera and light not spoilt."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hoi_assets.grammar.captions import caption
from hoi_assets.grammar.vocabulary import VIEWS
from hoi_assets.hashing import digest_pixels
from hoi_assets.tinyworld.scenes.camera import Camera, aim
from hoi_assets.tinyworld.scenes.false_captions import false_claims_for, with_false_claim
from hoi_assets.tinyworld.scenes.groups import Group
from hoi_assets.tinyworld.scenes.hands.grasps import Grasp
from hoi_assets.tinyworld.scenes.objects.shape import ObjectShape
from hoi_assets.tinyworld.scenes.render import (
    FAST,
    PICTURE_SIZE,
    Mask,
    Quality,
    Render,
    View,
    trace_view,
    view_stage,
)
from hoi_assets.tinyworld.scenes.rigid import Array
from hoi_assets.tinyworld.scenes.sample import draw_words, is_clear, look_of
from hoi_assets.tinyworld.scenes.solving import World, solve_group, stage_of_grasp
from hoi_assets.tinyworld.scenes.stage import HandMesh, Stage
from hoi_assets.tinyworld.scenes.twins.geometry import (
    FOREARM,
    GEOMETRY_DEFECTS,
    SpoiltHand,
    clean_hands,
    finger_tips,
    spoil_hand,
)
from hoi_assets.tinyworld.scenes.twins.smears import (
    FOREARM_PART,
    PALM_PART,
    Parts,
    grow_together,
    melt,
)
from hoi_assets.tinyworld.scenes.vocabulary import PARTS, TWIN_DEFECTS

# A defect counts where it can be seen: on so many pixels of 128 x 128, and so much of the hand.
MIN_DEFECT_PIXELS, MIN_DEFECT_SHARE = 150, 0.06
DIFFERENT = 20  # of 255, in the channel that differs most
MIN_FINGER, MIN_TIP = 60, 25  # pixels at 128 px, of a finger and of a tip that must show
MIN_FLOATING_SHARE = 0.5  # of the object that still shows
MIN_FACING = 0.7  # cosine between the camera's direction and the plane in which a defect shows
MARGIN = 0.08  # of the picture's side, round a wrist that must show
ATTEMPTS = 9
WEBP_OPTIONS = {"quality": 90, "method": 6}
_SMEARS = {"melted_hand": melt, "fused_object": grow_together}


@dataclass(frozen=True)
class Twins:
    """A pair of pictures.

    Attributes:
        parts, twin_parts: part labels (h, w), places in `PARTS`.
        defect_map: where the renders differ (h, w).
        defect_area: pixels of it that show hand or object in either picture.
    """

    defect: str
    view: View
    picture: Image.Image
    twin: Image.Image
    parts: Parts
    twin_parts: Parts
    defect_map: Mask
    defect_area: int


def render_twins(
    world: World, group: Group, quality: Quality = FAST
) -> Iterator[tuple[Twins, dict[str, Any]]]:
    """Render the pairs of one group, in order, each with its row: the columns of `TWIN_SCENES`.

    Where the planned defect does not show from any side, another kind takes its place; a pair on
    which none shows is left out.

    Raises:
        HoiError: no grasp is found.
    """
    grasp, _, shape = solve_group(world, group)
    for number, planned in enumerate(group.plans):
        words = draw_words(group.rng(2, number))
        pair = _pair(group, number, planned, grasp, shape, words, quality)
        if pair is not None:
            yield pair, _row(world, group, number, pair, words, grasp, shape)


def counts_as_visible(defect_area: float, hand_area: int, size: int = PICTURE_SIZE) -> bool:
    """Whether a defect of so many pixels can be seen on a hand of so many."""
    least = MIN_DEFECT_PIXELS * (size / PICTURE_SIZE) ** 2
    return defect_area >= max(least, MIN_DEFECT_SHARE * hand_area)


def _pair(
    group: Group,
    number: int,
    planned: str,
    grasp: Grasp,
    shape: ObjectShape,
    words: dict[str, Any],
    quality: Quality,
) -> Twins | None:
    others = [kind for kind in TWIN_DEFECTS if kind != planned]
    order = [words["view"], *(view for view in VIEWS if view != words["view"])]
    for kind in (planned, *group.rng(5, number).permutation(others).tolist()):
        for attempt in range(ATTEMPTS):
            rng = group.rng(4, number, TWIN_DEFECTS.index(kind), attempt)
            spoilt = spoil_hand(kind, grasp, rng) if kind in GEOMETRY_DEFECTS else None
            if spoilt is None and kind in GEOMETRY_DEFECTS:
                break
            words["view"] = order[attempt * len(order) // ATTEMPTS]
            scene = _Scene(grasp, shape, words, attempt, quality)
            pair = _smear(kind, scene, rng) if spoilt is None else _spoil(kind, scene, spoilt)
            if pair is not None:
                return pair
    return None


@dataclass(frozen=True)
class _Scene:
    """A solved grasp as one camera sees it."""

    grasp: Grasp
    shape: ObjectShape
    words: Mapping[str, Any]
    attempt: int
    quality: Quality

    @cached_property
    def clean(self) -> Stage:
        return self._turned(stage_of_grasp(self.grasp, self.shape), clean_hands(self.grasp))

    def spoilt(self, spoilt: SpoiltHand) -> Stage:
        moved = stage_of_grasp(replace(self.grasp, object_pose=spoilt.object_pose), self.shape)
        return self._turned(moved, (spoilt.hand, *clean_hands(self.grasp)[1:]))

    def _turned(self, stage: Stage, hands: tuple[HandMesh, ...]) -> Stage:
        stage = replace(stage, hands=hands)
        return stage.mirrored() if self.words["mirrored"] else stage

    @property
    def direction(self) -> Array:
        """From the scene to the camera, before mirroring."""
        return np.asarray(self.grasp.views[self.words["view"]], dtype=np.float64)

    @cached_property
    def camera(self) -> Camera:
        flip = np.array([-1.0 if self.words["mirrored"] else 1.0, 1.0, 1.0])
        return aim(self.clean, self.direction * flip, self.words["seed"] + self.attempt)

    def least(self, pixels: int) -> float:
        """A number of pixels of 128 x 128, of this size's."""
        return pixels * (self.quality.size / PICTURE_SIZE) ** 2

    def view(self, stage: Stage) -> View:
        return view_stage(stage, self.camera, look_of(self.words), self.quality)


def _spoil(kind: str, scene: _Scene, spoilt: SpoiltHand) -> Twins | None:
    """A pair with a defect in its geometry; None where it does not count."""
    if spoilt.plane is not None:
        away = scene.direction / np.linalg.norm(scene.direction)
        if abs(float(spoilt.plane @ away)) < MIN_FACING:
            return None
    clean, marred = _before_one_wall(scene.clean, scene.spoilt(spoilt), scene.camera)
    whole = scene.view(clean)
    shown = _fingers(whole)
    if not is_clear(whole) or any(
        shown[each] < scene.least(spoilt.least_finger) for each in spoilt.fingers
    ):
        return None
    other = scene.view(marred)
    if not _promising(kind, spoilt, whole, other, scene):
        return None
    subject = whole.hand_mask | whole.object_mask | other.hand_mask | other.object_mask
    twin, picture = trace_view(whole, scene.quality), trace_view(other, scene.quality).image
    return _checked(kind, twin, picture, part_labels(other), subject)


def _smear(kind: str, scene: _Scene, rng: np.random.Generator) -> Twins | None:
    """A pair whose spoilt picture is made from its twin's pixels; None where it does not count."""
    whole = scene.view(scene.clean)
    if not is_clear(whole):
        return None
    twin = trace_view(whole, scene.quality)
    smeared = _SMEARS[kind](twin.image, part_labels(whole), rng)
    if smeared is None:
        return None
    subject = whole.hand_mask | whole.object_mask
    return _checked(kind, twin, smeared.image, smeared.parts, subject)


def _promising(kind: str, spoilt: SpoiltHand, whole: View, other: View, scene: _Scene) -> bool:
    """Whether the defect itself shows, before light is traced; changes beside it do not count."""
    after, area, size = part_labels(other), int(whole.hand_mask.sum()), scene.quality.size
    if not counts_as_visible(1.3 * int((part_labels(whole) != after).sum()), area, size):
        return False
    counted, tips = whole, finger_tips(scene.grasp.states[0].rig)
    own = np.zeros(len(tips), dtype=bool)
    if spoilt.added is not None:
        counted, tips, own = other, spoilt.tips, spoilt.added
        if not counts_as_visible(1.3 * int(_pixels(other, own).sum()), area, size):
            return False
    shown = _fingers(counted, tips & ~own)
    if (shown[1:] >= scene.least(MIN_TIP)).sum() < spoilt.least_tips:
        return False
    if spoilt.thumb and _fingers(counted, ~own)[0] < scene.least(MIN_FINGER):
        return False
    if spoilt.stump is not None:
        palm = int((after == PALM_PART).sum())
        return bool(_fingers(other)[spoilt.stump] >= scene.least(MIN_TIP)) and (
            palm >= scene.least(2 * MIN_FINGER)
        )
    if spoilt.wrist:
        column, row = other.joints_2d[0].astype(int)
        inside = MARGIN * size < min(column, row) and max(column, row) < (1 - MARGIN) * size
        return bool(inside and after[row, column] in (PALM_PART, FOREARM_PART))
    if kind == "floating":
        return int(other.object_mask.sum()) >= MIN_FLOATING_SHARE * int(whole.object_mask.sum())
    if kind == "penetrating":
        swapped = (whole.hand_mask & other.object_mask) | (whole.object_mask & other.hand_mask)
        return counts_as_visible(0.6 * int(swapped.sum()), area, size)
    return True


def _pixels(view: View, vertices: Mask) -> Mask:
    """Which pixels that show the first hand show one of its vertices (v,); (n,)."""
    faces = view.stage.hands[0].faces[:, 0]
    shown: Mask = vertices[faces][view.seen.face[view.seen.where("hand0")]]
    return shown


def _fingers(view: View, vertices: Mask | None = None) -> NDArray[np.int64]:
    """Pixels that show each finger of the first hand (5,), or of `vertices` (v,) alone."""
    hand = view.stage.hands[0]
    finger = hand.finger[hand.faces[:, 0]][view.seen.face[view.seen.where("hand0")]]
    if vertices is not None:
        finger = finger[_pixels(view, vertices)]
    return np.bincount(finger[finger >= 0].astype(np.int64), minlength=5)[:5]


def _checked(
    kind: str, twin: Render, picture: Image.Image, parts: Parts, subject: Mask
) -> Twins | None:
    """The pair, if its pictures differ enough where they show hand or object."""
    gap = np.abs(np.asarray(picture, dtype=np.int16) - np.asarray(twin.image, dtype=np.int16))
    differs: NDArray[np.bool_] = gap.max(axis=-1) >= DIFFERENT
    area = int((differs & subject).sum())
    if not counts_as_visible(area, int(twin.view.hand_mask.sum()), parts.shape[0]):
        return None
    return Twins(kind, twin.view, picture, twin.image, parts, part_labels(twin.view), differs, area)


def part_labels(view: View) -> Parts:
    """What part each pixel shows (h, w), as places in `PARTS`."""
    parts = np.zeros(view.seen.shape.shape, dtype=np.uint8)
    parts[view.object_mask] = PARTS.index("object")
    for number, hand in enumerate(view.stage.hands):
        here = view.seen.where(f"hand{number}")
        finger = hand.finger[hand.faces[:, 0]][view.seen.face[here]].astype(np.int64)
        # PARTS names the palm, then the fingers.
        label = finger + 2
        label[finger == FOREARM] = PARTS.index("forearm")
        parts[here] = label
    return parts


def _before_one_wall(one: Stage, other: Stage, camera: Camera) -> tuple[Stage, Stage]:
    """Both stages before the same wall, behind whichever reaches farther."""
    toward = -camera.axes()[2]
    normal = np.array([0.0, 0.0, 1.0]) if abs(toward[2]) > 0.5 else toward * [1.0, 1.0, 0.0]
    normal = normal / np.linalg.norm(normal)
    points = np.concatenate(
        [hand.vertices for stage in (one, other) for hand in stage.hands]
        + [part.vertices for stage in (one, other) for part in stage.surfaces]
    )
    near = points[np.linalg.norm(points - one.centre, axis=1) < 1.6 * one.radius]
    # `wall_planes` leaves at most this share of the radius behind what is farthest.
    behind = 0.45 * one.radius - float(((near - one.centre) @ normal).min())
    return replace(one, wall_m=behind), replace(other, wall_m=behind)


def _row(
    world: World,
    group: Group,
    number: int,
    pair: Twins,
    words: Mapping[str, Any],
    grasp: Grasp,
    shape: ObjectShape,
) -> dict[str, Any]:
    side = "both" if len(grasp.hands) == 2 else ("left" if words["mirrored"] else "right")
    grip = world.taxonomy.categories[str(group.category)].grip_phrase
    slots = dict(words) | {"side": side, "grip": grip, "object": shape.kind}
    picture, twin = _webp(pair.picture), _webp(pair.twin)
    rng = random.Random(int(words["seed"]))
    lie = rng.choice(false_claims_for(slots))
    return {
        "scene_id": f"{group.split}-{group.first + number:06d}",
        "split": group.split,
        "defect": pair.defect,
        "caption": caption(slots, int(words["seed"])),
        "false_caption": caption(
            with_false_claim(slots, lie, rng, world.grips), int(words["seed"])
        ),
        "lie": lie,
        "category": group.category,
        **{name: slots[name] for name in ("object", "colour", "material", "skin_tone", "side")},
        "hands": len(grasp.hands),
        **{name: slots[name] for name in ("view", "light", "background", "seed")},
        "hand_area": int(pair.view.hand_mask.sum()),
        "defect_area": pair.defect_area,
        "camera": pair.view.camera.as_list(),
        "picture": picture,
        "twin": twin,
        "defect_map": _png(Image.fromarray(pair.defect_map).convert("1")),
        "parts": _png(Image.fromarray(pair.parts)),
        "twin_parts": _png(Image.fromarray(pair.twin_parts)),
        "grasp_id": group.grasp_id,
        "digest": digest_pixels(Image.open(io.BytesIO(picture))),
        "twin_digest": digest_pixels(Image.open(io.BytesIO(twin))),
    }


def _webp(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", **WEBP_OPTIONS)
    return buffer.getvalue()


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
