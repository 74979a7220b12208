"""A category's proposer: SDXL with a DreamBooth LoRA trained on its instance images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from hoi_assets.engines.image_cache import get_or_generate_images
from hoi_assets.engines.image_spec import Lora
from hoi_assets.engines.sdxl.sampling import lora_digest, make_image_spec
from hoi_assets.engines.seeds import seed_of
from hoi_assets.errors import HoiError
from hoi_assets.ppv.cut_captions import find_cut_captions
from hoi_assets.ppv.validation_images import (
    ValidationImage,
    draw_validation_images,
    keep_snapshots,
)
from hoi_assets.progress import Log
from hoi_assets.settings import Settings
from hoi_assets.store.tables import Column, Table
from hoi_assets.store.trained import TRACKED, trained
from hoi_assets.store.versions import Store
from hoi_assets.store.weights import model_digest
from hoi_assets.taxonomy import Category

SAMPLES = 8
LORA_LOG = Table(
    "log",
    "one training step",
    (
        Column("step", pl.Int64, "step, from 1"),
        Column("loss", pl.Float64, "instance loss plus weighted prior loss"),
        Column("instance_loss", pl.Float64, "on the instance images"),
        Column("prior_loss", pl.Float64, "on the class images; 0 without prior preservation"),
        Column("learning_rate", pl.Float64, "of the step"),
    ),
    key=("step",),
)
LORA_SUMMARY = Table(
    "summary",
    "the category's LoRA",
    (
        Column("category", pl.String, "hand-pose category"),
        Column("lora_digest", pl.String, "hash of the LoRA file"),
        Column("base_digest", pl.String, "hash of the base model"),
        Column("identifier", pl.String, "rare token that prompts begin with (DreamBooth)"),
        Column("steps", pl.Int64, "training steps"),
        Column("instance_images", pl.Int64, "instance images trained on"),
        Column("class_images", pl.Int64, "class images for prior preservation"),
        Column("first_loss", pl.Float64, "mean loss of the first ten steps"),
        Column("last_loss", pl.Float64, "mean loss of the last ten steps"),
        Column("width", pl.Int64, "of the images trained for", "px"),
        Column("height", pl.Int64, "of the images trained for", "px"),
    ),
    key=("category",),
)
LORA_SAMPLES = Table(
    "samples",
    "one image of the base model or of the LoRA, drawn from the same noise",
    (
        Column("method", pl.String, "base or lora"),
        Column("prompt", pl.String, "the prompt as the model was given it"),
        Column("seed", pl.Int64, "seed of the noise"),
        Column("pixels", pl.String, "digest of the pixels"),
    ),
    key=("method", "seed"),
)


@dataclass(frozen=True)
class Proposer:
    """A trained LoRA.

    Attributes:
        folder: in diffusers' layout.
        log: table `LORA_LOG`.
        summary: table `LORA_SUMMARY`, one row.
        samples: table `LORA_SAMPLES`.
        identifier: what its prompts begin with.
        cut_captions: table `CUT_CAPTIONS`; usually empty.
        validation_images: of every snapshot; none without `lora.validation_prompt`.
    """

    folder: Path
    log: pl.DataFrame
    summary: pl.DataFrame
    samples: pl.DataFrame
    identifier: str
    cut_captions: pl.DataFrame
    validation_images: list[ValidationImage]


def prompt_with_identifier(category: Category, prompt: str) -> str:
    """The prompt as the category's LoRA knows it: identifier first (DreamBooth, section 3.1)."""
    return f"{category.identifier} {prompt}"


