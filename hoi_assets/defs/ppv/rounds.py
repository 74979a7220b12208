"""What the next round of a category asks for, from the verdicts on the last."""

import polars as pl
from pydantic import Field

from hoi_assets.defs.groups import OWNERS, PPV
from hoi_assets.defs.partitions import hand_pose
from hoi_assets.ppv.round_plan import ROUND_TABLES
from hoi_assets.publishing.asset import published_asset
from hoi_assets.publishing.config import PublishConfig
from hoi_assets.publishing.context import Result, StageContext
from hoi_assets.publishing.expectations import between, suite, unexpected_rows
from hoi_assets.publishing.metadata import Markdown, Table
from hoi_assets.settings import MAX_ROUNDS, Settings
from hoi_assets.store.versions import Staging

NO_ROUND = "No round was asked for: `hoi round CATEGORY` or the job `ppv_round` asks for one."

# Without a round all tables are empty, so every expectation holds on those too.
ROUND_PLAN_SUITE = suite(
    rows=[
        between("prompts", 0),
        between("accepted", 0),
        unexpected_rows("more_accepted_than_drawn", "accepted > drawn"),
        unexpected_rows("more_thin_than_slices", "thin_slices > slices"),
    ],
    prompts=[unexpected_rows("index_of_another_round", '"index" // 1000 <> round')],
    slices=[unexpected_rows("more_accepted_than_drawn", "accepted > drawn")],
    reasons=[between("candidates", 1)],
)


class RoundConfig(PublishConfig):
    """What can be set for one run of `round_plan`."""

    another: bool = Field(
        default=False,
        description="Plan the next round, once all before it are done; else rounds.number decides.",
    )

    def apply(self, settings: Settings) -> Settings:
        if not self.another:
            return settings
        rounds = settings.rounds.model_copy(update={"number": MAX_ROUNDS})
        return settings.model_copy(update={"rounds": rounds})


@published_asset(
    partitions_def=hand_pose,
    group_name=PPV,
    owners=OWNERS,
    kinds={"polars"},
    code_version="1",
    suite=ROUND_PLAN_SUITE,
    tables=ROUND_TABLES,
    external_inputs=lambda context: _state(context),
    config=RoundConfig,
)
def round_plan(context: StageContext, staging: Staging) -> Result:
    """What rounds after the first pass ask for: a prompt for each of the thinnest slices (object,
    skin tone, view, side), and more instance images and a new LoRA where little is accepted. It
    reads the verdicts in force from the store (no edge, the graph stays free of cycles); a round
    that was planned stays as it is. Empty until `hoi round` asks for one."""
    from hoi_assets.ppv.round_state import plan_rounds

    category = context.taxonomy.categories[context.partition_key]
    plan = plan_rounds(context.store, category, context.settings.rounds)
    for name, table in plan.tables().items():
        staging.write_table(name, table)
    if not plan.number:
        return Result(metadata={"rounds": 0, "note": Markdown(NO_ROUND)})
    last = pl.col("round") == plan.number
    thin = plan.slices.filter(last & pl.col("thin")).drop("round", "thin")
    return Result(
        metadata={
            "rounds": plan.number,
            **plan.rows.row(-1, named=True),
            "asked_for": Table(plan.prompts.filter(last).drop("round").to_dicts()),
            "thin": Table(thin.to_dicts()),
            "reasons": Table(plan.reasons.filter(last).drop("round").to_dicts()),
        }
    )


def _state(context: StageContext) -> dict[str, str]:
    from hoi_assets.ppv.round_state import round_state

    state = round_state(context.store, context.partition_key)
    return state.inputs(context.settings.rounds.number)
