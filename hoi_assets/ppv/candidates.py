"""Candidate images: which to draw, and how many more until enough are accepted."""

from dataclasses import dataclass
from typing import Any

import polars as pl

from hoi_assets.engines.image_cache import CachedImage, get_or_generate_images, prompt_columns
from hoi_assets.engines.image_spec import ImageSpec, Lora
from hoi_assets.engines.sdxl.loading import TEXT_ENCODERS
from hoi_assets.engines.sdxl.sampling import make_image_spec
from hoi_assets.engines.seeds import seed_of
from hoi_assets.engines.text_tokens import encoder_columns
from hoi_assets.errors import HoiError
from hoi_assets.ppv.auto_proposer import auto_prompt_columns, draw_by_auto_pipeline
from hoi_assets.ppv.proposer import prompt_with_identifier
from hoi_assets.ppv.round_loras import lora_of_round
from hoi_assets.ppv.round_plan import round_of
from hoi_assets.ppv.verdicts import verify_candidates
from hoi_assets.progress import Log
from hoi_assets.settings import Settings
from hoi_assets.store.tables import Column, Table
from hoi_assets.store.versions import Published, Store
from hoi_assets.taxonomy import Category

CANDIDATE_ROWS = Table(
    "rows",
    "one proposed image, with all it takes to draw it again",
    (
        Column("image_id", pl.String, "hash of all that determines the image, 16 hex digits"),
        Column("prompt_id", pl.String, "the detailed prompt, 16 hex digits"),
        Column("category", pl.String, "hand-pose category"),
        Column("prompt", pl.String, "the detailed prompt"),
        Column("drawn_prompt", pl.String, "the prompt as the model was given it"),
        *encoder_columns(TEXT_ENCODERS, "null for an encoder that the model lacks"),
        Column("negative_prompt", pl.String, "what must not be in the image; may be empty"),
        Column("seed", pl.Int64, "seed of the image's own noise"),
        Column("num_inference_steps", pl.Int64, "denoising steps"),
        Column("guidance_scale", pl.Float64, "classifier-free guidance"),
        Column("scheduler", pl.String, "noise scheduler"),
        Column("width", pl.Int64, "of the image", "px"),
        Column("height", pl.Int64, "of the image", "px"),
        Column("base_digest", pl.String, "hash of the base model"),
        Column(
            "lora_version",
            pl.String,
            "version of category_loras; null where models.proposer drew it",
            nullable=True,
        ),
        Column(
            "lora_digest",
            pl.String,
            "hash of the LoRA file; null where the prompt alone was drawn",
            nullable=True,
        ),
        Column("round", pl.Int64, "pass over the prompts that it was drawn in, from 0"),
        Column("slot", pl.Int64, "place in the batch, from 0"),
        Column("batch_size", pl.Int64, "images per batch", nullable=True),
        Column("dtype", pl.String, "data type of the weights", nullable=True),
        Column("device", pl.String, "device it was drawn on", nullable=True),
        Column("threads", pl.Int64, "CPU threads", nullable=True),
        Column("cpu_capability", pl.String, "instruction set that torch used", nullable=True),
        Column(
            "pixels", pl.String, "digest of the pixels; null where drawing failed", nullable=True
        ),
        Column(
            "pixel_std",
            pl.Float64,
            "largest standard deviation of a colour channel",
            "0..255",
            nullable=True,
        ),
        Column("status", pl.String, "accepted (drawn) or failed"),
        Column("reason", pl.String, "`code: detail` where it failed", nullable=True),
    ),
    key=("image_id",),
)


def published_lora(published: Published) -> Lora:
    """The LoRA of a published version of `category_loras` or `finetuned_model`."""
    digest = published.table("summary")["lora_digest"][0]
    return Lora(folder=str(published.file("lora")), digest=digest)


