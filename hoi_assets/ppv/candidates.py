"""Candidate images: which to draw, and how many more until enough are accepted."""

from typing import Any

import polars as pl

from hoi_assets.engines.image_cache import CachedImage, get_or_generate_images
from hoi_assets.engines.image_spec import ImageSpec, Lora
from hoi_assets.engines.sdxl.sampling import make_image_spec
from hoi_assets.engines.seeds import seed_of
from hoi_assets.errors import HoiError
from hoi_assets.ppv.proposer import trigger
from hoi_assets.ppv.verdicts import verify
from hoi_assets.progress import Log
from hoi_assets.settings import Settings
from hoi_assets.store.versions import Published, Store
from hoi_assets.taxonomy import Category


def lora_of(published: Published) -> Lora:
    """The LoRA of a published version of `category_loras` or `finetuned_model`."""
    digest = published.table("summary")["lora_digest"][0]
    return Lora(folder=str(published.file("lora")), digest=digest)


def propose(
    store: Store,
    settings: Settings,
    category: Category,
    prompts: pl.DataFrame,
    lora: Published,
    verifier: Published,
    log: Log,
) -> pl.DataFrame:
    """Draw the category's candidates.

    Without a goal every accepted prompt is drawn `candidates.per_prompt` times. With
    `candidates.accepted_goal`, rounds of one image a prompt follow until the verifier accepted
    that many or `candidates.budget` images are drawn.

    Args:
        prompts: rows of `detailed_prompts`.
        lora: version of `category_loras`.
        verifier: version of `verifier`; asked only where there is a goal.

    Returns:
        One row an image: see `Known.as_record`, with prompt_id, prompt, category, round,
        lora_version.

    Raises:
        HoiError: no accepted prompt.
    """
    accepted = prompts.filter(pl.col("status") == "accepted").sort("prompt_id")
    if accepted.is_empty():
        raise HoiError(
            f"category {category.key!r} has no accepted prompt",
            "look at the reasons in detailed_prompts; then mend data/taxonomy or the prompter",
        )
    plan = settings.candidates
    weights = lora_of(lora)
    table = pl.DataFrame()
    rounds = plan.per_prompt if plan.accepted_goal is None else _most_rounds(plan.budget, accepted)
    for number in range(rounds):
        wanted = accepted.height if plan.accepted_goal is None else plan.budget - table.height
        drawn = _draw_round(
            store, settings, category, accepted.head(wanted), weights, number, table.height, log
        )
        fresh = _as_table(drawn, accepted.head(wanted), category.key, number, lora.version)
        table = pl.concat([table, fresh]) if table.height else fresh
        if plan.accepted_goal is not None:
            verdicts = verify(store, settings, table, verifier, log)
            kept = verdicts.filter(pl.col("status") == "accepted").height
            log(
                f"round {number + 1}: {kept} of {plan.accepted_goal} accepted, {table.height} drawn"
            )
            if kept >= plan.accepted_goal or table.height >= plan.budget:
                break
    return table


def _most_rounds(budget: int, prompts: pl.DataFrame) -> int:
    return -(-budget // prompts.height)


def _draw_round(
    store: Store,
    settings: Settings,
    category: Category,
    prompts: pl.DataFrame,
    lora: Lora,
    number: int,
    first_position: int,
    log: Log,
) -> list[CachedImage]:
    rows: list[ImageSpec] = [
        make_image_spec(
            settings.sampling,
            trigger(category, row["prompt"]),
            seed_of(settings.candidates.seed, row["prompt_id"], number),
            first_position + position,
            lora,
        )
        for position, row in enumerate(prompts.iter_rows(named=True))
    ]
    return get_or_generate_images(store, settings, rows, f"candidates of {category.key}", log)


SCHEMA: dict[str, Any] = {
    "image_id": pl.String,
    "prompt_id": pl.String,
    "category": pl.String,
    "prompt": pl.String,
    "drawn_prompt": pl.String,
    "negative_prompt": pl.String,
    "seed": pl.Int64,
    "num_inference_steps": pl.Int64,
    "guidance_scale": pl.Float64,
    "scheduler": pl.String,
    "width": pl.Int64,
    "height": pl.Int64,
    "base_digest": pl.String,
    "lora_version": pl.String,
    "lora_digest": pl.String,
    "round": pl.Int64,
    "slot": pl.Int64,
    "batch_size": pl.Int64,
    "dtype": pl.String,
    "device": pl.String,
    "threads": pl.Int64,
    "cpu_capability": pl.String,
    "pixels": pl.String,
    "pixel_std": pl.Float64,
    "status": pl.String,
    "reason": pl.String,
}


def _as_table(
    drawn: list[CachedImage], prompts: pl.DataFrame, category: str, number: int, lora_version: str
) -> pl.DataFrame:
    records = [
        known.as_record()
        | {
            "prompt_id": row["prompt_id"],
            "prompt": row["prompt"],
            "category": category,
            "round": number,
            "lora_version": lora_version,
        }
        for known, row in zip(drawn, prompts.iter_rows(named=True), strict=True)
    ]
    return pl.DataFrame(records, schema=SCHEMA)
