"""Rows of `initial_images`, `refined_images` and `baseline_images`: one table, one row per image.

A benchmark row has one candidate or more per method, and one of them is selected.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import polars as pl

from hoi_assets.detailscribe.benchmark_images import CachedVariant, benchmark_model
from hoi_assets.detailscribe.columns import STATUS_COLUMNS
from hoi_assets.engines.image_cache import CachedImage
from hoi_assets.engines.image_spec import ImageSpec, slot_of
from hoi_assets.engines.sd3.compute import denoiser_evaluations
from hoi_assets.engines.sd3.loading import PROMPT_COLUMNS, TEXT_ENCODERS, sd3_text_reader
from hoi_assets.engines.text_tokens import cached_token_counts, encoder_values, log_cut
from hoi_assets.progress import Log
from hoi_assets.settings import Settings
from hoi_assets.store.tables import Column, Table
from hoi_assets.store.versions import Store
from hoi_assets.store.weights import model_digest

# Values of the column `method`.
PLAIN, DETAILSCRIBE, CRAFT = "plain", "detailscribe", "craft"
LOCAL_REPAIR, IMAGE_EDIT = "local_repair", "image_edit"
MULTI_SEED, MULTI_SEED_CLIP = "multi_seed", "multi_seed_clip"
REWRITE, REFINE, ENDPOINT = "rewrite", "refine", "endpoint"

Record = dict[str, Any]

_OF_VARIANTS = "null for a plain image"
_OF_OUR_MODEL = "null for an image endpoint's image"

IMAGE_ROWS = Table(
    "rows",
    "One image that a method drew for a prompt of the benchmark.",
    (
        Column("row_id", pl.String, "row of interacting_prompts"),
        Column("scenario", pl.String, "scenario of the benchmark"),
        Column("prompt", pl.String, "the original prompt, by which the image is judged"),
        Column("method", pl.String, "method that drew the image"),
        Column("candidate", pl.Int64, "number of the image among the method's, from 0"),
        Column("image_id", pl.String, "hash of all that determines the image, 16 hex digits"),
        Column("drawn_prompt", pl.String, "prompt that the first denoising steps used"),
        Column(
            "corrected_prompt",
            pl.String,
            f"prompt that the steps after the switch used; {_OF_VARIANTS}",
            nullable=True,
        ),
        *PROMPT_COLUMNS,
        Column(
            "switch_step",
            pl.Int64,
            f"steps under drawn_prompt before the switch; {_OF_VARIANTS}",
            "steps",
            nullable=True,
        ),
        Column(
            "s_reference",
            pl.Boolean,
            f"whether the switch is the published code's; {_OF_VARIANTS}",
            nullable=True,
        ),
        Column("negative_prompt", pl.String, f"negative prompt; {_OF_OUR_MODEL}", nullable=True),
        Column("seed", pl.Int64, "seed of the noise"),
        Column(
            "num_inference_steps",
            pl.Int64,
            f"denoising steps; {_OF_OUR_MODEL}",
            "steps",
            nullable=True,
        ),
        Column(
            "guidance_scale",
            pl.Float64,
            f"classifier-free guidance; {_OF_OUR_MODEL}",
            nullable=True,
        ),
        Column("scheduler", pl.String, f"noise schedule; {_OF_OUR_MODEL}", nullable=True),
        Column("width", pl.Int64, "width of the image", "px"),
        Column("height", pl.Int64, "height of the image", "px"),
        Column(
            "base_digest",
            pl.String,
            f"hash of the benchmark model's weights; {_OF_OUR_MODEL}",
            nullable=True,
        ),
        Column("slot", pl.Int64, f"place in the batch; {_OF_OUR_MODEL}", nullable=True),
        Column("batch_size", pl.Int64, "slots of the batch; null if not drawn here", nullable=True),
        Column("dtype", pl.String, "precision; null if not drawn here", nullable=True),
        Column("device", pl.String, "device; null if not drawn here", nullable=True),
        Column("threads", pl.Int64, "CPU threads; null if not drawn here", nullable=True),
        Column(
            "cpu_capability",
            pl.String,
            "instruction set that torch used; null if not drawn here",
            nullable=True,
        ),
        Column(
            "denoiser_evaluations",
            pl.Int64,
            "forward passes of the denoiser for this image alone (NFE); 0 for an image endpoint's",
            "NFE",
        ),
        Column("pixels", pl.String, "digest of the pixels; null if not drawn", nullable=True),
        Column(
            "pixel_std",
            pl.Float64,
            "largest standard deviation of a colour channel, 0 to 255; about 0: a blank image",
            nullable=True,
        ),
        Column(
            "satisfied",
            pl.Int64,
            "components that the critic found satisfied; null if it did not judge the image",
            "components",
            nullable=True,
        ),
        Column(
            "probability",
            pl.Float64,
            "mean probability that a component is satisfied; null as above",
            nullable=True,
        ),
        Column("selected", pl.Boolean, "whether the method chose this image for the prompt"),
        Column("why", pl.String, "selection rule, and why rounds ended", nullable=True),
        *STATUS_COLUMNS,
    ),
    key=("row_id", "method", "candidate"),
)


def image_rows_frame(
    store: Store, settings: Settings, records: Iterable[Record], log: Log
) -> pl.DataFrame:
    """A frame of IMAGE_ROWS, with what each text encoder read of the prompt.

    Counted is the corrected prompt where there is one; it begins with the drawn prompt.

    Args:
        records: rows of IMAGE_ROWS; their PROMPT_COLUMNS are filled in here.

    Raises:
        HoiError: a tokenizer of the benchmark model cannot be read.
    """
    rows = list(records)
    not_read = {None, *_other_models(settings)}
    texts = [
        None if row["base_digest"] in not_read else row["corrected_prompt"] or row["drawn_prompt"]
        for row in rows
    ]
    reader = sd3_text_reader(benchmark_model(settings))
    counts = cached_token_counts(store, reader, [text for text in texts if text is not None])
    log_cut("prompts", counts, log)
    negatives = [row["negative_prompt"] for row in rows if row["negative_prompt"]]
    log_cut("negative prompts", cached_token_counts(store, reader, negatives), log)
    return IMAGE_ROWS.frame(
        row | encoder_values(None if text is None else counts[text], TEXT_ENCODERS)
        for row, text in zip(rows, texts, strict=True)
    )


def _other_models(settings: Settings) -> set[str]:
    """Digests of models that draw and are not the benchmark model; they read texts otherwise."""
    named = [settings.models.repair, settings.models.editor]
    others = {model_digest(ref) for ref in named if ref is not None}
    return others - {model_digest(benchmark_model(settings))}


def image_columns(known: CachedImage) -> Record:
    """The columns that say how a plain image was drawn."""
    record = known.as_record()
    del record["lora_digest"]
    return record | {
        "corrected_prompt": None,
        "switch_step": None,
        "s_reference": None,
        "denoiser_evaluations": denoiser_evaluations(known.row),
    }


def variant_columns(variant: CachedVariant) -> Record:
    """The columns that say how a variant was drawn."""
    return image_columns(variant.known) | {
        "denoiser_evaluations": variant.denoiser_evaluations,
        "corrected_prompt": variant.refinement.corrected_prompt,
        "switch_step": variant.switch_step,
        "s_reference": variant.s_reference,
    }


def candidate_row(
    benchmark_row: Mapping[str, Any], method: str, candidate: int, columns: Record
) -> Record:
    """A row of IMAGE_ROWS that no critic has judged yet.

    Args:
        benchmark_row: any row with row_id, scenario and prompt.
        columns: how the image was drawn, e.g. of `image_columns`; the others are null.
    """
    return {
        **dict.fromkeys(IMAGE_ROWS.schema),
        **{name: benchmark_row[name] for name in ("row_id", "scenario", "prompt")},
        "method": method,
        "candidate": candidate,
        "selected": False,
        **columns,
    }


def failed_row(image_row: Record, method: str, reason: str) -> Record:
    """The row of a method that drew nothing for an initial image; `reason` as `code: detail`."""
    return image_row | {
        "method": method,
        "candidate": 0,
        "selected": False,
        "status": "failed",
        "reason": reason,
    }


def drawn_row(record: Mapping[str, Any]) -> ImageSpec:
    """What an image was drawn from; for a variant, the image it branched from."""
    return ImageSpec(
        prompt=record["drawn_prompt"],
        seed=record["seed"],
        slot=record["slot"],
        steps=record["num_inference_steps"],
        guidance_scale=record["guidance_scale"],
        scheduler=record["scheduler"],
        width=record["width"],
        height=record["height"],
        negative_prompt=record["negative_prompt"],
    )


def redrawable_row(record: Mapping[str, Any], settings: Settings) -> ImageSpec:
    """`drawn_row` with a slot in the settings' batch, which may be smaller than it was then."""
    row = drawn_row(record)
    return replace(row, slot=slot_of(row.slot, settings.redenoising.batch_size))
