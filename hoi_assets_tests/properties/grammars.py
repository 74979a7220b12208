"""The built-in grammar reads back whatever it writes."""

from hypothesis import strategies as st

from hoi_assets.grammar.captions import MAX_WORDS, caption
from hoi_assets.grammar.plans import SCENARIOS, make_plan, plan_from_json
from hoi_assets.grammar.questions import holds
from hoi_assets.grammar.sentences import parse, sentence, triples
from hoi_assets.grammar.vocabulary import (
    BACKGROUNDS,
    COLOURS,
    LIGHTS,
    MATERIALS,
    OBJECTS,
    SKIN_TONES,
    VIEWS,
)
from hoi_assets.ppv.slots import words_named
from hoi_assets_tests.properties.examples import for_all

words = {
    "colour": COLOURS,
    "material": MATERIALS,
    "skin_tone": SKIN_TONES,
    "side": ("left", "right"),
    "view": VIEWS,
    "light": LIGHTS,
    "background": BACKGROUNDS,
    "object": OBJECTS,
    "grip": ("wraps around", "pinches", "presses on", "carries {object} on hooked fingers"),
}
slots = st.fixed_dictionaries({name: st.sampled_from(sorted(v)) for name, v in words.items()})


@for_all(st.sampled_from(SCENARIOS), st.integers(0, 2**64))
def sentences_are_read_back(scenario: str, seed: int) -> None:
    plan = make_plan(scenario, seed)
    said = sentence(plan)
    assert parse(said) == triples(plan)
    assert len(said.split()) <= MAX_WORDS
    assert plan_from_json(plan.as_json()) == plan
    assert all(holds(triple, plan) for triple in triples(plan))


@for_all(slots)
def captions_are_read_back(said: dict[str, str]) -> None:
    """The full form names every slot, and nothing else of the vocabulary."""
    text = caption(said)
    assert len(text.split()) <= MAX_WORDS
    named = words_named(text)
    for slot in ("colour", "material", "skin_tone", "side", "view", "light", "background"):
        assert named.get(slot) == (said[slot],), f"{slot} of {text!r}"
    assert said["object"] in text


@for_all(
    st.text(max_size=80)
    | st.lists(
        st.sampled_from(["a", "the", "red", "hand", "holds", ",", "that", "and", "ball"])
    ).map(" ".join)
)
def any_text_is_parsed_or_not(text: str) -> None:
    found = parse(text)
    assert found is None or found
