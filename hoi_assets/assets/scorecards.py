"""From models to figures: evaluation images, scorecards with intervals, and the report."""

import polars as pl

from hoi_assets.gates.stage import Image, Markdown, Result, Work, stage
from hoi_assets.store.versions import Staging

GROUP = "prompt_propose_verify"


@stage(
    "hoi_evaluation_images",
    partitioned=True,
    deps=["base_prompt_taxonomy", "category_loras", "finetuned_model"],
    code_version="1",
    recipe=["hoi_assets/diffusion/sampling.py", "hoi_assets/diffusion/evaluation.py"],
    settings=["sampling", "evaluation"],
    models=["base"],
    group=GROUP,
    description="Held-out HOI prompts (seen and unseen pose-object combinations) and general "
    "prompts, drawn by the base, the category's DreamBooth LoRA and the fine-tuned model from "
    "the same noise.",
)
def hoi_evaluation_images(work: Work, out: Staging) -> Result:
    from hoi_assets.diffusion.evaluation import METHODS, draw_evaluation
    from hoi_assets.pictures import contact_sheet, to_webp

    table = draw_evaluation(
        work.store,
        work.settings,
        work.taxonomy,
        work.category,
        dreambooth=work.parent("category_loras"),
        finetuned=work.parent("finetuned_model"),
        say=work.say,
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


@stage(
    "scorecards",
    deps=["hoi_evaluation_images", "verifier"],
    code_version="1",
    recipe=[
        "hoi_assets/judging/scoring.py",
        "hoi_assets/judging/scorecards.py",
        "hoi_assets/judging/metrics.py",
        "hoi_assets/judging/statistics.py",
    ],
    settings=["evaluation", "sampling"],
    models=["clip", "image_reward", "examiner"],
    group=GROUP,
    description="Long table of means with n and 95% bootstrap intervals, and paired comparisons, "
    "per suite, method and slice.",
)
def scorecards(work: Work, out: Staging) -> Result:
    from hoi_assets.judging.scorecards import compare, summarise
    from hoi_assets.judging.scoring import reference_scores, score
    from hoi_assets.pictures import scorecard_plot

    images = pl.concat(
        [published.table("rows") for published in work.parents("hoi_evaluation_images").values()]
    ).filter(pl.col("status") == "accepted")
    verifier = work.parent("verifier")
    scores = score(work.store, work.settings, images, verifier, work.say)
    card = summarise(
        scores,
        work.settings.evaluation,
        reference=reference_scores(work.store, work.settings, verifier, work.say),
        selection_rule="none: every image drawn is scored",
        compute=f"{work.settings.sampling.num_inference_steps} denoising steps an image",
    )
    out.write_table("scores", scores)
    out.write_table("scorecard", card)
    out.write_table("comparisons", compare(scores, work.settings.evaluation))
    return Result(
        metadata={
            "images": images.height,
            "categories": images["category"].n_unique(),
            "missing": ", ".join(work.missing("hoi_evaluation_images")) or "none",
            "scores": Image(scorecard_plot(card), "image/png"),
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
        "scorecards",
    ],
    code_version="1",
    recipe=["hoi_assets/report.py", "hoi_assets/templates/report.html.j2"],
    group=GROUP,
    description="One self-contained HTML page: the stages with pictures, verdicts with reasons, "
    "scores with intervals, category by method heat map.",
)
def evaluation_report(work: Work, out: Staging) -> Result:
    from hoi_assets.report import build_report

    page = build_report(work.store, work.settings, work.parents_in_force)
    out.write_text("report.html", page.html)
    out.write_table("summary", page.summary)
    return Result(
        metadata={
            **page.summary.row(0, named=True),
            "report": Markdown("`<path>/report.html`"),
        }
    )
