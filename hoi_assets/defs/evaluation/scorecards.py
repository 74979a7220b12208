"""Scorecards with intervals, one per pipeline."""

from typing import Any

from hoi_assets.defs.automation import follow_changed_parents
from hoi_assets.defs.groups import EVALUATION, OWNERS
from hoi_assets.defs.suites import CUT_TEXTS
from hoi_assets.evaluation.benchmark_scores import CANDIDATE_SCORES, JUDGE_METRICS
from hoi_assets.evaluation.metric_agreement import METRIC_AGREEMENT
from hoi_assets.evaluation.scorecards import COMPARISONS, SCORECARD, SCORES
from hoi_assets.evaluation.suite_scores import SuiteScores
from hoi_assets.evaluation.vlm_judge import JUDGE_RATINGS
from hoi_assets.publishing.asset import GPU_POOL, published_asset
from hoi_assets.publishing.context import Result, StageContext
from hoi_assets.publishing.expectations import (
    between,
    column_exists,
    not_null,
    row_count,
    share,
    suite,
    unexpected_rows,
    unique,
)
from hoi_assets.publishing.metadata import Image, Markdown
from hoi_assets.store.versions import Staging

MAY_BE_MISSING = (*JUDGE_METRICS, "anatomy", "landmarks")
SCORECARDS_SUITE = suite(
    scores=[
        row_count(1),
        not_null("suite", "method", "metric", "image_id"),
        # A judge's missing replies are failed rows, which the next run requests again; of some
        # endpoints and pictures there is none to be had.
        share(
            "missing_share",
            f"value is null and metric not in {tuple(MAY_BE_MISSING)}",
            "${gates.max_failed_share}",
        ),
        CUT_TEXTS,
    ],
    scorecard=[
        row_count(1),
        unique("suite", "method", "slice_kind", "slice", "metric"),
        between("n", 0),
        unexpected_rows("mean_outside_interval", "mean < ci_low - 1e-9 or mean > ci_high + 1e-9"),
    ],
    comparisons=[
        column_exists("method_a", "method_b", "difference", "ci_low", "ci_high", "p"),
        between("p", 0, 1, nullable=True),
    ],
)
TABLES = [SCORECARD, SCORES, COMPARISONS, METRIC_AGREEMENT]


@published_asset(
    deps=["hoi_evaluation_images", "verifier", "human_ratings"],
    group_name=EVALUATION,
    owners=OWNERS,
    kinds={"pytorch", "transformers"},
    pool=GPU_POOL,
    automation_condition=follow_changed_parents,
    code_version="2",
    suite=SCORECARDS_SUITE,
    tables=TABLES,
    settings=["evaluation", "sampling", "anatomy", "landmarks"],
    models=["clip", "image_reward", "examiner"],
)
def hoi_scorecards(context: StageContext, staging: Staging) -> Result:
    """Prompt-Propose-Verify: means with n and 95% bootstrap intervals, and paired comparisons, per
    method and slice, on held-out hand-pose prompts and general prompts; with human ratings of the
    same images."""
    from hoi_assets.evaluation.hoi_suite import score_hoi

    images = context.partitions("hoi_evaluation_images")
    scores = score_hoi(
        context.store,
        context.settings,
        [one.table("rows") for one in images.values()],
        context.parent("verifier"),
        context.parent("human_ratings").table("rows"),
        context.log,
    )
    missing = context.missing("hoi_evaluation_images")
    return _write(context, staging, scores, {"missing_categories": ", ".join(missing) or "none"})


@published_asset(
    deps=[
        "interaction_decompositions",
        "initial_images",
        "refined_images",
        "baseline_images",
        "human_ratings",
    ],
    group_name=EVALUATION,
    owners=OWNERS,
    kinds={"pytorch", "transformers"},
    pool=GPU_POOL,
    automation_condition=follow_changed_parents,
    code_version="2",
    suite=SCORECARDS_SUITE,
    tables=[*TABLES, CANDIDATE_SCORES, JUDGE_RATINGS],
    settings=["evaluation", "critic", "judge", "vqa_score"],
    models=["clip", "image_reward", "critic", "component_examiner", "blip_vqa"],
)
def interacting_scorecards(context: StageContext, staging: Staging) -> Result:
    """DetailScribe on InterActing: means with n and 95% bootstrap intervals, and paired
    comparisons, per method and slice, with the selection rule and compute of every method, and
    human ratings of the same images."""
    from hoi_assets.detailscribe.decompose import read_components
    from hoi_assets.engines.blip_vqa import noun_phrases
    from hoi_assets.evaluation.benchmark_scores import format_costs
    from hoi_assets.evaluation.interacting_suite import score_interacting

    components: dict[str, Any] = {}
    for one in context.partitions("interaction_decompositions").values():
        components |= read_components(one.table("components"))
    scores = score_interacting(
        context.store,
        context.settings,
        [
            one.table("rows")
            for name in ("initial_images", "refined_images", "baseline_images")
            for one in context.published(name).values()
        ],
        {row_id: [one.question for one in own] for row_id, own in components.items()},
        {row_id: noun_phrases(own) for row_id, own in components.items()},
        context.parent("human_ratings").table("rows"),
        context.log,
    )
    if scores.ratings is not None:
        context.record("row_id", scores.ratings)
    more: dict[str, Any] = {
        "missing_scenarios": ", ".join(context.missing("refined_images")) or "none"
    }
    if scores.costs is not None:
        # Seconds are metadata: a version holds no clock.
        more["cost_of_a_prompt"] = Markdown(format_costs(scores.costs))
    return _write(context, staging, scores, more)


def _write(
    context: StageContext, staging: Staging, scores: SuiteScores, metadata: dict[str, Any]
) -> Result:
    from hoi_assets.charts import scorecard_plot

    for name, table in scores.tables.items():
        staging.write_table(name, table)
    return Result(
        metadata={
            "images": scores.scores["image_id"].n_unique(),
            "scores": Image(scorecard_plot(scores.scorecard), "image/png"),
            **metadata,
        }
    )
