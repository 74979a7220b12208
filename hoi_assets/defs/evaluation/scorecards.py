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
    code_version="3",
    recipe=[
        "hoi_assets/engines/vilt/answers.py",
        "hoi_assets/evaluation/human_scorecard.py",
        "hoi_assets/evaluation/benchmark_scores.py",
        "hoi_assets/engines/cached_scores.py",
        "hoi_assets/engines/clip_score.py",
        "hoi_assets/engines/image_reward.py",
        "hoi_assets/evaluation/human_agreement.py",
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
    from hoi_assets.engines.image_cache import generation_seconds
    from hoi_assets.evaluation.benchmark_scores import PAIRS, costs, reported, said_of_methods
    from hoi_assets.evaluation.human_scorecard import people_tables
    from hoi_assets.evaluation.run_metrics import reference_scores, score
    from hoi_assets.evaluation.scorecards import compare, summarise
    from hoi_assets.pictures import scorecard_plot

    settings, config = work.settings, work.settings.evaluation
    verifier = work.parent("verifier")
    reference = reference_scores(work.store, settings, verifier, work.log)
    images = [one.table("rows") for one in work.published("hoi_evaluation_images").values()]
    cards, comparisons, scores = [], [], []
    rules: dict[str, str] = {}
    compute: dict[str, str] = {}
    spent = pl.DataFrame()
    if images:
        drawn = pl.concat(images).filter(pl.col("status") == "accepted")
        of_poses = score(work.store, settings, drawn, verifier, work.log)
        rules = dict.fromkeys(drawn["method"].unique(), "none: every image drawn is scored")
        each = 2 if settings.sampling.guidance_scale > 1 else 1
        passes_each = each * settings.sampling.num_inference_steps
        compute = dict.fromkeys(rules, f"{passes_each} denoiser passes an image")
        scores.append(of_poses)
        cards.append(summarise(of_poses, config, reference, rules, compute))
        comparisons.append(compare(of_poses, config))
    rows, candidates = _benchmark(work, out)
    if rows:
        of_benchmark = reported(candidates)
        benchmark_rules, passes = said_of_methods(rows)
        rules, compute = rules | benchmark_rules, compute | passes
        scores.append(of_benchmark.select(scores[0].columns if scores else of_benchmark.columns))
        cards.append(summarise(of_benchmark, config, reference, benchmark_rules, passes))
        comparisons.append(compare(of_benchmark, config, PAIRS))
        out.write_table("candidates", candidates)
        spent = costs(candidates, generation_seconds(work.store, candidates["image_id"].unique()))
    if not scores:
        raise HoiError(
            "there is no picture to score",
            "materialise hoi_evaluation_images or refined_images for at least one partition",
        )
    every = pl.concat(scores, how="vertical_relaxed")
    named = every.rename({"evaluation_prompt_id": "prompt_id", "pixels": "image"})
    votes = work.parent("human_ratings").table("rows")
    people = people_tables(votes, named, config.bootstrap_samples, rules, compute)
    out.write_table("scores", every)
    card = pl.concat([*cards, people["human_scorecard"]])
    out.write_table("scorecard", card)
    out.write_table("comparisons", pl.concat(comparisons))
    out.write_table("metric_agreement", people["metric_agreement"])
    plots = {
        f"scores_of_{name}": Image(scorecard_plot(part), "image/png")
        for name, part in (
            ("hand_poses", card.filter(pl.col("suite") != "interacting")),
            ("interacting", card.filter(pl.col("suite") == "interacting")),
        )
        if part.height
    }
    return Result(
        metadata={
            "images": every["image_id"].n_unique(),
            "missing_categories": ", ".join(work.missing("hoi_evaluation_images")) or "none",
            "missing_scenarios": ", ".join(work.missing("refined_images")) or "none",
            **({"cost_of_a_prompt": Markdown(_told(spent))} if spent.height else {}),
            **plots,
        }
    )


def _told(spent: pl.DataFrame) -> str:
    """What methods cost, as a Markdown table. The clock is told here and not in the version."""
    lines = [
        f"| {one['method']} | {one['passes']:.0f} | "
        f"{'–' if one['seconds'] is None else format(one['seconds'], '.1f')} |"
        for one in spent.iter_rows(named=True)
    ]
    return "\n".join(["| method | denoiser passes | seconds |", "| --- | --- | --- |", *lines])


def _benchmark(work: Work, out: Staging) -> tuple[list[dict[str, Any]], pl.DataFrame]:
    """All candidates of the second line, and their scores; the judge rates what was selected."""
    from hoi_assets.detailscribe.decompose import read_components
    from hoi_assets.engines.blip_vqa import noun_phrases
    from hoi_assets.evaluation.benchmark_scores import candidates, score_candidates

    images = [
        one.table("rows")
        for name in ("initial_images", "refined_images", "baseline_images")
        for one in work.published(name).values()
    ]
    components: dict[str, Any] = {}
    for one in work.published("interaction_decompositions").values():
        components |= read_components(one.table("components"))
    if not images or not components:
        return [], pl.DataFrame()
    rows = candidates(
        images,
        {row_id: [c.question for c in own] for row_id, own in components.items()},
        {row_id: noun_phrases(own) for row_id, own in components.items()},
    )
    scores = score_candidates(work.store, work.settings, rows, work.log)
    if work.settings.judge.endpoint is not None:
        scores = pl.concat([scores, _rated(work, rows, out)], how="vertical_relaxed")
    return rows, scores


def _rated(work: Work, rows: list[dict[str, Any]], out: Staging) -> pl.DataFrame:
    """The endpoint's 1–5 and yes/no of what was selected; null where it gave none, for the reason
    that its table `ratings` and the ledger hold."""
    from hoi_assets.evaluation.benchmark_scores import CANDIDATE
    from hoi_assets.evaluation.vlm_judge import (
        EndpointJudge,
        RatingRequest,
        rate_pictures,
        ratings_table,
    )
    from hoi_assets.llm.shown_image import ShownImage

    asked = [row for row in rows if row["selected"]]
    requests = [
        RatingRequest(
            row["image_id"], row["prompt"], ShownImage.of_store(work.store, row["pixels"])
        )
        for row in asked
    ]
    judge = EndpointJudge(work.settings.judge)
    told = rate_pictures(requests, judge, work.store.ledger, work.log)
    ratings = ratings_table(told).unique("row_id", maintain_order=True)
    out.write_table("ratings", ratings)
    work.record("row_id", ratings)
    return pl.DataFrame(
        [
            {name: row[name] for name in CANDIDATE} | {"metric": metric, "value": value}
            for row, rating in zip(asked, told, strict=True)
            for metric, value in (
                ("judge_rating", None if rating.rating is None else float(rating.rating)),
                ("judge_yes", None if rating.shows is None else float(rating.shows)),
            )
        ],
        infer_schema_length=None,
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
    recipe=["hoi_assets/evaluation/report.py", "hoi_assets/evaluation/templates/report.html.j2"],
    group=GROUP,
    description="One self-contained HTML page: the stages with pictures, verdicts with reasons, "
    "scores with intervals, category by method heat map.",
)
def evaluation_report(work: Work, out: Staging) -> Result:
    from hoi_assets.evaluation.report import build_report

    page = build_report(work.store, work.settings, work.parents_in_force)
    out.write_text("report.html", page.html)
    out.write_table("summary", page.summary)
    return Result(
        metadata={
            **page.summary.row(0, named=True),
            "report": Markdown("`<path>/report.html`"),
        }
    )
