"""From models to figures: evaluation images, scorecards with intervals, and the report."""

from typing import Any

import polars as pl

from hoi_assets.errors import HoiError
from hoi_assets.publishing.stage import Image, Markdown, Result, Work, stage
from hoi_assets.store.versions import Staging

GROUP = "evaluation"


@stage(
    "hoi_evaluation_images",
    partitions="hand_pose",
    deps=["base_prompt_taxonomy", "category_loras", "finetuned_model"],
    code_version="1",
    recipe=["hoi_assets/engines/sdxl/sampling.py", "hoi_assets/ppv/evaluation_images.py"],
    settings=["sampling", "evaluation"],
    models=["base"],
    group=GROUP,
    description="Held-out HOI prompts (seen and unseen pose-object combinations) and general "
    "prompts, drawn by the base, the category's DreamBooth LoRA and the fine-tuned model from "
    "the same noise.",
)
def hoi_evaluation_images(work: Work, out: Staging) -> Result:
    from hoi_assets.pictures import contact_sheet, to_webp
    from hoi_assets.ppv.evaluation_images import METHODS, draw_evaluation

    table = draw_evaluation(
        work.store,
        work.settings,
        work.taxonomy,
        work.category,
        dreambooth=work.parent("category_loras"),
        finetuned=work.parent("finetuned_model"),
        log=work.log,
    )
    out.write_table("rows", table)
    work.record("image_id", table)
    made = table.filter(pl.col("status") == "accepted")
    shown = made.sort("suite", "evaluation_prompt_id", "seed", "method").head(12 * len(METHODS))
    sheet = contact_sheet(
        [work.store.images.open(pixels) for pixels in shown["pixels"]],
        [f"{row['method']}: {row['prompt']}" for row in shown.iter_rows(named=True)],
        columns=2 * len(METHODS),
    )
    return Result(
        metadata={
            "images": made.height,
            "contact_sheet": Image(to_webp(sheet), "image/webp"),
        }
    )


SECOND_LINE = (
    "initial_images",
    "interaction_decompositions",
    "refined_images",
    "baseline_images",
)


@stage(
    "scorecards",
    deps=["hoi_evaluation_images", "verifier", *SECOND_LINE, "human_ratings"],
    code_version="4",
    recipe=[
        "hoi_assets/engines/vilt/answers.py",
        "hoi_assets/evaluation/human_scorecard.py",
        "hoi_assets/evaluation/benchmark_scores.py",
        "hoi_assets/engines/metrics.py",
        "hoi_assets/evaluation/bradley_terry.py",
        "hoi_assets/evaluation/columns.py",
        "hoi_assets/evaluation/hoi_suite.py",
        "hoi_assets/evaluation/human_ratings.py",
        "hoi_assets/evaluation/interacting_suite.py",
        "hoi_assets/evaluation/metric_agreement.py",
        "hoi_assets/evaluation/suite_scores.py",
        "hoi_assets/evaluation/vote_slices.py",
        "hoi_assets/evaluation/scorecards.py",
        "hoi_assets/evaluation/run_metrics.py",
        "hoi_assets/statistics.py",
        "hoi_assets/engines/vilt/vqa.py",
        "hoi_assets/llm/structured_output.py",
        "hoi_assets/evaluation/vlm_judge.py",
        "hoi_assets/llm/templates/again.j2",
        "hoi_assets/evaluation/templates/judge_system.j2",
        "hoi_assets/evaluation/templates/judge_user.j2",
    ],
    settings=["evaluation", "sampling", "critic", "judge"],
    models=["clip", "image_reward", "examiner", "critic", "component_examiner", "blip_vqa"],
    group=GROUP,
    description="Long table of means with n and 95% bootstrap intervals, and paired comparisons, "
    "per suite, method and slice: hand poses, general prompts, and InterActing; with what people "
    "said of the same pictures.",
)
def scorecards(work: Work, out: Staging) -> Result:
    from hoi_assets.detailscribe.decompose import read_components
    from hoi_assets.engines.blip_vqa import noun_phrases
    from hoi_assets.evaluation.benchmark_scores import format_costs
    from hoi_assets.evaluation.hoi_suite import score_hoi
    from hoi_assets.evaluation.interacting_suite import score_interacting
    from hoi_assets.pictures import scorecard_plot

    votes = work.parent("human_ratings").table("rows")
    suites = {}
    images = [one.table("rows") for one in work.published("hoi_evaluation_images").values()]
    if images:
        suites["hand_poses"] = score_hoi(
            work.store, work.settings, images, work.parent("verifier"), votes, work.log
        )
    drawn = [
        one.table("rows")
        for name in ("initial_images", "refined_images", "baseline_images")
        for one in work.published(name).values()
    ]
    components: dict[str, Any] = {}
    for one in work.published("interaction_decompositions").values():
        components |= read_components(one.table("components"))
    if drawn and components:
        suites["interacting"] = score_interacting(
            work.store,
            work.settings,
            drawn,
            {row_id: [c.question for c in own] for row_id, own in components.items()},
            {row_id: noun_phrases(own) for row_id, own in components.items()},
            votes,
            work.log,
        )
    if not suites:
        raise HoiError(
            "there is no picture to score",
            "materialise hoi_evaluation_images or refined_images for at least one partition",
        )
    names = dict.fromkeys(name for suite in suites.values() for name in suite.tables)
    for name in names:
        parts = [suite.tables[name] for suite in suites.values() if name in suite.tables]
        out.write_table(name, pl.concat(parts))
    metadata: dict[str, Any] = {
        f"scores_of_{name}": Image(scorecard_plot(suite.scorecard), "image/png")
        for name, suite in suites.items()
    }
    for suite in suites.values():
        if suite.ratings is not None:
            work.record("row_id", suite.ratings)
        if suite.costs is not None:
            metadata["cost_of_a_prompt"] = Markdown(format_costs(suite.costs))
    return Result(
        metadata={
            "images": sum(suite.scores["image_id"].n_unique() for suite in suites.values()),
            "missing_categories": ", ".join(work.missing("hoi_evaluation_images")) or "none",
            "missing_scenarios": ", ".join(work.missing("refined_images")) or "none",
            **metadata,
        }
    )


@stage(
    "evaluation_report",
    deps=[
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
        "scorecards",
    ],
    optional=["hoi_dataset", "finetuned_model"],
    code_version="2",
    recipe=[
        "hoi_assets/evaluation/report.py",
        "hoi_assets/evaluation/report_detailscribe.py",
        "hoi_assets/evaluation/report_parts.py",
        "hoi_assets/evaluation/report_ppv.py",
        "hoi_assets/evaluation/templates/report.html.j2",
    ],
    group=GROUP,
    description="One self-contained HTML page: the stages with pictures, verdicts with reasons, "
    "scores with intervals, category by method heat map.",
)
def evaluation_report(work: Work, out: Staging) -> Result:
    from hoi_assets.evaluation.report import build_report

    parents = dict(work.parents_in_force)
    parents["hoi_scorecards"] = parents["interacting_scorecards"] = parents.pop("scorecards")
    page = build_report(work.store, work.settings, parents)
    out.write_text("report.html", page.html)
    out.write_table("summary", page.summary)
    return Result(
        metadata={
            **page.summary.row(0, named=True),
            "report": Markdown("`<path>/report.html`"),
        }
    )
