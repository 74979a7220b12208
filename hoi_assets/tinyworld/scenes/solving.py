"""Solves the grasp of a group of pictures, and its spoilt twin."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

from hoi_assets.errors import HoiError
from hoi_assets.grasp_specs import GraspSpec, read_grasps
from hoi_assets.taxonomy import Taxonomy, load_taxonomy
from hoi_assets.tinyworld.scenes.groups import Group
from hoi_assets.tinyworld.scenes.hands.grasps import Grasp, solve_grasp
from hoi_assets.tinyworld.scenes.hands.methods import worn_section
from hoi_assets.tinyworld.scenes.objects.catalogue import make_object
from hoi_assets.tinyworld.scenes.objects.shape import ObjectShape, Surface
from hoi_assets.tinyworld.scenes.stage import HandMesh, Stage

MAX_CONTACT_MM, MAX_PENETRATION_MM = 4.0, 5.0
SOLVE_ATTEMPTS = 12


@dataclass(frozen=True, eq=False)  # one world is itself, so that grasps can be kept for it
class World:
    """What drawing reads besides the group: the taxonomy and the grasps' specifications."""

    taxonomy: Taxonomy
    specs: Mapping[str, GraspSpec]

    @property
    def grips(self) -> tuple[str, ...]:
        return tuple(category.grip_phrase for category in self.taxonomy.categories.values())


@lru_cache(maxsize=4)
def load_world(folder: Path) -> World:
    """Read the taxonomy folder once per process."""
    return World(load_taxonomy(folder), read_grasps(folder / "grasps.yaml"))


def solve_group(world: World, group: Group) -> tuple[Grasp, Grasp | None, ObjectShape]:
    """The group's grasp, its spoilt twin where one is planned, and the object held.

    Raises:
        HoiError: when no attempt gives a plausible grasp.
    """
    key = str(group.category)
    spec = world.specs[key]
    rng = group.rng(1)
    kind = group.objects[int(rng.integers(len(group.objects)))]
    last = ""
    for _ in range(SOLVE_ATTEMPTS):
        shape_seed, jitter_seed = (int(seed) for seed in rng.integers(2**31, size=2))
        try:
            shape = _object_for(spec, kind, float(rng.random()), shape_seed)
            solve = partial(
                solve_grasp, key, spec, shape, shape_seed=shape_seed, jitter_seed=jitter_seed
            )
            clean = solve()
            if not _plausible(clean):
                last = f"contact {clean.contact_mm:.1f} mm, depth {clean.penetration_mm:.1f} mm"
                continue
            spoilt = None
            if "defect" in group.plans:
                spoilt = solve(defects=(group.defect,))
            return clean, spoilt, shape
        except HoiError as error:
            last = str(error)
    raise HoiError(
        f"scenes: {key} with {kind} found no plausible grasp in {SOLVE_ATTEMPTS} attempts ({last})",
        f"Adjust '{key}' in grasps.yaml, or take '{kind}' from the category's objects.",
    )


def stage_of_grasp(grasp: Grasp, shape: ObjectShape) -> Stage:
    """What the camera sees of a grasp, in world coordinates."""
    rotation, origin = grasp.object_pose[:3, :3], grasp.object_pose[:3, 3]
    surfaces = tuple(
        Surface(
            part.vertices @ rotation.T + origin, part.faces, part.normals @ rotation.T, part.role
        )
        for part in shape.surfaces
    )
    hands = tuple(HandMesh(hand.vertices, hand.faces, hand.finger) for hand in grasp.hands)
    return Stage(hands, surfaces, grasp.centre, grasp.radius, grasp.support_z, grasp.joints_3d)


def _plausible(grasp: Grasp) -> bool:
    return (
        not grasp.missing_contacts
        and grasp.contact_mm <= MAX_CONTACT_MM
        and grasp.penetration_mm <= MAX_PENETRATION_MM
    )


def _object_for(spec: GraspSpec, kind: str, size: float, shape_seed: int) -> ObjectShape:
    grip = spec.grip_of(kind)
    if grip != "wear":
        return make_object(kind, grip, size)
    section = worn_section(kind, shape_seed)
    return make_object(kind, grip, size, hole=(section.half_x, section.half_y))
