"""Where a category stands: which round it is in, whether that is done, and what the next reads."""

from dataclasses import dataclass
from itertools import pairwise

from hoi_assets.errors import HoiError
from hoi_assets.ppv.round_plan import RoundPlan, plan_round, read_plan
from hoi_assets.settings import Rounds
from hoi_assets.store.versions import Published, Store
from hoi_assets.taxonomy import Category

ROUND_PLAN = "round_plan"
# Each reads the one before it.
CHAIN = (ROUND_PLAN, "detailed_prompts", "candidate_images", "verified_pairs")


@dataclass(frozen=True)
class RoundState:
    """Attributes:
    plan: in force.
    verdicts: the version of verified_pairs that all of the plan went into; None where a stage
        between them has not read the one before it yet.
    """

    plan: RoundPlan
    verdicts: Published | None

    def number(self, wanted: int) -> int:
        """The round to plan up to, where `wanted` are: the next one once all before it are done."""
        done = self.plan.number + (self.verdicts is not None)
        return max(self.plan.number, min(wanted, done))

    def inputs(self, wanted: int) -> dict[str, str]:
        """What determines the plan of `number(wanted)` rounds; empty for none.

        They stay once the round is planned, whatever its verdicts are.
        """
        if self.number(wanted) > self.plan.number and self.verdicts is not None:
            version = self.verdicts.version
        elif self.plan.number:
            version = self.plan.rows["verdicts_version"][-1]
        else:
            return {}
        return {"round": str(self.number(wanted)), "verdicts": version}


def round_state(store: Store, category: str) -> RoundState:
    """Where the category stands, by the versions in force."""
    found = {asset: store.current(asset, category) for asset in CHAIN}
    plan, verdicts = found[ROUND_PLAN], found[CHAIN[-1]]
    for parent, child in pairwise(CHAIN):
        before, after = found[parent], found[child]
        unread = before is not None and after and after.inputs.get(before.name) != before.version
        if after is None or unread or (before is None and parent != ROUND_PLAN):
            verdicts = None
    return RoundState(read_plan(plan), verdicts)


def plan_rounds(store: Store, category: Category, options: Rounds) -> RoundPlan:
    """The plan in force, with the next round where `rounds.number` asks for one and all before it
    are done.

    Raises:
        HoiError: the prompts that were judged are not there.
    """
    state = round_state(store, category.key)
    if state.number(options.number) == state.plan.number or state.verdicts is None:
        return state.plan
    prompts = store.current("detailed_prompts", category.key)
    if prompts is None:
        raise HoiError(f"no detailed prompts of {category.key!r}", f"`hoi run {category.key}`")
    return plan_round(
        category,
        state.plan,
        prompts.table("rows"),
        state.verdicts.table("rows"),
        state.verdicts.version,
        options,
    )
