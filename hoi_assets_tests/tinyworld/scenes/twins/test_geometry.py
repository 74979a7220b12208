"""Spoilt hands held against their clean twins; needs the extra `scenes`."""

import numpy as np
import pytest

pytest.importorskip("anny")

from hoi_assets.tinyworld.scenes.groups import Group
from hoi_assets.tinyworld.scenes.shards import TAXONOMY
from hoi_assets.tinyworld.scenes.solving import load_world, solve_group
from hoi_assets.tinyworld.scenes.twins.geometry import (
    FOREARM,
    GEOMETRY_DEFECTS,
    clean_hands,
    spoil_hand,
)

# What a defect of one finger, of the forearm or of the object leaves as it is.
KEPT = {
    "missing_finger": (-1, FOREARM),
    "wrong_length": (FOREARM,),
    "bent_joint": (FOREARM,),
    "fused_fingers": (0, FOREARM),
    "doubled_thumb": (1, 2, 3, 4),
    "second_palm": (FOREARM,),
    "floating": (-1, 0, 1, 2, 3, 4, FOREARM),
    "penetrating": (-1, 0, 1, 2, 3, 4, FOREARM),
}


@pytest.fixture(scope="module")
def grasp():
    group = Group("twins", 3, 0, "power_sphere", ("ball",), "floating", ("floating",))
    return solve_group(load_world(TAXONOMY), group)[0]


@pytest.mark.parametrize("kind", GEOMETRY_DEFECTS)
def test_defect_spoils_something_and_leaves_the_rest(grasp, kind):
    (clean,) = clean_hands(grasp)
    spoilt = spoil_hand(kind, grasp, np.random.default_rng(5))
    moved = not np.allclose(spoilt.object_pose, grasp.object_pose)
    count = len(clean.vertices)
    assert moved == (kind in ("floating", "penetrating"))
    assert moved or not np.array_equal(spoilt.hand.vertices, clean.vertices)
    for part in KEPT.get(kind, ()):
        rows = clean.finger == part
        away = np.linalg.norm(spoilt.hand.vertices[:count][rows] - clean.vertices[rows], axis=1)
        # Skin beside a joint follows both of its bones.
        assert np.median(away) < 1e-6, part


@pytest.mark.parametrize("kind", ["extra_finger", "doubled_thumb", "second_palm"])
def test_what_is_too_much_is_marked(grasp, kind):
    (clean,) = clean_hands(grasp)
    spoilt = spoil_hand(kind, grasp, np.random.default_rng(5))
    assert spoilt.added.sum() == len(spoilt.hand.vertices) - len(clean.vertices) > 50
    assert set(np.unique(spoilt.hand.finger)) <= {FOREARM, -1, 0, 1, 2, 3, 4}


def test_equal_seeds_spoil_alike(grasp):
    for kind in GEOMETRY_DEFECTS:
        one, two = (spoil_hand(kind, grasp, np.random.default_rng(8)) for _ in range(2))
        assert np.array_equal(one.hand.vertices, two.hand.vertices)
