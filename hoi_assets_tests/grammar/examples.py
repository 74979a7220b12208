"""Plans that the tests of the grammar share."""

from functools import lru_cache

from hoi_assets.grammar.plans import make_plan

SEEDS = range(200)


@lru_cache
def plans(scenario):
    return [make_plan(scenario, seed) for seed in SEEDS]
