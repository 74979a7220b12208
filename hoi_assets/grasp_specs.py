"""How each category grasps an object in the tiny world: schema and reader of `grasps.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel

from hoi_assets.yaml_file import read_yaml

Vector = tuple[float, float, float]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ObjectFrame(_Entry):
    """Where the object goes, in the hand frame (x thumb side, y fingertips, z out of the palm).

    centre: metres, for a hand whose middle knuckle is 0.113 m from the wrist; scaled with the hand.
    thin, long: hand-frame directions of the object's x and z axes. approach: the way the object
    moves until it touches `touches` (bones, whole fingers or `palm`). size_range: allowed
    2 * half_extents[0], metres.
    """

    centre: Vector
    thin: Vector
    long: Vector
    approach: Vector = (0.0, 0.0, -1.0)
    touches: tuple[str, ...] = ("palm",)
    size_range: tuple[float, float]


class Closing(_Entry):
    """How one finger closes: degrees its three joints turn per step, and how far at most.

    base_first: the first joint closes alone until the finger touches, then the other two.
    """

    speeds: Vector = (1.0, 1.1, 0.7)
    limits: Vector = (95.0, 105.0, 75.0)
    base_first: bool = False


class Pad(_Entry):
    """A place of the hand that opposes the object: a finger's pad, or the side of a bone.

    face: direction in the object frame of the surface it presses on; along: metres from the grip
    point along the object's z; across: along its y (null: anywhere).
    """

    bone: str
    part: Literal["pad", "radial_side"] = "pad"
    face: Vector
    along: float = 0.0
    across: float | None = 0.0


class GraspSpec(_Entry):
    """One category's grasp. Angles are degrees per bone: flexion, abduction, twist.

    method: `wrap` closes the fingers joint by joint, `pinch` brings pads into opposition first,
    `rest` lays the object on the open hand, `press` puts the index tip on a surface, `wear` puts
    the object round a bone, `two_hands` holds it between the palms.
    contacts: bones, whole fingers, `palm` or `wrist`, each of which must touch; object_contacts:
    exceptions by object. rests_on: a bone the object leans on beside its start.
    up, front: hand-frame directions that become the world's +z and the camera's side; views: world
    directions from the object to the camera. focus: how far the picture's centre moves from the
    hand to the object, 0..1; zoom: how much closer than the whole hand; reach: metres of the object
    round the grip that belong in the picture.
    object_grip: the frame the object is made in (`objects.make_object`); object_grips: exceptions
    by object.
    """

    opposition: Literal["pad", "palm", "side", "none"]
    method: Literal["wrap", "pinch", "rest", "press", "wear", "two_hands"]
    hands: Literal[1, 2] = 1
    contacts: tuple[str, ...]
    object_contacts: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    object: ObjectFrame
    pre_pose: dict[str, Vector]
    closing: dict[str, Closing] = Field(default_factory=dict)
    pads: tuple[Pad, ...] = ()
    rests_on: str | None = None
    up: Vector
    front: Vector
    views: dict[Literal["front", "side", "above"], Vector]
    focus: float = Field(default=0.0, ge=0.0, le=1.0)
    zoom: float = Field(default=1.0, gt=0.0)
    reach: float = Field(default=0.10, gt=0.0)
    object_grip: str
    object_grips: dict[str, str] = Field(default_factory=dict)

    def contacts_of(self, kind: str) -> tuple[str, ...]:
        """Parts of the hand that must touch an object of this kind."""
        return self.object_contacts.get(kind, self.contacts)

    def grip_of(self, kind: str) -> str:
        """The grip `objects.make_object` builds this category's object for."""
        return self.object_grips.get(kind, self.object_grip)


class _Grasps(RootModel[dict[str, GraspSpec]]):
    """The file as a whole: a grasp by category."""


def read_grasps(path: Path) -> dict[str, GraspSpec]:
    """Read `grasps.yaml`.

    Raises:
        YamlError: naming file, line and field of every mistake found.
    """
    remedy = "correct the lines named; fields are those of `GraspSpec` in hoi_assets/grasp_specs.py"
    return read_yaml(path, _Grasps, remedy, "the grasps").root
