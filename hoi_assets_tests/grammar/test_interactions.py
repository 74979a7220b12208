"""The grammar of interaction scenes: what is said can be read back, asked and spoilt."""

import json
from functools import lru_cache

import pytest
from hoi_assets.grammar.interactions import MAX_WORDS

from hoi_assets.errors import HoiError
from hoi_assets.grammar.benchmark import (
    BENCHMARK_PROMPTS,
    benchmark_plans,
    benchmark_row,
    is_reserved,
    main,
)
from hoi_assets.grammar.faults import FAULTS, spoil
from hoi_assets.grammar.plans import SCENARIOS, make_plan, plan_from_json
from hoi_assets.grammar.questions import holds, question
from hoi_assets.grammar.sentences import Noun, Triple, parse, read_noun, sentence, triples
from hoi_assets.tinyworld.scenes.interactions.stream import INTERACTION_SPLITS, plan_interactions
from hoi_assets.tinyworld.scenes.shards import TAXONOMY

SEEDS = range(200)
STORED = TAXONOMY.parent / "interacting"


@lru_cache
def plans(scenario):
    return [make_plan(scenario, seed) for seed in SEEDS]


@lru_cache
def items():
    return plan_interactions("interactions", 0, 750)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_sentence_is_read_back_as_the_plans_components(scenario):
    for plan in plans(scenario):
        assert parse(sentence(plan)) == triples(plan)
        assert 1 <= len(triples(plan)) <= 3
        assert len(sentence(plan).split()) <= MAX_WORDS


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_component_of_a_plan_holds_in_its_picture(scenario):
    for plan in plans(scenario):
        assert all(holds(triple, plan) for triple in triples(plan))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_spoilt_plan_belies_exactly_one_component_and_is_still_of_the_grammar(scenario):
    faults, components = set(), set()
    for seed, plan in zip(SEEDS, plans(scenario), strict=True):
        spoilt = spoil(plan, seed)
        assert spoilt.truth.count(False) == 1
        assert spoilt.truth == tuple(holds(triple, spoilt.plan) for triple in triples(plan))
        assert parse(sentence(spoilt.plan)) == triples(spoilt.plan)
        assert spoilt == spoil(plan, seed)
        faults.add(spoilt.fault)
        components.add(spoilt.truth.index(False))
    assert components == ({0, 1, 2} if scenario == "multi_subject" else {0, 1})
    assert faults <= set(FAULTS) and len(faults) >= 4


def test_all_faults_occur():
    found = {spoil(plan, 0).fault for scenario in SCENARIOS for plan in plans(scenario)}
    assert found == set(FAULTS)


def test_equal_seeds_plan_equal_pictures_and_json_keeps_them():
    for scenario in SCENARIOS:
        for seed in range(40):
            plan = make_plan(scenario, seed)
            assert plan == make_plan(scenario, seed) == plan_from_json(plan.as_json())
    assert make_plan("functional", 1) != make_plan("functional", 2)


def test_wordings_join_clauses_in_several_ways():
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


@pytest.mark.parametrize(
    ("triple", "asked"),
    [
        (("a right hand", "holds", "a red spoon"), "does a right hand hold a red spoon?"),
        (("the spoon", "stirs in", "a blue bowl"), "does the spoon stir in a blue bowl?"),
        (("a left hand", "presses", "the phone"), "does a left hand press the phone?"),
        (("six red balls", "form", "a ring"), "do six red balls form a ring?"),
        (("two hands", "hold", "a red box"), "do two hands hold a red box?"),
        (("the row", "is in front of", "a mug"), "is the row in front of a mug?"),
        (("an octopus", "plays with", "two cats"), "does an octopus play with two cats?"),
    ],
)
def test_question_asks_for_the_component(triple, asked):
    assert question(Triple(*triple)) == asked


def test_questions_use_a_small_closed_vocabulary():
    words = set()
    for item in items():
        words |= {word for text in item.row()["questions"] for word in text[:-1].split()}
    assert len(words) < 90
    assert {"does", "is", "hold", "left", "red", "ring", "six"} <= words


def test_nouns_are_read_as_they_are_written():
    for noun in (Noun("box", "orange", 1), Noun("hand", None, 2), Noun("ball", "red", 7)):
        assert read_noun(noun.phrase()) == noun
    assert read_noun("the box") == Noun("box", None, None)
    assert read_noun("seven red ball") is None


def test_what_a_phrase_leaves_unsaid_is_free_and_what_it_says_is_not():
    plan = next(plan for plan in plans("functional") if plan.things[0].kind == "spoon")
    side, (spoon, target) = plan.hands[0].side, plan.things
    other = "left" if side == "right" else "right"
    asked = {
        (f"a {side} hand", "holds", f"a {spoon.colour} spoon"): True,
        (f"a {side} hand", "holds", "the spoon"): True,
        ("the spoon", "stirs in", f"the {target.kind}"): True,
        (f"a {other} hand", "holds", "the spoon"): False,
        (f"a {side} hand", "holds", f"a {target.colour} spoon"): False,
        ("two hands", "hold", "the spoon"): False,
        ("the spoon", "taps", f"the {target.kind}"): False,
        (f"the {target.kind}", "stirs in", "the spoon"): False,
    }
    assert {triple: holds(Triple(*triple), plan) for triple in asked} == asked


def test_truth_of_foreign_words_is_refused():
    with pytest.raises(HoiError, match="not of the scenes' grammar"):
        holds(Triple("an octopus", "holds", "a cup"), make_plan("functional", 0))


def test_unknown_scenario_is_named():
    with pytest.raises(HoiError, match="no scenario 'sports'"):
        make_plan("sports", 0)


# --- streams and benchmark -----------------------------------------------------------------------


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
        assert [item.told.scenario for item in items[:3]] == list(SCENARIOS)
        assert not any(is_reserved(plan) for item in items for plan in (item.told, item.drawn))
    assert plan_interactions(INTERACTION_SPLITS[0], 30, 5) == drawn[INTERACTION_SPLITS[0]][30:35]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_stored_benchmark_is_what_the_grammar_makes(scenario):
    lines = (STORED / f"{scenario}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert rows == [benchmark_row(plan) for plan in benchmark_plans(scenario)]
    assert len(rows) == BENCHMARK_PROMPTS >= 40
    assert all(set(row) == {"topic", "prompt"} for row in rows)
    assert len({row["prompt"] for row in rows}) == len(rows)
    assert all(parse(row["prompt"]) for row in rows)


def test_benchmark_is_written_as_it_is_stored(tmp_path):
    assert main(["--out", str(tmp_path)]) == 0
    for scenario in SCENARIOS:
        name = f"{scenario}.jsonl"
        assert (tmp_path / name).read_bytes() == (STORED / name).read_bytes()
