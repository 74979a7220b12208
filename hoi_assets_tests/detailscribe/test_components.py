"""Components, the published flat form, what builds on what, and loops."""

import doctest
from typing import Any

import pytest
from pydantic import ValidationError

from hoi_assets.detailscribe import (
    components,
    craft,
    decomposers,
    flat_form,
    phrases,
    prompt_extension,
    selection,
)
from hoi_assets.detailscribe.components import (
    IS_SHOWN,
    Component,
    build_component,
    dependencies,
    find_cycle,
)
from hoi_assets.detailscribe.flat_form import from_flat, to_flat
from hoi_assets.detailscribe.phrases import split_phrase
from hoi_assets.errors import HoiError
from hoi_assets.grammar.plans import SCENARIOS, make_plan
from hoi_assets.grammar.sentences import triples


@pytest.mark.parametrize(
    "module", [components, craft, decomposers, flat_form, phrases, prompt_extension, selection]
)
def test_docstring_examples_hold(module: Any) -> None:
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_components_of_the_grammar_come_back_from_the_flat_form(scenario: str) -> None:
    for seed in range(200):
        told = triples(make_plan(scenario, seed))
        made = [build_component(one.subject, one.relation, one.object) for one in told]
        back = from_flat(to_flat(made))
        assert list(back) == made


@pytest.mark.parametrize(
    ("phrase", "parts"),
    [
        ("hand hold the grip of a saw", ("hand", "hold", "the grip of a saw")),
        ("pan is on a tray", ("pan", "is on", "a tray")),
        ("melon rest on table", ("melon", "rest on", "table")),
        ("the brush touches the canvas", ("the brush", "touches", "the canvas")),
        ("a shelf made from candies", ("a shelf", "made from", "candies")),
        ("the robot slowly waves", ("the robot", "slowly waves", "")),
        ("ants on the surrounding walls swing", ("ants on the surrounding walls", "swing", "")),
        ("the cup is being held by a hand", ("the cup", "is being held by", "a hand")),
        ("a chef blends soup", ("a chef", "blends", "soup")),
        ("a red ball", ("a red ball", IS_SHOWN, "")),
        ("ball", ("ball", IS_SHOWN, "")),
    ],
)
def test_phrases_are_split_at_their_verb(phrase: str, parts: tuple[str, str, str]) -> None:
    assert split_phrase(phrase) == parts


@pytest.mark.parametrize(
    "flat",
    [
        "(paw hold brush) + (knife carve melon) + (melon rest on table)",
        "(a red ball)",
        "(ants march) + (a red ball) + (the hand is holding the cup)",
    ],
)
def test_flat_text_keeps_its_words(flat: str) -> None:
    assert to_flat(from_flat(flat)) == flat


def test_published_reply_with_its_concept_is_read() -> None:
    plain = from_flat("(paw hold brush) + (melon rest on table)")
    assert from_flat(" <(concept: carve-it) = (paw hold brush) + (melon rest on table)>") == plain
    assert from_flat("(Concept: carve) =(paw hold brush)\n+\n(melon rest on table)") == plain


@pytest.mark.parametrize(
    ("text", "place", "problem"),
    [
        ("", 0, "no part in brackets"),
        ("a holds b", 1, "'a' outside of brackets"),
        ("(a holds b", 1, "'(' is not closed"),
        ("(a holds b) + ", 13, "'+' with nothing after it"),
        ("+ (a holds b)", 1, "'+' with nothing before it"),
        ("(a holds b) (b stirs c)", 13, "no '+' before this part"),
        ("(a holds (b))", 10, "'(' within brackets"),
        ("(a holds b))", 12, "')' without '('"),
        ("(a holds b) + ()", 16, "is empty"),
        ("(a holds b) and (b stirs c)", 13, "'a' outside of brackets"),
        ("(" + "very " * 60 + "long cup)", 2, "at most 120 are allowed"),
    ],
)
def test_flat_text_that_cannot_be_read_is_told_where(text: str, place: int, problem: str) -> None:
    with pytest.raises(HoiError) as caught:
        from_flat(text)
    assert caught.value.what.startswith(f"flat form, character {place}: ")
    assert problem in caught.value.what
    assert len(caught.value.what) < 300


@pytest.mark.parametrize(
    "change",
    [
        {"subject": " "},
        {"subject": "a (left) hand"},
        {"relation": ""},
        {"object": "cup\x00"},
        {"object": "x" * 200},
        {"question": "is it there"},
        {"question": "?" * 400},
        {"mood": "calm"},
    ],
)
def test_component_that_cannot_be_said_or_asked_is_refused(change: dict[str, str]) -> None:
    said = {"subject": "a", "relation": "holds", "object": "b", "question": "does a hold b?"}
    with pytest.raises(ValidationError):
        Component(**{**said, **change})


def test_component_builds_on_the_earlier_ones_that_bring_its_things_in() -> None:
    made = from_flat(
        "(a left hand holds a blue bowl) + (a right hand holds a red spoon)"
        " + (the spoon stirs in the bowl) + (the wall is behind a lamp)"
    )
    assert dependencies(made) == ((), (), (0, 1), ())
    shown = [build_component("the lamp", IS_SHOWN), build_component("a lamp", "is on", "a desk")]
    assert dependencies(shown) == ((), (0,))
    assert dependencies(list(reversed(shown))) == ((), ())


@pytest.mark.parametrize(
    ("flat", "loop"),
    [
        ("(the cup touches a cup)", "to itself"),
        ("(a is on b) + (b is on a)", 'a circle of "is on": a, b'),
        ("(a is on b) + (c holds a) + (b is on c) + (c is on a)", 'a circle of "is on": a, b, c'),
        ("(a red cup is on a box) + (the box is on the cup)", "a circle"),
    ],
)
def test_loops_are_found(flat: str, loop: str) -> None:
    assert loop in (find_cycle(from_flat(flat)) or "")


@pytest.mark.parametrize(
    "flat",
    ["(a holds b) + (b touches a)", "(a is on b) + (b is on c) + (a is on c)", "(a waves)"],
)
def test_ways_that_do_not_return_are_no_loops(flat: str) -> None:
    assert find_cycle(from_flat(flat)) is None
