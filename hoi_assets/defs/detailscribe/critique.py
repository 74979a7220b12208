"""The plain images, and what the critic finds wrong with them, component by component."""

import polars as pl

from hoi_assets.defs.groups import DETAILSCRIBE, OWNERS
from hoi_assets.defs.partitions import scenario
from hoi_assets.defs.sheets import image_sheet
from hoi_assets.defs.suites import (
    FAILED_SHARE,
    FAILED_WITHOUT_REASON,
    REPEATED_PICTURES,
    benchmark_images,
)
from hoi_assets.detailscribe.critique import CRITIQUE_FINDINGS, CRITIQUE_ROWS
from hoi_assets.detailscribe.image_rows import IMAGE_ROWS
from hoi_assets.publishing.asset import GPU_POOL, published_asset
from hoi_assets.publishing.context import Result, StageContext
from hoi_assets.publishing.expectations import (
    between,
    in_set,
    not_null,
    row_count,
    share,
    suite,
    unexpected_rows,
    unique,
)
from hoi_assets.store.versions import Staging

SHOWN_IMAGES = 36

INITIAL_IMAGES_SUITE = (*benchmark_images(["plain"]), *suite(rows=[REPEATED_PICTURES]))


@published_asset(
    partitions_def=scenario,
    deps=["interacting_prompts"],
    group_name=DETAILSCRIBE,
    owners=OWNERS,
    kinds={"pytorch", "diffusers"},
    pool=GPU_POOL,
    code_version="3",
    suite=INITIAL_IMAGES_SUITE,
    tables=[IMAGE_ROWS],
    settings=["redenoising"],
    models=["benchmark"],
)
def initial_images(context: StageContext, staging: Staging) -> Result:
    """The benchmark model's plain image of each prompt; the latents at the switch steps are cached
    for the variants."""
    from hoi_assets.detailscribe.initial_images import draw_initial_images

    prompts = context.parent("interacting_prompts").table("rows")
    usable = prompts.filter(pl.col("status") == "accepted")
    table = draw_initial_images(context.store, context.settings, usable, context.log)
    staging.write_table("rows", table)
    context.record("row_id", table)
    drawn = table.filter(pl.col("status") == "accepted")
    shown = drawn.head(SHOWN_IMAGES)
    sheet = image_sheet(context.store, shown["pixels"], shown["prompt"].to_list())
    return Result(
        metadata={
            "images": drawn.height,
            "failed": table.height - drawn.height,
            "denoiser_evaluations": int(table["denoiser_evaluations"].sum()),
            "contact_sheet": sheet,
        }
    )


CRITIQUES_SUITE = suite(
    rows=[
        row_count(1),
        unique("row_id"),
        not_null("row_id", "prompt"),
        in_set("status", ["accepted", "failed"]),
        FAILED_SHARE,
        FAILED_WITHOUT_REASON,
        # The method's own promise: the sentence first, word for word, then the corrections.
        unexpected_rows("not_verbatim", "not starts_with(corrected_prompt, prompt)"),
        between("words", max_value="${critic.max_words}", nullable=True),
    ],
    findings=[
        unique("row_id", "rank"),
        between("confidence", 0, 1),
        share("cut_question_share", "question_cut", "${gates.warn_cut_share}", blocking=False),
    ],
)


@published_asset(
    partitions_def=scenario,
    deps=["initial_images", "interaction_decompositions"],
    # The published protocol tells the critic the topic.
    deps_when={"interacting_prompts": lambda settings: settings.critic.protocol == "published"},
    group_name=DETAILSCRIBE,
    owners=OWNERS,
    kinds={"pytorch", "transformers"},
    pool=GPU_POOL,
    code_version="4",
    suite=CRITIQUES_SUITE,
    tables=[CRITIQUE_ROWS, CRITIQUE_FINDINGS],
    settings=["critic"],
    models=["critic"],
)
def image_critiques(context: StageContext, staging: Staging) -> Result:
    """Per component of the prompt whether the image shows it, and the corrected prompt: the
    original sentence, then what is missing; or nothing to correct."""
    from hoi_assets.detailscribe.critique import critiques_frame, findings_frame
    from hoi_assets.detailscribe.decompose import read_components
    from hoi_assets.detailscribe.initial_images import critique_initial_images
    from hoi_assets.detailscribe.vqa_critic import count_critic_tokens

    initial = context.parent("initial_images").table("rows")
    components = read_components(context.parent("interaction_decompositions").table("components"))
    topics = None
    if context.settings.critic.protocol == "published":
        prompts = context.parent("interacting_prompts").table("rows")
        topics = dict(zip(prompts["row_id"], prompts["topic"], strict=True))
    critiques = critique_initial_images(
        context.store, context.settings, initial, components, context.log, topics
    )
    counts = count_critic_tokens(context.store, context.settings, critiques)
    table, findings = critiques_frame(critiques), findings_frame(critiques, counts)
    staging.write_table("rows", table)
    staging.write_table("findings", findings)
    context.record("row_id", table)
    pixels = dict(zip(initial["row_id"], initial["pixels"], strict=True))
    shown = table.filter(pl.col("status") == "accepted").head(SHOWN_IMAGES)
    failing = findings.filter(~pl.col("satisfied") & pl.col("component").is_not_null())
    problems = dict(failing.group_by("row_id", maintain_order=True).agg("problem").rows())
    sheet = image_sheet(
        context.store,
        [pixels[row_id] for row_id in shown["row_id"]],
        ["; ".join(problems.get(row_id, ["nothing to correct"])) for row_id in shown["row_id"]],
        good=shown["nothing_to_correct"].to_list(),
    )
    return Result(
        metadata={
            "images": table.height,
            "nothing_to_correct": int(table["nothing_to_correct"].sum()),
            "components": int(table["components"].sum()),
            "failing_components": int(table["failing"].sum()),
            "failed": table.filter(pl.col("status") == "failed").height,
            "contact_sheet": sheet,
        }
    )