def train_proposer(
    store: Store, settings: Settings, category: Category, instances: pl.DataFrame, log: Log
) -> Proposer:
    """Train the category's LoRA, or find the one trained from the same inputs.

    Args:
        instances: rows of `instance_images`.

    Raises:
        HoiError: no accepted instance image, or the loss is not finite.
    """
    accepted = instances.filter(pl.col("status") == "accepted")
    if accepted.is_empty():
        raise HoiError(
            f"category {category.key!r} has no accepted instance image",
            "look at the reasons in instance_images and correct the folder they come from",
        )
    captions = [caption or class_prompt(category) for caption in accepted["caption"]]
    classes = _class_images(store, settings, category, log)
    from hoi_assets.engines.sdxl.lora import lora_key

    instance = [
        (pixels, prompt_with_identifier(category, caption))
        for pixels, caption in zip(accepted["pixels"], captions, strict=True)
    ]
    texts = [text for _, text in (*instance, *classes)]
    cut = find_cut_captions(store, settings, texts, f"captions of {category.key}", log)
    base = model_digest(settings.models.base)
    key = lora_key(instance, classes, settings.lora, base, settings.models.base.dtype)

    def train(work: Path, result: Path) -> None:
        from hoi_assets.engines.device import configure_torch
        from hoi_assets.engines.sdxl.examples import StoredPairs
        from hoi_assets.engines.sdxl.loading import load_sdxl
        from hoi_assets.engines.sdxl.lora import train_dreambooth_lora

        log(f"{category.key}: training a LoRA, {settings.lora.max_train_steps} steps")
        done = train_dreambooth_lora(
            load_sdxl(settings.models.base, configure_torch(settings)),
            StoredPairs(store.images, instance),
            StoredPairs(store.images, classes),
            settings.lora,
            work,
            result / "lora",
            log,
            store.home / TRACKED / f"{category.key}-{key[:8]}",
        )
        LORA_LOG.frame(done.log).write_parquet(result / "log.parquet")
        keep_snapshots(done.snapshots, result / "snapshots")

    folder = trained(store, "lora", key, train)
    training_log = pl.read_parquet(folder / "log.parquet")
    lora = Lora(folder=str(folder / "lora"), digest=lora_digest(folder / "lora"))
    validation = []
    if settings.lora.validation_prompt:
        prompt = prompt_with_identifier(category, settings.lora.validation_prompt)
        validation = draw_validation_images(
            store, settings, settings.lora, prompt, folder / "snapshots", log
        )
    summary = {
        "category": category.key,
        "lora_digest": lora.digest,
        "base_digest": base,
        "identifier": category.identifier,
        "steps": training_log.height,
        "instance_images": len(instance),
        "class_images": len(classes),
        "first_loss": _mean_loss(training_log.head(10)),
        "last_loss": _mean_loss(training_log.tail(10)),
        "width": settings.sampling.width,
        "height": settings.sampling.height,
    }
    return Proposer(
        folder=folder / "lora",
        log=training_log,
        summary=LORA_SUMMARY.frame([summary]),
        samples=_samples(store, settings, category, lora, captions, log),
        identifier=category.identifier,
        cut_captions=cut,
        validation_images=validation,
    )


def class_prompt(category: Category) -> str:
    """The caption of an image that comes without one."""
    return "two hands with an object" if category.hands == 2 else "a hand with an object"


def _class_images(
    store: Store, settings: Settings, category: Category, log: Log
) -> list[tuple[str, str]]:
    """The base model's own images of the category's base prompts, for prior preservation."""
    if not settings.lora.with_prior_preservation:
        return []
    texts = [prompt.text for prompt in category.base_prompts]
    rows = [
        make_image_spec(
            settings.sampling,
            texts[position % len(texts)],
            seed_of("class", settings.lora.seed, category.key, position),
            position,
        )
        for position in range(settings.lora.num_class_images)
    ]
    drawn = get_or_generate_images(store, settings, rows, f"class images of {category.key}", log)
    return [(known.pixels, known.row.prompt) for known in drawn if known.pixels is not None]


def _samples(
    store: Store,
    settings: Settings,
    category: Category,
    lora: Lora,
    captions: list[str],
    log: Log,
) -> pl.DataFrame:
    methods: list[tuple[str, Lora | None]] = [("base", None), ("lora", lora)]
    rows: list[Any] = []
    for number in range(SAMPLES):
        prompt = captions[number % len(captions)]
        seed = seed_of("sample", category.key, number)
        for method, weights in methods:
            text = prompt_with_identifier(category, prompt) if weights else prompt
            rows.append((method, make_image_spec(settings.sampling, text, seed, number, weights)))
    drawn = get_or_generate_images(
        store, settings, [row for _, row in rows], f"samples of {category.key}", log
    )
    return LORA_SAMPLES.frame(
        [
            {
                "method": method,
                "prompt": known.row.prompt,
                "seed": known.row.seed,
                "pixels": known.pixels,
            }
            for (method, _), known in zip(rows, drawn, strict=True)
            if known.pixels is not None
        ]
    )


def _mean_loss(steps: pl.DataFrame) -> float:
    return float(steps["loss"].mean())  # type: ignore[arg-type]
