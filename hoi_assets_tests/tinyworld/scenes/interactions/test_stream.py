"""Streams of interaction pictures: planned, not rendered."""

from functools import lru_cache

from hoi_assets.grammar.benchmark import is_reserved
from hoi_assets.grammar.plans import SCENARIOS
from hoi_assets.tinyworld.scenes.interactions.stream import INTERACTION_SPLITS, plan_interactions


@lru_cache
def items():
    return plan_interactions("interactions", 0, 750)


def test_questions_use_a_small_closed_vocabulary():
    words = set()
    for item in items():
        words |= {word for text in item.row()["questions"] for word in text[:-1].split()}
    assert len(words) < 90
    assert {"does", "is", "hold", "left", "red", "ring", "six"} <= words


def test_stream_answers_are_about_half_yes_for_every_kind_of_component():
    answers = {}
    for item in items():
        row = item.row()
        assert len(row["questions"]) == len(row["answers"]) == len(row["kinds"]) >= 1
        assert row["alignment"] == all(row["truth"])
        assert row["truth"].count(False) == (0 if row["alignment"] else 1)
        for kind, answer in zip(row["kinds"], row["answers"], strict=True):
            answers.setdefault(kind, []).append(answer)
    assert set(answers) == {"holding", "action", "shape", "place"}
    for kind, given in answers.items():
        assert 0.4 < sum(given) / len(given) < 0.6, kind


def test_the_same_question_gets_both_answers():
    both = {}
    for item in items():
        row = item.row()
        for asked, answer in zip(row["questions"], row["answers"], strict=True):
            both.setdefault(asked, []).append(answer)
    often = {asked: given for asked, given in both.items() if len(given) >= 8}
    assert len(often) > 8
    for asked, given in often.items():
        assert 0.1 < sum(given) / len(given) < 0.9, asked


def test_streams_differ_and_leave_the_benchmarks_sentences_out():
    drawn = {split: plan_interactions(split, 0, 90) for split in INTERACTION_SPLITS}
    seeds = [item.drawn.seed for items in drawn.values() for item in items]
    assert len(set(seeds)) == len(seeds)
    for items in drawn.values():
        assert [item.described.scenario for item in items[:3]] == list(SCENARIOS)
        assert not any(is_reserved(plan) for item in items for plan in (item.described, item.drawn))
    assert plan_interactions(INTERACTION_SPLITS[0], 30, 5) == drawn[INTERACTION_SPLITS[0]][30:35]
