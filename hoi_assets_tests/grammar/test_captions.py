"""Captions of hand poses."""

import random

import pytest

from hoi_assets.grammar.captions import MAX_WORDS, agree, caption
from hoi_assets.grammar.vocabulary import BACKGROUNDS, COLOURS, LIGHTS, OBJECTS, VIEWS

GRIPS = (
    "wraps around",
    "carries {object} on hooked fingers",
    "squeezes {object} between both palms",
)
SLOTS = {
    "side": "right",
    "skin_tone": "brown",
    "grip": GRIPS[0],
    "colour": "red",
    "material": "plastic",
    "object": "bottle",
    "view": "side",
    "light": "soft light",
    "background": "grey wall",
}


def test_full_caption_says_every_slot_in_order():
    assert caption(SLOTS) == (
        "a right hand with brown skin wraps around a red plastic bottle, "
        "seen from the side, soft light, grey wall"
    )


def test_two_hands_take_a_plural_verb_and_the_object_its_place():
    slots = SLOTS | {"side": "both", "grip": GRIPS[2], "colour": "orange", "material": None}
    assert caption(slots).startswith(
        "two hands with brown skin squeeze an orange bottle between both palms,"
    )


@pytest.mark.parametrize(
    ("one", "many"),
    [("presses on", "press on"), ("carries", "carry"), ("pinches", "pinch"), ("hooks", "hook")],
)
def test_verb_agrees_both_ways(one, many):
    assert agree(one, plural=True) == many
    assert agree(many, plural=False) == one


def test_object_alone_has_no_hand_in_its_caption():
    slots = SLOTS | {"side": None, "skin_tone": None, "grip": None}
    assert caption(slots) == "a red plastic bottle, seen from the side, soft light, grey wall"


def test_every_wording_keeps_side_grip_colour_and_object_within_thirty_words():
    rng = random.Random(3)
    wordings = set()
    for seed in range(300):
        slots = SLOTS | {
            "side": rng.choice(("left", "right")),
            "grip": rng.choice(GRIPS),
            "colour": rng.choice(COLOURS),
            "object": rng.choice(OBJECTS),
            "view": rng.choice(VIEWS),
            "light": rng.choice(LIGHTS),
            "background": rng.choice(BACKGROUNDS),
        }
        text = caption(slots, seed)
        words = text.replace(",", "").split()
        assert len(words) <= MAX_WORDS
        assert slots["colour"] in words and slots["object"] in words
        assert f"{slots['side']} hand" in text
        assert slots["grip"].split()[0] in words
        wordings.add(caption(SLOTS, seed))
    assert len(wordings) >= 10


def test_equal_seeds_give_equal_words():
    assert [caption(SLOTS, seed) for seed in range(20)] == [
        caption(SLOTS, seed) for seed in range(20)
    ]
