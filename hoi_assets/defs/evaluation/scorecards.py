"""Scorecards with intervals, one per pipeline."""

from collections.abc import Mapping, Sequence
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
    Expectation,
    between,
    column_exists,
    measure,
    not_null,
    row_count,
    share,
    suite,
    unexpected_rows,
    unique,
)
from hoi_assets.publishing.metadata import Image, Markdown
from hoi_assets.store.versions import Published, Staging

# Of some endpoints and pictures there is no figure to be had.
MAY_BE_MISSING = (*JUDGE_METRICS, "anatomy", "landmarks")
# NaN is larger than any number, so it is out of range as well, unless it counts as missing.
_MISSING = "(value is null or value = cast('nan' as double))"
_RANGES = (
    "case when metric = 'clip_score' then value not between 0 and 2.500001"
    " when metric = 'judge_rating' then value not between 1 and 5"
    " when metric = 'image_reward' then abs(value) > 1000"
    "${models.hpsv3? when metric = 'hpsv3' then abs(value) > 1000}"
    " else value not between -0.000001 and 1.000001 end"
)


def scorecards_suite(
    suite_name: str, methods: Sequence[str], slice_kind: str
) -> tuple[Expectation, ...]:
    """The suite of one pipeline's scorecards.

    Args:
        suite_name: suite of prompts that is scored in slices.
        methods: those without which nothing is compared.
        slice_kind: what every method is scored by; CLIPScore, which all have, is looked at.
    """
    own = f"suite = '{suite_name}' and metric = 'clip_score'"
    named = ", ".join(f"'{method}'" for method in methods)
    of_methods = f"count(distinct case when {own} then method end)"
    of_slices = f"count(distinct case when {own} and slice_kind = '{slice_kind}' then slice end)"
    there = f"count(case when {own} and slice_kind = '{slice_kind}' then 1 end)"
    return suite(
        scores=[
            row_count(1),
            not_null("suite", "method", "metric", "image_id"),
            # A judge's missing replies are failed rows, which the next run requests again.
            share(
                "missing_share",
                f"{_MISSING} and metric not in {MAY_BE_MISSING}",
                "${gates.max_failed_share}",
            ),
            unexpected_rows("out_of_range", f"not {_MISSING} and {_RANGES}"),
            CUT_TEXTS,
        ],
        scorecard=[
            row_count(1),
            unique("suite", "method", "slice_kind", "slice", "metric"),
            between("n", 0),
            unexpected_rows(
                "mean_outside_interval", "mean < ci_low - 1e-9 or mean > ci_high + 1e-9"
            ),
            measure(
                "compared_methods",
                f"count(distinct case when {own} and method in ({named}) then method end)",
                len(methods),
            ),
            measure("slices", of_slices, 1),
            measure("slices_missing", f"{of_methods} * {of_slices} - {there}", max_value=0),
        ],
        comparisons=[
            column_exists("method_a", "method_b", "difference", "ci_low", "ci_high", "p"),
            between("p", 0, 1, nullable=True),
        ],
    )


HOI_SCORECARDS_SUITE = scorecards_suite("hoi", ["base", "dreambooth", "finetuned"], "category")
INTERACTING_SCORECARDS_SUITE = scorecards_suite(
    "interacting", ["plain", "detailscribe"], "scenario"
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
    suite=HOI_SCORECARDS_SUITE,
    tables=TABLES,
    settings=["evaluation", "sampling", "anatomy", "landmarks"],
    models=["clip", "image_reward", "examiner", "hpsv3"],
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


BENCHMARK_IMAGES = ("initial_images", "refined_images", "baseline_images")


def whole_partitions(found: Sequence[Mapping[str, Published]]) -> set[str]:
    """Partitions that have got as far as any other; another process may be making the rest.

    >>> sorted(whole_partitions([{"a": ..., "b": ...}, {"a": ...}, {}]))
    ['a']
    """
    return set.intersection(*(set(one) for one in found if one)) if any(found) else set()


@published_asset(
    deps=[
        "interaction_decompositions",
        *BENCHMARK_IMAGES,
        "human_ratings",
    ],
    deps_when={"interacting_prompts": lambda settings: settings.judge.topic},
    group_name=EVALUATION,
    owners=OWNERS,
    kinds={"pytorch", "transformers"},
    pool=GPU_POOL,
    automation_condition=follow_changed_parents,
    code_version="2",
    suite=INTERACTING_SCORECARDS_SUITE,
    tables=[*TABLES, CANDIDATE_SCORES, JUDGE_RATINGS],
    settings=["evaluation", "critic", "judge", "vqa_score"],
    models=["clip", "image_reward", "critic", "component_examiner", "blip_vqa", "hpsv3"],
)
def interacting_scorecards(context: StageContext, staging: Staging) -> Result:
    """DetailScribe on InterActing: means with n and 95% bootstrap intervals, and paired
    comparisons, per method and slice, with the selection rule and compute of every method, and
    human ratings of the same images."""
    from hoi_assets.detailscribe.decompose import read_components
    from hoi_assets.engines.blip_vqa import noun_phrases
    from hoi_assets.evaluation.benchmark_scores import format_costs
    from hoi_assets.evaluation.interacting_suite import score_interacting

    images = [context.published(name) for name in BENCHMARK_IMAGES]
    whole = whole_partitions(images)
    components: dict[str, Any] = {}
    for one in context.partitions("interaction_decompositions").values():
        components |= read_components(one.table("components"))
    topics: dict[str, str] = {}
    if context.settings.judge.topic:
        for one in context.published("interacting_prompts").values():
            topics |= one.table("rows").select("row_id", "topic").rows()
    scores = score_interacting(
        context.store,
        context.settings,
        [one.table("rows") for found in images for key, one in found.items() if key in whole],
        {row_id: [one.question for one in own] for row_id, own in components.items()},
        {row_id: noun_phrases(own) for row_id, own in components.items()},
        context.parent("human_ratings").table("rows"),
        context.log,
        topics,
    )
    if scores.ratings is not None:
        context.record("row_id", scores.ratings)
    more: dict[str, Any] = {
        "missing_scenarios": ", ".join(
            key for key in context.parent_keys["initial_images"] if key not in whole
        )
        or "none"
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
