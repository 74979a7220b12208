"""CRAFT-like refinement: what is asked, what is edited, when it ends."""

import pytest

from hoi_assets.detailscribe.craft import (
    Answers,
    Round,
    all_satisfied,
    build_questions,
    decide_next_round,
    edit_prompt,
    failed_components,
    open_questions,
)
from hoi_assets.detailscribe.flat_form import from_flat

PROMPT = "a hand holds a spoon, and the spoon stirs in a bowl that is on a box"
PARTS = from_flat("(a hand holds a spoon) + (the spoon stirs in a bowl) + (the bowl is on a box)")
HOLDING, STIRRING, LYING = (
    "a hand holds a spoon",
    "the spoon stirs in a bowl",
    "the bowl is on a box",
)


def rounds(*answers: Answers) -> list[Round]:
    """Rounds as the loop makes them, each with the prompt that the one before asked for."""
    made: list[Round] = []
    for answer in answers:
        prompt = decide_next_round(PROMPT, PARTS, made).prompt if made else PROMPT
        assert prompt is not None
        made.append(Round(prompt, answer))
    return made


def all_yes() -> dict[int, bool]:
    return dict.fromkeys(range(3), True)


def test_questions_depend_as_components_do() -> None:
    assert [question.depends_on for question in build_questions(PARTS)] == [(), (0,), (1,)]


def test_question_is_asked_only_when_those_it_depends_on_are_satisfied() -> None:
    assert [question.number for question in open_questions(PARTS, {})] == [0]
    assert [question.number for question in open_questions(PARTS, {0: True})] == [1]
    assert open_questions(PARTS, {0: True, 1: False}) == ()
    assert open_questions(PARTS, {0: False}) == ()
    assert open_questions(PARTS, all_yes()) == ()


def test_only_what_was_asked_and_answered_no_has_failed() -> None:
    assert failed_components({0: True, 1: False}) == (1,)
    assert not all_satisfied(PARTS, {0: True, 1: True})
    assert all_satisfied(PARTS, all_yes())


def test_only_what_fails_is_edited() -> None:
    step = decide_next_round(PROMPT, PARTS, rounds({0: True, 1: False}))
    assert step.prompt == f"{PROMPT}, {STIRRING}" and step.stop is None


def test_given_correction_is_said_instead_of_the_component() -> None:
    step = decide_next_round(
        PROMPT, PARTS, rounds({0: False}), corrections={0: "fingers round a spoon"}
    )
    assert step.prompt == f"{PROMPT}, fingers round a spoon"


def test_newest_failure_comes_first_and_former_ones_stay() -> None:
    made = rounds({0: False}, {0: True, 1: False})
    assert edit_prompt(PROMPT, PARTS, made) == f"{PROMPT}, {STIRRING}, {HOLDING}"
    made = rounds({0: False}, {0: True, 1: False}, {0: True, 1: True, 2: False})
    assert (
        decide_next_round(PROMPT, PARTS, made).prompt == f"{PROMPT}, {LYING}, {STIRRING}, {HOLDING}"
    )


def test_it_stops_when_everything_is_satisfied() -> None:
    assert decide_next_round(PROMPT, PARTS, rounds(all_yes())).stop == "satisfied"
    assert decide_next_round(PROMPT, PARTS, rounds({0: False}, all_yes())).stop == "satisfied"


def test_it_stops_when_an_edit_would_change_nothing() -> None:
    step = decide_next_round(PROMPT, PARTS, rounds({0: False}, {0: False}))
    assert step.prompt is None and step.stop == "no_change"


def test_it_stops_after_three_edits() -> None:
    answers: list[Answers] = [
        {0: False},
        {0: True, 1: False},
        {0: True, 1: True, 2: False},
    ]
    assert decide_next_round(PROMPT, PARTS, rounds(*answers)).stop is None
    assert decide_next_round(PROMPT, PARTS, rounds(*answers, {0: False})).stop == "max_rounds"
    assert decide_next_round(PROMPT, PARTS, rounds(*answers[:2]), max_rounds=1).stop == "max_rounds"
    assert decide_next_round(PROMPT, PARTS, rounds(answers[0]), max_rounds=0).stop == "max_rounds"


def test_it_stops_when_the_prompt_leaves_no_room() -> None:
    step = decide_next_round(PROMPT, PARTS, rounds({0: False}), max_words=18)
    assert step.stop == "no_room"


def test_unasked_questions_and_missing_rounds_are_errors() -> None:
    with pytest.raises(ValueError, match=r"components \[1\]"):
        decide_next_round(PROMPT, PARTS, rounds({0: True}))
    with pytest.raises(ValueError, match="no round yet"):
        decide_next_round(PROMPT, PARTS, [])


def test_no_component_is_satisfied_at_once() -> None:
    assert decide_next_round(PROMPT, [], [Round(PROMPT, {})]).stop == "satisfied"
