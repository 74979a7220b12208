"""The words of refinement in the manner of CRAFT (arXiv 2512.20362): functions over answers.

A round draws a picture and answers yes/no questions about it. A question is asked only where those
it depends on were answered yes. What fails, and only that, is said again behind the prompt, the
newest first; rounds end when everything holds, when an edit would change nothing, or after
`max_rounds` edits. Round 0 is the initial picture.

    answers = {}
    while questions := askable(components, answers):
        answers |= ask(picture, questions)             # the caller's VQA model
    step = next_step(prompt, components, [*rounds, Round(drawn_prompt, answers)])
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from hoi_assets.detailscribe.components import Component, dependencies
from hoi_assets.detailscribe.critique import MAX_WORDS, NoRoom, extended

MAX_ROUNDS = 3

Stop = Literal["satisfied", "max_rounds", "no_change", "no_room"]
Answers = Mapping[int, bool]


@dataclass(frozen=True)
class Question:
    """A yes/no question about a picture. `number` is its component's, from 0."""

    number: int
    text: str
    depends_on: tuple[int, ...]


@dataclass(frozen=True)
class Round:
    """One picture's prompt and the answers about it, by component number; True is yes."""

    prompt: str
    answers: Answers


@dataclass(frozen=True)
class Step:
    """What follows: another round with `prompt`, or an end for the reason `stop`."""

    prompt: str | None
    stop: Stop | None


def questions(components: Sequence[Component]) -> tuple[Question, ...]:
    """One question per component, with those it depends on.

    >>> from hoi_assets.detailscribe.components import component
    >>> held, stirred = component("a", "holds", "b"), component("b", "stirs", "c")
    >>> questions([held, stirred])[1].depends_on
    (0,)
    """
    needs = dependencies(components)
    return tuple(
        Question(number, one.question, needs[number]) for number, one in enumerate(components)
    )


def askable(components: Sequence[Component], answers: Answers) -> tuple[Question, ...]:
    """Questions without an answer whose dependencies were all answered yes; () ends the asking."""
    return tuple(
        question
        for question in questions(components)
        if question.number not in answers
        and all(answers.get(needed, False) for needed in question.depends_on)
    )


def failed(answers: Answers) -> tuple[int, ...]:
    """Numbers of the components answered no; one that was not asked is no failure of its own."""
    return tuple(sorted(number for number, yes in answers.items() if not yes))


def satisfied(components: Sequence[Component], answers: Answers) -> bool:
    """Whether every question was asked and answered yes."""
    return all(answers.get(number, False) for number in range(len(components)))


def edited_prompt(
    prompt: str,
    components: Sequence[Component],
    rounds: Sequence[Round],
    corrections: Mapping[int, str] | None = None,
    max_words: int = MAX_WORDS,
) -> str:
    """The original prompt, then what failed in the last round, then what was mended before.

    Args:
        prompt: the original one, which is kept word for word.
        rounds: all so far, the last one with a failure.
        corrections: how to say a component instead of in its own words.

    Raises:
        NoRoom: nothing fits behind the prompt within `max_words`.
    """
    newest_first = dict.fromkeys(
        number for done in reversed(rounds) for number in failed(done.answers)
    )
    said = {number: (corrections or {}).get(number) for number in newest_first}
    texts = [said[number] or components[number].statement for number in newest_first]
    return extended(prompt, texts, max_words)


def next_step(
    prompt: str,
    components: Sequence[Component],
    rounds: Sequence[Round],
    corrections: Mapping[int, str] | None = None,
    max_rounds: int = MAX_ROUNDS,
    max_words: int = MAX_WORDS,
) -> Step:
    """What to do after the last round.

    Args:
        prompt: the original one. rounds: all so far, the initial picture's first.
        max_rounds: edits allowed after the initial picture.

    Raises:
        ValueError: no round yet, or questions of the last that could be asked and were not.
    """
    if not rounds:
        raise ValueError("no round yet: the initial picture's answers come first")
    last = rounds[-1]
    open_questions = [question.number for question in askable(components, last.answers)]
    if open_questions:
        raise ValueError(f"components {open_questions} of the last round were not asked about")
    if satisfied(components, last.answers):
        return Step(None, "satisfied")
    if len(rounds) > max_rounds:
        return Step(None, "max_rounds")
    try:
        edited = edited_prompt(prompt, components, rounds, corrections, max_words)
    except NoRoom:
        return Step(None, "no_room")
    # The same prompt and seed would draw the same picture.
    if edited in {done.prompt for done in rounds}:
        return Step(None, "no_change")
    return Step(edited, None)
