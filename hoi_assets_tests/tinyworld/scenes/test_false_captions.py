"""False captions."""

import random

import pytest

from hoi_assets.errors import HoiError
from hoi_assets.grammar.captions import caption
from hoi_assets.tinyworld.scenes.false_captions import (
    FALSE_CLAIMS,
    false_claims_for,
    with_false_claim,
)
from hoi_assets_tests.grammar.test_captions import GRIPS, SLOTS


@pytest.mark.parametrize("kind", FALSE_CLAIMS)
def test_false_claim_changes_its_slot_only(kind):
    for seed in range(30):
        told = with_false_claim(SLOTS, kind, random.Random(seed), GRIPS)
        changed = {slot for slot in SLOTS if told[slot] != SLOTS[slot]}
        expected = {
            "wrong_object": "object",
            "wrong_colour": "colour",
            "wrong_pose": "grip",
        }.get(kind, "side")
        assert changed == {expected}
        assert caption(told, seed) != caption(SLOTS, seed)


def test_no_false_side_with_two_hands_or_none():
    assert "wrong_side" not in false_claims_for(SLOTS | {"side": "both"})
    assert set(false_claims_for(SLOTS | {"side": None})) == {"wrong_object", "wrong_colour"}
    with pytest.raises(HoiError, match="wrong_side"):
        with_false_claim(SLOTS | {"side": "both"}, "wrong_side", random.Random(0))


def test_wrong_pose_without_other_grips_names_the_remedy():
    with pytest.raises(HoiError, match="grips="):
        with_false_claim(SLOTS, "wrong_pose", random.Random(0))
