"""What each round of a category brought."""

from hoi_assets.defs.groups import EVALUATION, OWNERS
from hoi_assets.ppv.round_scores import ALL, ROUND_SCORES
from hoi_assets.publishing.asset import GPU_POOL, published_asset
from hoi_assets.publishing.context import Result, StageContext
from hoi_assets.publishing.expectations import between, suite, unexpected_rows
from hoi_assets.publishing.metadata import Image, Markdown, Table
from hoi_assets.store.versions import Staging

STAGES = ("detailed_prompts", "candidate_images", "verified_pairs")
NO_ROUNDS = "No category has had a round: `hoi round CATEGORY` makes one."

ROUND_SCORECARDS_SUITE = suite(
    rows=[
        unexpected_rows("more_accepted_than_drawn", "accepted > drawn"),
        unexpected_rows("more_right_than_accepted", "accepted_right > accepted"),
        unexpected_rows("more_covered_than_slices", "covered > slices"),
        between("covered_share", 0, 1),
    ],
)


@published_asset(
    optional_deps=["base_prompt_taxonomy", "round_plan", *STAGES, "category_loras"],
    group_name=EVALUATION,
    owners=OWNERS,
    kinds={"pytorch"},
    pool=GPU_POOL,
    code_version="1",
    suite=ROUND_SCORECARDS_SUITE,
    tables=[ROUND_SCORES],
    settings=["rounds"],
    models=["examiner"],
)
def round_scorecards(context: StageContext, staging: Staging) -> Result:
    """Per category and round: share accepted, share of the accepted that the examiner finds right,
    slices covered, and cost in denoiser evaluations. Empty while no category has had a round."""
    from hoi_assets.charts import round_curves
    from hoi_assets.evaluation.report_examiner import right_by_image
    from hoi_assets.ppv.round_loras import lora_outcomes
    from hoi_assets.ppv.round_plan import read_plan
    from hoi_assets.ppv.round_scores import round_scores, score_rounds

    stages = {name: context.published(name) for name in (*STAGES, "category_loras")}
    enough = context.settings.rounds.enough_accepted
    counts = []
    for key, published in context.published("round_plan").items():
        plan = read_plan(published)
        if not plan.number or not all(key in stages[name] for name in STAGES):
            continue
        prompts, candidates, verdicts = (stages[name][key].table("rows") for name in STAGES)
        loras = stages["category_loras"].get(key)
        counts += score_rounds(
            context.taxonomy.categories[key],
            plan,
            prompts,
            candidates,
            verdicts,
            {} if loras is None else lora_outcomes(loras),
            right_by_image(context.store, context.settings, prompts, verdicts, context.log),
            enough,
        )
    table = round_scores(counts)
    staging.write_table("rows", table)
    if table.is_empty():
        return Result(metadata={"rounds": 0, "note": Markdown(NO_ROUNDS)})
    together = table.filter(category=ALL)
    return Result(
        metadata={
            "rounds": int(table["round"].max()),  # type: ignore[arg-type]
            "together": Table(together.to_dicts()),
            "by_category": Table(table.filter(table["category"] != ALL).to_dicts()),
            "curves": Image(round_curves(table), "image/png"),
        }
    )
