"""The report on both pipelines, as far as they were run."""

from hoi_assets.defs.automation import follow_last
from hoi_assets.defs.groups import EVALUATION, OWNERS
from hoi_assets.defs.suites import READABLE_FILES
from hoi_assets.evaluation.report import REPORT_SUMMARY
from hoi_assets.publishing.asset import GPU_POOL, published_asset
from hoi_assets.publishing.context import Result, StageContext
from hoi_assets.publishing.data_docs import index_link
from hoi_assets.publishing.expectations import between, measure, row_count, suite
from hoi_assets.publishing.metadata import Page
from hoi_assets.store.versions import Staging

REPORT = "report.html"

REPORT_SUITE = suite(
    summary=[
        row_count(1, 1),
        between("bytes", 1000),
        between("pictures", 1),
        # Self-contained: opens offline, on any machine.
        between("external_references", 0, 0),
    ],
    contents=[
        READABLE_FILES,
        measure("page", f"count(case when name = '{REPORT}' then 1 end)", 1),
    ],
)


@published_asset(
    optional_deps=[
        "base_prompt_taxonomy",
        "detailed_prompts",
        "instance_images",
        "category_loras",
        "candidate_images",
        "verifier",
        "verified_pairs",
        "hoi_dataset",
        "finetuned_model",
        "hoi_evaluation_images",
        "image_critiques",
        "refined_images",
        "baseline_images",
        "human_ratings",
        "hoi_scorecards",
        "interacting_scorecards",
        "round_scorecards",
    ],
    group_name=EVALUATION,
    owners=OWNERS,
    kinds={"html", "pytorch"},
    pool=GPU_POOL,
    automation_condition=follow_last(
        "hoi_dataset",
        "finetuned_model",
        "hoi_scorecards",
        "interacting_scorecards",
        per_partition="hoi_evaluation_images",
    ),
    code_version="5",
    suite=REPORT_SUITE,
    tables=[REPORT_SUMMARY],
    models=["examiner"],
)
def evaluation_report(context: StageContext, staging: Staging) -> Result:
    """One self-contained HTML page: four questions answered, a gallery of verdicts, then stages,
    verifier and scores in detail. Sections appear as their assets exist."""
    from hoi_assets.evaluation.report import build_report

    parents = dict(context.parents)
    rounds = context.version("round_scorecards")
    if rounds is not None and rounds.table("rows").is_empty():
        del parents["round_scorecards"]  # says nothing
    places = [
        asset if key is None else f"{asset}/{key}"
        for asset, found in parents.items()
        for key in (found if isinstance(found, dict) else [None])
    ]
    data_docs = {place: index_link(place) for place in places}
    page = build_report(context.store, context.settings, parents, data_docs, context.log)
    staging.write_text(REPORT, page.html)
    staging.write_table("summary", page.summary)
    return Result(metadata={"report": Page(REPORT), **page.summary.row(0, named=True)})