def propose_candidates(
    store: Store,
    settings: Settings,
    category: Category,
    prompts: pl.DataFrame,
    lora: Published | None,
    verifier: Published | None,
    log: Log,
) -> pl.DataFrame:
    """Draw the category's candidates: by SDXL with the category's LoRA, or by `models.proposer`.

    Without a goal every accepted prompt is drawn `candidates.per_prompt` times. With
    `candidates.accepted_goal`, passes of one image per prompt follow until the verifier has
    accepted that many or `candidates.budget` images are drawn. Its scores are cached, so
    `verified_pairs` does not compute them again. Prompts that a round asked for (see
    `round_plan.py`) come last, drawn `candidates.per_prompt` times with the LoRA of their round.

    Args:
        prompts: rows of `detailed_prompts`.
        lora: version of `category_loras`; None where `models.proposer` draws.
        verifier: version of `verifier`; needed only where there is a goal.

    Returns:
        Table `CANDIDATE_ROWS`.

    Raises:
        HoiError: no accepted prompt, or a goal without a verifier.
    """
    plan = settings.candidates
    if plan.accepted_goal is not None and verifier is None:
        raise HoiError(
            f"candidates.accepted_goal is {plan.accepted_goal}, and there is no verifier to accept "
            f"candidates of {category.key!r}",
            "materialise `verifier` first, or unset candidates.accepted_goal",
        )
    accepted = prompts.filter(pl.col("status") == "accepted").sort("prompt_id")
    first = accepted.filter(round_of("index") == 0)
    if first.is_empty():
        raise HoiError(
            f"category {category.key!r} has no accepted prompt",
            "look at the reasons in detailed_prompts; then correct data/taxonomy or the prompter",
        )
    draw = _Drawing(store, settings, category, lora, log)
    table = pl.DataFrame()
    passes = plan.per_prompt if plan.accepted_goal is None else _most_passes(plan.budget, first)
    for number in range(passes):
        wanted = first.height if plan.accepted_goal is None else plan.budget - table.height
        table = draw.added_to(table, first.head(wanted), number, 0)
        if plan.accepted_goal is not None and verifier is not None:
            verdicts = verify_candidates(store, settings, table, verifier, log)
            reached = verdicts.filter(pl.col("status") == "accepted").height
            log(
                f"round {number + 1}: {reached} of {plan.accepted_goal} accepted, "
                f"{table.height} drawn"
            )
            if reached >= plan.accepted_goal or table.height >= plan.budget:
                break
    later = accepted.filter(round_of("index") > 0)
    for (asked,), own in sorted(later.group_by(round_of("index"), maintain_order=True)):
        for number in range(plan.per_prompt):
            table = draw.added_to(table, own, number, int(asked))
    return table


def _most_passes(budget: int, prompts: pl.DataFrame) -> int:
    return -(-budget // prompts.height)


@dataclass(frozen=True)
class _Drawing:
    """What draws the category's candidates; see `propose_candidates`."""

    store: Store
    settings: Settings
    category: Category
    lora: Published | None
    log: Log

    def added_to(
        self, table: pl.DataFrame, prompts: pl.DataFrame, number: int, asked_by: int
    ) -> pl.DataFrame:
        """The table with one image more of each prompt.

        Args:
            number: of the pass, from 0.
            asked_by: the round that asked for the prompts; 0 where none did.
        """
        store, settings, key = self.store, self.settings, self.category.key
        if self.lora is None:
            drawn = draw_by_auto_pipeline(store, settings, self.category, prompts, number, self.log)
            read = auto_prompt_columns(store, settings, drawn, f"prompts of {key}", self.log)
        else:
            drawn = self._by_lora(prompts, number, table.height, lora_of_round(self.lora, asked_by))
            read = prompt_columns(store, settings, drawn, f"prompts of {key}", self.log)
        version = None if self.lora is None else self.lora.version
        new = _as_table(drawn, read, prompts, key, number, version)
        return pl.concat([table, new]) if table.height else new

    def _by_lora(
        self, prompts: pl.DataFrame, number: int, first_position: int, lora: Lora
    ) -> list[CachedImage]:
        rows: list[ImageSpec] = [
            make_image_spec(
                self.settings.sampling,
                prompt_with_identifier(self.category, row["prompt"]),
                seed_of(self.settings.candidates.seed, row["prompt_id"], number),
                first_position + position,
                lora,
                avoid=row["negative_prompt"],
            )
            for position, row in enumerate(prompts.iter_rows(named=True))
        ]
        label = f"candidates of {self.category.key}"
        return get_or_generate_images(self.store, self.settings, rows, label, self.log)


def _as_table(
    drawn: list[CachedImage],
    read: list[dict[str, Any]],
    prompts: pl.DataFrame,
    category: str,
    number: int,
    lora_version: str | None,
) -> pl.DataFrame:
    records = [
        known.as_record()
        | columns
        | {
            "prompt_id": row["prompt_id"],
            "prompt": row["prompt"],
            "category": category,
            "round": number,
            "lora_version": lora_version,
        }
        for known, columns, row in zip(drawn, read, prompts.iter_rows(named=True), strict=True)
    ]
    return CANDIDATE_ROWS.frame(records)
