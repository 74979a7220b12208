"""Candidates by `models.proposer`: any of diffusers' text-to-image pipelines, such as FLUX or
Qwen-Image, with a LoRA of the user's where there is one, else by the prompts alone."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from hoi_assets.engines.auto.loading import auto_text_reader, pipeline_name, supports_lora
from hoi_assets.engines.auto.sampling import (
    BATCH_SIZE,
    SCHEDULER,
    AutoSpec,
    auto_key,
    auto_lora,
    draw_images,
    unused_options,
)
from hoi_assets.engines.image_cache import CachedImage, get_or_generate
from hoi_assets.engines.image_spec import ImageSpec, Lora
from hoi_assets.engines.image_writing import NewImage
from hoi_assets.engines.sdxl.loading import TEXT_ENCODERS
from hoi_assets.engines.seeds import seed_of
from hoi_assets.engines.text_tokens import cached_token_counts, encoder_values, log_cut
from hoi_assets.errors import HoiError
from hoi_assets.ppv.proposer import prompt_with_identifier
from hoi_assets.progress import Log
from hoi_assets.settings import ModelRef, Proposer, Settings, resolve_path
from hoi_assets.store.versions import Store
from hoi_assets.store.weights import model_digest
from hoi_assets.taxonomy import ID_LENGTH, Category

# Pictures stored at a time: a killed run draws at most so many again.
SAVE_EVERY = 4


def proposer_model(settings: Settings) -> ModelRef:
    """The pipeline that draws candidates.

    Raises:
        HoiError: none is set.
    """
    if settings.models.proposer is None:
        raise HoiError(
            "no LoRA of the category, and models.proposer is not set",
            "materialise category_loras, or name a text-to-image pipeline under models.proposer",
        )
    return settings.models.proposer


def category_lora(settings: Settings, category: str) -> Lora | None:
    """The user's LoRA of a category; None where there is none, or the pipeline takes none.

    Raises:
        HoiError: `proposer.loras_folder` is no folder.
    """
    options = settings.proposer or Proposer()
    if settings.models.proposer is None or options.loras_folder is None:
        return None
    folder = resolve_path(options.loras_folder)
    if not folder.is_dir():
        raise HoiError(
            f"proposer.loras_folder {options.loras_folder!r} not found at {folder}",
            "correct it in the profile, or leave it out to draw by the prompts alone",
        )
    found = auto_lora(folder / category)
    return found if found is not None and supports_lora(settings.models.proposer) else None


def describe_proposer(settings: Settings, category: str) -> dict[str, str]:
    """For the asset's metadata: what drew the candidates; empty where SDXL did."""
    ref = settings.models.proposer
    if ref is None:
        return {}
    if category_lora(settings, category) is not None:
        tuned = f"LoRA in {(settings.proposer or Proposer()).loras_folder}/{category}"
    elif not supports_lora(ref):
        tuned = "prompt-only: diffusers loads no LoRA into this pipeline"
    else:
        tuned = "prompt-only: no LoRA of this category in proposer.loras_folder"
    return {"proposer": f"{pipeline_name(ref)} ({ref.source})", "proposer_tuning": tuned}


def draw_by_auto_pipeline(
    store: Store,
    settings: Settings,
    category: Category,
    prompts: pl.DataFrame,
    number: int,
    log: Log,
) -> list[CachedImage]:
    """One image per prompt, found in the image cache or drawn now.

    Args:
        prompts: accepted rows of `detailed_prompts`. number: of the round, from 0.

    Raises:
        HoiError: as `load_text_to_image`.
    """
    ref, lora = proposer_model(settings), category_lora(settings, category.key)
    specs = [
        auto_spec(
            settings,
            prompt_with_identifier(category, row["prompt"]) if lora else row["prompt"],
            seed_of(settings.candidates.seed, row["prompt_id"], number),
            lora,
        )
        for row in prompts.iter_rows(named=True)
    ]
    base = model_digest(ref)
    keys = [auto_key(one, base) for one in specs]

    def generate(missing: Sequence[AutoSpec]) -> Iterator[NewImage]:
        from hoi_assets.engines.auto.loading import load_text_to_image
        from hoi_assets.engines.device import configure_torch

        loaded = load_text_to_image(ref, configure_torch(settings))
        for name in unused_options(loaded, missing[0]):
            log(f"{pipeline_name(ref)} takes no {name}: it is not used")
        environment = loaded.environment(BATCH_SIZE)
        for one in draw_images(loaded, missing):
            key = auto_key(one.spec, base)
            yield NewImage(key, 0, one.image, one.reason, environment, one.seconds)

    label = f"candidates of {category.key}"
    wanted = dict(zip(keys, specs, strict=True))
    stored = get_or_generate(store, wanted, generate, SAVE_EVERY, label, log, len(specs))
    return [
        CachedImage(row=one.row, image_id=key[:ID_LENGTH], base_digest=base, stored=stored[key])
        for key, one in zip(keys, specs, strict=True)
    ]


def auto_spec(settings: Settings, prompt: str, seed: int, lora: Lora | None) -> AutoSpec:
    """What determines an image of `models.proposer` under the settings."""
    options = settings.proposer or Proposer()
    row = ImageSpec(
        prompt=prompt,
        seed=seed,
        slot=0,
        steps=options.num_inference_steps,
        guidance_scale=options.guidance_scale,
        scheduler=SCHEDULER,
        width=settings.sampling.width,
        height=settings.sampling.height,
        negative_prompt=settings.sampling.negative_prompt,
        lora=lora,
    )
    return AutoSpec(row, options.true_cfg_scale, options.max_sequence_length)


def redrawn_spec(settings: Settings, row: Mapping[str, Any]) -> AutoSpec:
    """What the image of a row of CANDIDATE_ROWS was drawn from, `proposer` being set as then."""
    lora = category_lora(settings, row["category"]) if row["lora_digest"] else None
    now = auto_spec(settings, row["drawn_prompt"], row["seed"], lora)
    names = ("width", "height", "guidance_scale", "negative_prompt")
    given = {name: row[name] for name in names}
    return replace(now, row=replace(now.row, steps=row["num_inference_steps"], **given))


def auto_prompt_columns(
    store: Store, settings: Settings, images: Sequence[CachedImage], label: str, log: Log
) -> list[dict[str, Any]]:
    """For each image what the pipeline's text encoders read of its prompt.

    Raises:
        HoiError: a tokenizer cannot be read.
    """
    options = settings.proposer or Proposer()
    reader = auto_text_reader(proposer_model(settings), options.max_sequence_length)
    counts = cached_token_counts(store, reader, [one.row.prompt for one in images])
    log_cut(label, counts, log)
    return [encoder_values(counts[one.row.prompt], TEXT_ENCODERS) for one in images]
