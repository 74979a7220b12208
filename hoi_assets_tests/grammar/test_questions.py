"""Questions about components, and their true answers."""

import pytest

from hoi_assets.errors import HoiError
from hoi_assets.grammar.plans import SCENARIOS, make_plan
from hoi_assets.grammar.questions import holds, question
from hoi_assets.grammar.sentences import Triple, triples
from hoi_assets_tests.grammar.examples import plans


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


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_component_of_a_plan_holds_in_its_picture(scenario):
    for plan in plans(scenario):
        assert all(holds(triple, plan) for triple in triples(plan))


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
