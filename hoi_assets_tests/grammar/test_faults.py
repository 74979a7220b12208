"""Faulty pictures of plans."""

import pytest

from hoi_assets.grammar.faults import FAULTS, spoil
from hoi_assets.grammar.plans import SCENARIOS
from hoi_assets.grammar.questions import holds
from hoi_assets.grammar.sentences import parse, sentence, triples
from hoi_assets_tests.grammar.examples import SEEDS, plans


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_spoilt_plan_makes_exactly_one_component_false_and_is_still_of_the_grammar(scenario):
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
