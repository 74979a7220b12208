"""Plans of interaction pictures."""

import pytest

from hoi_assets.errors import HoiError
from hoi_assets.grammar.plans import SCENARIOS, make_plan, plan_from_json


def test_equal_seeds_plan_equal_pictures_and_json_keeps_them():
    for scenario in SCENARIOS:
        for seed in range(40):
            plan = make_plan(scenario, seed)
            assert plan == make_plan(scenario, seed) == plan_from_json(plan.as_json())
    assert make_plan("functional", 1) != make_plan("functional", 2)


def test_unknown_scenario_is_named():
    with pytest.raises(HoiError, match="no scenario 'sports'"):
        make_plan("sports", 0)
