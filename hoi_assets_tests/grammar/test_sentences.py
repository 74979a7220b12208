"""Sentences about interactions are read back as they were written."""

import pytest

from hoi_assets.grammar.captions import MAX_WORDS
from hoi_assets.grammar.plans import SCENARIOS
from hoi_assets.grammar.sentences import Noun, Triple, parse, read_noun, sentence, triples
from hoi_assets_tests.grammar.examples import plans


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_sentence_is_read_back_as_the_plans_components(scenario):
    for plan in plans(scenario):
        assert parse(sentence(plan)) == triples(plan)
        assert 1 <= len(triples(plan)) <= 3
        assert len(sentence(plan).split()) <= MAX_WORDS


def test_sentences_join_clauses_in_several_ways():
    said = [sentence(plan) for scenario in SCENARIOS for plan in plans(scenario)]
    for joiner in (" that ", ", and ", ", while "):
        assert sum(joiner in sentence for sentence in said) > 40
    assert 0.3 < sum("wall" in sentence for sentence in said) / len(said) < 0.5


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a photo of a hand",
        "a right hand holds a red spoon that",
        "a right hand holds a red unicorn",
        "a right hand eats a red apple",
        "a right hand holds a red spoon, and",
        "a right hand holds a red spoon; the spoon stirs in a bowl",
        "grey wall",
        "form form form",
    ],
)
def test_other_text_is_not_parsed(text):
    assert parse(text) is None


def test_parse_forgives_case_spaces_and_full_stop():
    assert parse(" A right hand  holds a red spoon. ") == (
        Triple("a right hand", "holds", "a red spoon"),
    )


def test_nouns_are_read_as_they_are_written():
    for noun in (Noun("box", "orange", 1), Noun("hand", None, 2), Noun("ball", "red", 7)):
        assert read_noun(noun.phrase()) == noun
    assert read_noun("the box") == Noun("box", None, None)
    assert read_noun("seven red ball") is None
