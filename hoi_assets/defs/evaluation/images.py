"""Held-out prompts drawn by every model that is compared."""

import polars as pl

from hoi_assets.defs.automation import follow_per_partition
from hoi_assets.defs.groups import EVALUATION, OWNERS
from hoi_assets.defs.partitions import hand_pose
from hoi_assets.defs.sheets import image_sheet
from hoi_assets.defs.suites import (
    ACCEPTED_WITHOUT_PIXELS,
    CUT_PROMPTS,
    FAILED_SHARE,
    FLAT_SHARE,
    ONE_CATEGORY,
    REPEATED_PICTURES,
    STORED_PICTURES,
    no_blank,
)
from hoi_assets.ppv.evaluation_images import EVALUATION_IMAGE_ROWS
from hoi_assets.publishing.asset import GPU_POOL, published_asset
from hoi_assets.publishing.context import Result, StageContext
from hoi_assets.publishing.expectations import in_set, measure, not_null, row_count, suite, unique
from hoi_assets.store.versions import Staging

SHOWN_PROMPTS = 12

EVALUATION_IMAGES_SUITE = suite(
    rows=[
        row_count(1),
        unique("image_id"),
        not_null("image_id", "evaluation_prompt_id", "prompt", "seed"),
        in_set("suite", ["hoi", "general"]),
        in_set("method", ["base", "dreambooth", "finetuned"]),
        in_set("status", ["accepted", "failed"]),
        measure("methods", "count(distinct method)", 3, 3),
        ONE_CATEGORY,
        FAILED_SHARE,
        ACCEPTED_WITHOUT_PIXELS,
        FLAT_SHARE,
        REPEATED_PICTURES,
        CUT_PROMPTS,
        no_blank("prompt"),
    ],
    contents=[STORED_PICTURES],
)


@published_asset(
    partitions_def=hand_pose,
    deps=["base_prompt_taxonomy", "category_loras", "finetuned_model"],
    group_name=EVALUATION,
    owners=OWNERS,
    kinds={"pytorch", "diffusers"},
    pool=GPU_POOL,
    automation_condition=follow_per_partition,
    code_version="2",
    suite=EVALUATION_IMAGES_SUITE,
    tables=[EVALUATION_IMAGE_ROWS],
    settings=["sampling", "evaluation"],
    models=["base"],
)
def hoi_evaluation_images(context: StageContext, staging: Staging) -> Result:
    """Held-out HOI prompts (seen and unseen pose-object combinations) and general prompts, drawn by
    the base, the category's DreamBooth LoRA and the fine-tuned model from the same noise."""
    from hoi_assets.ppv.evaluation_images import METHODS, draw_evaluation_images

    table = draw_evaluation_images(
        context.store,
        context.settings,
        context.taxonomy,
        context.partition_key,
        dreambooth=context.parent("category_loras"),
        finetuned=context.parent("finetuned_model"),
        log=context.log,
    )
    staging.write_table("rows", table)
    context.record("image_id", table)
    drawn = table.filter(pl.col("status") == "accepted")
    shown = drawn.sort("suite", "evaluation_prompt_id", "seed", "method")
    shown = shown.head(SHOWN_PROMPTS * len(METHODS))
    sheet = image_sheet(
        context.store,
        shown["pixels"],
        [f"{row['method']}: {row['prompt']}" for row in shown.iter_rows(named=True)],
        columns=2 * len(METHODS),
    )
    return Result(
        metadata={
            "images": drawn.height,
            "contact_sheet": sheet,
        }
    )
