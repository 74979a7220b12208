"""Questions about interactions: their answers are true, and neither words nor priors tell them."""

from collections import defaultdict
from pathlib import Path

import pytest
import torch

from hoi_assets.grammar.questions import component_kind, holds
from hoi_assets.grammar.sentences import Triple
from hoi_assets.tinyworld.scenes.interactions.stream import plan_interactions
from hoi_assets.tinyworld.weights.pictures import Pictures, read_pictures
from hoi_assets.tinyworld.weights.questions import QuestionBatch, QuestionSampler, shown_parts
from hoi_assets_tests.tinyworld.weights.shapes import INTERACTIONS


@pytest.fixture(scope="module")
def sampler() -> QuestionSampler:
    rows = [
        item.row() | {"plan": item.drawn.as_json()}
        for item in plan_interactions("interactions", 0, 1200)
    ]
    return QuestionSampler(Pictures(rows, None, {}))


@pytest.fixture(scope="module")
def asked(sampler: QuestionSampler) -> QuestionBatch:
    return sampler.sample(12000, torch.Generator().manual_seed(0))


def _yes_shares(keys: list[str], answers: list[bool]) -> dict[str, float]:
    found: dict[str, list[bool]] = defaultdict(list)
    for key, yes in zip(keys, answers, strict=True):
        found[key].append(yes)
    return {key: sum(yes) / len(yes) for key, yes in found.items() if len(yes) >= 200}


def test_answers_are_true_of_the_picture(sampler: QuestionSampler, asked: QuestionBatch) -> None:
    for index, triple, yes in zip(asked.chosen, asked.triples, asked.answers, strict=True):
        assert yes == holds(triple, sampler.plans[index])


def test_yes_and_no_are_equally_often_the_answer_for_each_kind_and_relation(
    asked: QuestionBatch,
) -> None:
    kinds = _yes_shares([component_kind(each) for each in asked.triples], asked.answers)
    assert len(kinds) == 4
    assert all(0.46 < share < 0.54 for share in kinds.values()), kinds
    relations = _yes_shares([each.relation for each in asked.triples], asked.answers)
    assert len(relations) >= 12
    assert all(0.4 < share < 0.6 for share in relations.values()), relations


def test_no_word_of_a_question_tells_the_answer(asked: QuestionBatch) -> None:
    words = [(word, yes) for text, yes in zip(asked.texts, asked.answers, strict=True)
             for word in set(text.split())]  # fmt: skip
    shares = _yes_shares([word for word, _ in words], [yes for _, yes in words])
    assert {"does", "left", "red", "ring?"} <= set(shares)
    assert all(0.35 < share < 0.65 for share in shares.values()), shares


def test_same_generator_asks_the_same(sampler: QuestionSampler) -> None:
    first, again = (sampler.sample(50, torch.Generator().manual_seed(3)) for _ in range(2))
    assert first == again
    assert first != sampler.sample(50, torch.Generator().manual_seed(4))


def test_what_holds_has_all_its_parts_and_some_that_fail_lack_one(
    sampler: QuestionSampler, asked: QuestionBatch
) -> None:
    lacking = 0
    for index, triple, yes in zip(asked.chosen, asked.triples, asked.answers, strict=True):
        found = shown_parts(triple, sampler.plans[index])
        assert all(found) or not yes
        lacking += not all(found)
    # The rest have their parts, though not together: each hand holds the other's thing.
    assert lacking > 0.8 * (len(asked.answers) - sum(asked.answers))


def test_mirrored_scene_is_asked_about_in_mirrored_words(shapes_world: Path) -> None:
    pictures = read_pictures(shapes_world, "interactions")
    mirrored = pictures.mirrored()
    assert torch.equal(mirrored.pixels, pictures.pixels.flip(-1))
    plans, other_plans = QuestionSampler(pictures).plans, QuestionSampler(mirrored).plans
    sided = 0
    for row, other, plan, other_plan in zip(
        pictures.rows, mirrored.rows, plans, other_plans, strict=True
    ):
        swap = {"left": "right", "right": "left"}
        assert [hand.side for hand in other_plan.hands] == [swap[h.side] for h in plan.hands]
        assert other_plan.things == plan.things
        for triple, other_triple, yes in zip(
            row["triples"], other["triples"], row["truth"], strict=True
        ):
            assert holds(Triple(*other_triple), other_plan) == yes
            sided += triple != other_triple
        for question, other_question in zip(row["questions"], other["questions"], strict=True):
            said = [swap.get(word, word) for word in question.split()]
            assert other_question.split() == said
    assert sided > 10


def test_held_out_scenes_are_never_asked_about(shapes_world: Path) -> None:
    learnt, held = read_pictures(shapes_world, "interactions").halves()
    names = {row["scene_id"] for row in held.rows}
    assert names and not names & {row["scene_id"] for row in learnt.mirrored().rows}
    assert len(learnt) + len(held) == INTERACTIONS
