"""Prompt edits in the manner of CRAFT (arXiv 2512.20362): pure functions over yes/no answers.

CRAFT turns a prompt into questions that depend on each other, verifies an image by them, edits the
prompt only where a constraint fails, and stops once all are satisfied. Here a round draws an image
and answers questions about it; a question is open only once those it depends on were answered yes.
What failed is appended to the prompt, the newest first. Rounds end when everything is satisfied,
when an edit would change nothing, or after `max_rounds` edits. Round 0 is the initial image.

"CRAFT-like": the questions are the components' own, and code edits the prompt, where CRAFT has a
language model do it.

    answers = {}
    while questions := open_questions(components, answers):
        answers |= ask(image, questions)             # the caller's VQA model
    decision = decide_next_round(prompt, components, [*rounds, Round(drawn_prompt, answers)])
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from hoi_assets.detailscribe.components import Component, dependencies
from hoi_assets.detailscribe.prompt_extension import MAX_WORDS, NoRoom, extend_prompt

MAX_ROUNDS = 3

StopReason = Literal["satisfied", "max_rounds", "no_change", "no_room"]
# By component number; True is yes.
Answers = Mapping[int, bool]


@dataclass(frozen=True)
class Question:
    """A yes/no question about an image. `number` is its component's, from 0."""

    number: int
    text: str
    depends_on: tuple[int, ...]


@dataclass(frozen=True)
class Round:
    """The prompt that one image was drawn from, and the answers about the image."""

    prompt: str
    answers: Answers


@dataclass(frozen=True)
class NextRound:
    """What follows a round: another one with `prompt`, or the end for the reason `stop`."""

    prompt: str | None
    stop: StopReason | None


def build_questions(components: Sequence[Component]) -> tuple[Question, ...]:
    """One question per component, with those it depends on.

    >>> from hoi_assets.detailscribe.components import build_component
    >>> hold, stir = build_component("a", "holds", "b"), build_component("b", "stirs", "c")
    >>> build_questions([hold, stir])[1].depends_on
    (0,)
    """
    needed = dependencies(components)
    return tuple(
        Question(number, one.question, needed[number]) for number, one in enumerate(components)
    )


def open_questions(components: Sequence[Component], answers: Answers) -> tuple[Question, ...]:
    """Questions without an answer whose dependencies were all answered yes; () when done."""
    return tuple(
        question
        for question in build_questions(components)
        if question.number not in answers
        and all(answers.get(number, False) for number in question.depends_on)
    )


def failed_components(answers: Answers) -> tuple[int, ...]:
    """Numbers of the components answered no. A component not asked about has not failed."""
    return tuple(sorted(number for number, yes in answers.items() if not yes))


def all_satisfied(components: Sequence[Component], answers: Answers) -> bool:
    """Whether every question was asked and answered yes."""
    return all(answers.get(number, False) for number in range(len(components)))


def edit_prompt(
    prompt: str,
    components: Sequence[Component],
    rounds: Sequence[Round],
    corrections: Mapping[int, str] | None = None,
    max_words: int = MAX_WORDS,
) -> str:
    """The original prompt, then what failed in the last round, then what failed before.

    Args:
        prompt: the original one, kept word for word.
        rounds: all so far, the last one with a failure.
        corrections: texts to use instead of a component's own words, by its number.

    Raises:
        NoRoom: nothing fits after the prompt within `max_words`.
    """
    newest_first = dict.fromkeys(
        number for done in reversed(rounds) for number in failed_components(done.answers)
    )
    corrections = corrections or {}
    texts = [corrections.get(number) or components[number].statement for number in newest_first]
    return extend_prompt(prompt, texts, max_words)


def decide_next_round(
    prompt: str,
    components: Sequence[Component],
    rounds: Sequence[Round],
    corrections: Mapping[int, str] | None = None,
    max_rounds: int = MAX_ROUNDS,
    max_words: int = MAX_WORDS,
) -> NextRound:
    """What to do after the last round.

    Args:
        prompt: the original one.
        rounds: all so far, the initial image's first.
        max_rounds: edits allowed after the initial image.

    Raises:
        ValueError: no round yet, or open questions in the last one.
    """
    if not rounds:
        raise ValueError("no round yet: the initial image's answers come first")
    last = rounds[-1]
    unanswered = [question.number for question in open_questions(components, last.answers)]
    if unanswered:
        raise ValueError(f"components {unanswered} of the last round were not asked about")
    if all_satisfied(components, last.answers):
        return NextRound(None, "satisfied")
    if len(rounds) > max_rounds:
        return NextRound(None, "max_rounds")
    try:
        edited = edit_prompt(prompt, components, rounds, corrections, max_words)
    except NoRoom:
        return NextRound(None, "no_room")
    # The same prompt and seed would draw the same image.
    if edited in {done.prompt for done in rounds}:
        return NextRound(None, "no_change")
    return NextRound(edited, None)
