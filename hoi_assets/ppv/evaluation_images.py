"""Evaluation images: the same prompts and noise through base, DreamBooth LoRA and fine-tuned."""

import polars as pl

from hoi_assets.engines.image_cache import get_or_generate_images, prompt_columns
from hoi_assets.engines.image_spec import ImageSpec, Lora
from hoi_assets.engines.sdxl.sampling import make_image_spec
from hoi_assets.engines.seeds import seed_of
from hoi_assets.ppv.candidates import CANDIDATE_ROWS, published_lora
from hoi_assets.ppv.evaluation_prompts import EvaluationPrompt, general_prompts, held_out_prompts
from hoi_assets.ppv.proposer import prompt_with_identifier
from hoi_assets.progress import Log
from hoi_assets.settings import Settings
from hoi_assets.store.tables import Column, Table
from hoi_assets.store.versions import Published, Store
from hoi_assets.taxonomy import Taxonomy

METHODS = ("base", "dreambooth", "finetuned")

EVALUATION_IMAGE_ROWS = Table(
    "rows",
    "one image of one method for an evaluation prompt",
    (
        Column("suite", pl.String, "hoi (held-out prompts of the category) or general"),
        Column("method", pl.String, "base, dreambooth or finetuned"),
        Column("evaluation_prompt_id", pl.String, "the evaluation prompt, 16 hex digits"),
        Column("object", pl.String, "the object the prompt asks for"),
        Column(
            "colour", pl.String, "its colour; null where the prompt does not say", nullable=True
        ),
        Column("side", pl.String, "left, right or both; null where it does not say", nullable=True),
        Column(
            "seen", pl.Boolean, "the pose and object are trained on; null if general", None, True
        ),
        *(
            column
            for column in CANDIDATE_ROWS.columns
            if column.name not in ("prompt_id", "round", "lora_version")
        ),
    ),
    key=("image_id",),
).with_columns(
    Column("prompt", pl.String, "the evaluation prompt"),
    Column(
        "lora_digest", pl.String, "hash of the LoRA file; null for the base model", nullable=True
    ),
)


def draw_evaluation_images(
    store: Store,
    settings: Settings,
    taxonomy: Taxonomy,
    category: str,
    dreambooth: Published,
    finetuned: Published,
    log: Log,
) -> pl.DataFrame:
    """Draw the category's held-out prompts and its share of the general prompts.

    A prompt's noise is the same for every method, so that differences are paired. The DreamBooth
    method draws each prompt with the category's LoRA, the general ones too: an ensemble draws a
    category's prompts with the category's member.

    Returns:
        Table `EVALUATION_IMAGE_ROWS`.
    """
    config = settings.evaluation
    member = taxonomy.categories[category]
    prompts: list[EvaluationPrompt] = [
        *held_out_prompts(taxonomy, category, config.hoi_prompts_per_category),
        *general_prompts(taxonomy, category, config.general_prompts),
    ]
    weights: dict[str, Lora | None] = {
        "base": None,
        "dreambooth": published_lora(dreambooth),
        "finetuned": published_lora(finetuned),
    }
    planned: list[tuple[str, EvaluationPrompt, ImageSpec]] = []
    for method in METHODS:
        for prompt in prompts:
            for number in range(config.images_per_prompt):
                text = (
                    prompt_with_identifier(member, prompt.text)
                    if method == "dreambooth"
                    else prompt.text
                )
                seed = seed_of("evaluation", config.seed, prompt.evaluation_prompt_id, number)
                row = make_image_spec(settings.sampling, text, seed, len(planned), weights[method])
                planned.append((method, prompt, row))
    drawn = get_or_generate_images(
        store, settings, [row for *_, row in planned], f"evaluation of {category}", log
    )
    read = prompt_columns(store, settings, drawn, f"evaluation prompts of {category}", log)
    return EVALUATION_IMAGE_ROWS.frame(
        [
            known.as_record()
            | columns
            | {
                "suite": prompt.suite,
                "method": method,
                "category": category,
                "evaluation_prompt_id": prompt.evaluation_prompt_id,
                "prompt": prompt.text,
                "object": prompt.object,
                "colour": prompt.colour,
                "side": prompt.side,
                "seen": prompt.seen,
            }
            for (method, prompt, _), known, columns in zip(planned, drawn, read, strict=True)
        ]
    )
