"""Sections of LoRA training: DreamBooth per category, and fine-tuning on the dataset."""

import re
from typing import Literal

from pydantic import Field, field_validator

from hoi_assets.settings.base import NEVER, UNLESS_DEFAULT, Section

BUCKET = re.compile(r"\s*(\d+)\s*,\s*(\d+)\s*")
BUCKET_MULTIPLE = 8  # pixels per latent of SDXL's VAE


class LoraTraining(Section):
    """DreamBooth LoRA of SDXL per category; names as in diffusers' training script."""

    rank: int = Field(8, ge=1, le=256, description="Rank of the LoRA matrices.")
    lora_alpha: int = Field(
        8, ge=1, le=512, description="Scale of the LoRA update: lora_alpha / rank."
    )
    lora_dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of the LoRA layers' inputs that a training step drops.",
        json_schema_extra=UNLESS_DEFAULT,
    )
    train_text_encoder: bool = Field(
        False,
        description="Train a LoRA of both text encoders too. Captions are then encoded at every "
        "step instead of once.",
        json_schema_extra=UNLESS_DEFAULT,
    )
    text_encoder_lr: float | None = Field(
        None,
        gt=0,
        description="Highest learning rate of the text encoders' LoRA; null: `learning_rate`. "
        "Prodigy has one rate for all.",
        json_schema_extra=UNLESS_DEFAULT,
    )
    max_train_steps: int = Field(60, ge=1, description="Optimiser steps.")
    train_batch_size: int = Field(4, ge=1, description="Pictures per forward pass.")
    gradient_accumulation_steps: int = Field(
        1, ge=1, description="Forward passes per optimiser step."
    )
    gradient_checkpointing: bool = Field(
        False, description="Recompute activations: less memory, slower."
    )
    optimizer: Literal["adamw", "adamw_8bit", "prodigy"] = Field(
        "adamw",
        description="adamw; adamw_8bit (bitsandbytes), whose moments take a quarter of the memory; "
        "or prodigy (prodigyopt), which finds its step size itself: set "
        "`learning_rate` to 1.",
        json_schema_extra=UNLESS_DEFAULT,
    )
    adam_beta1: float = Field(
        0.9,
        ge=0,
        lt=1,
        description="Decay of the optimiser's mean of gradients.",
        json_schema_extra=UNLESS_DEFAULT,
    )
    adam_beta2: float = Field(
        0.999,
        ge=0,
        lt=1,
        description="Decay of the optimiser's mean of squared gradients.",
        json_schema_extra=UNLESS_DEFAULT,
    )
    adam_weight_decay: float = Field(
        1e-2,
        ge=0,
        description="Decoupled weight decay of the optimiser.",
        json_schema_extra=UNLESS_DEFAULT,
    )
    adam_epsilon: float = Field(
        1e-8,
        gt=0,
        description="Added to the optimiser's denominator.",
        json_schema_extra=UNLESS_DEFAULT,
    )
    learning_rate: float = Field(3e-4, gt=0, description="Highest learning rate of the optimiser.")
    lr_scheduler: Literal["constant", "cosine"] = Field(
        "constant", description="Course of the learning rate after the warm-up."
    )
    lr_warmup_steps: int = Field(0, ge=0, description="Optimiser steps of linear warm-up.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are clipped to this norm.")
    snr_gamma: float | None = Field(
        5.0, gt=0, description="Gamma of min-SNR loss weighting; null: plain loss."
    )
    noise_offset: float = Field(
        0.0,
        ge=0,
        description="Strength of noise that shifts a whole latent channel, so that very dark and "
        "very bright pictures can be learned; 0.05 to 0.1 is usual.",
        json_schema_extra=UNLESS_DEFAULT,
    )
    proportion_empty_prompts: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of captions replaced by an empty one, drawn anew at every step, so that "
        "classifier-free guidance keeps its unconditional side; class images keep theirs.",
        json_schema_extra=UNLESS_DEFAULT,
    )
    center_crop: bool = Field(
        True,
        description="Cut pictures from the centre once their shorter side has the model's size; "
        "false: at a random place, drawn once per picture. The crop enters SDXL's time ids.",
        json_schema_extra=UNLESS_DEFAULT,
    )
    random_flip: bool = Field(
        False,
        description="Mirror half of the pictures, drawn anew at every step. Captions stay: a left "
        "hand becomes a right one. Latents take twice the disk.",
        json_schema_extra=UNLESS_DEFAULT,
    )
    aspect_ratio_buckets: str | None = Field(
        None,
        description="Sizes in pixels that pictures are cut to, each to the one nearest in aspect "
        'ratio: "height,width;height,width;…", e.g. "1024,1024;832,1216;1216,832". A batch holds '
        "one size. null: squares of the model's size.",
        json_schema_extra=UNLESS_DEFAULT,
    )
    with_prior_preservation: bool = Field(
        True, description="Train on pictures of the base model too, so that its prior stays."
    )
    prior_loss_weight: float = Field(
        1.0, ge=0, description="Weight of the prior-preservation loss."
    )
    weight_prior_by_snr: bool = Field(
        True,
        description="Apply the min-SNR weights to the prior-preservation loss too; diffusers' "
        "script does not.",
        json_schema_extra=UNLESS_DEFAULT,
    )
    num_class_images: int = Field(
        16, ge=0, description="Pictures of the base model for prior preservation."
    )
    checkpointing_steps: int = Field(
        50,
        ge=1,
        description="Optimiser steps between checkpoints; the result does not depend on it.",
    )
    mixed_precision: Literal["no", "bf16", "fp16"] = Field(
        "no",
        description="Autocast of the training; bf16 needs a GPU or a CPU with AMX, fp16 (with a "
        "gradient scaler) a GPU. The VAE encodes in float32 whatever this says.",
    )
    validation_prompt: str | None = Field(
        None,
        min_length=1,
        description="Prompt that is drawn, from fixed noise, with the base model and with the LoRA "
        "of every `validation_steps` steps, as a sheet in the asset's metadata; of a category, its "
        "identifier is put first. The LoRA of each such step is kept. null: no pictures.",
        json_schema_extra=UNLESS_DEFAULT,
    )
    num_validation_images: int = Field(
        4,
        ge=1,
        le=64,
        description="Validation pictures of every such step.",
        json_schema_extra=UNLESS_DEFAULT,
    )
    validation_steps: int = Field(
        20,
        ge=1,
        description="Optimiser steps between validation pictures.",
        json_schema_extra=UNLESS_DEFAULT,
    )
    report_to: Literal["tensorboard", "wandb"] | None = Field(
        None,
        description="Tracker that losses are sent to: TensorBoard (files in `training/logs` of the "
        "home) or Weights & Biases (its key in WANDB_API_KEY); null: none.",
        json_schema_extra=NEVER,
    )
    seed: int = Field(0, description="Seed of initial weights, order and noise.")

    @field_validator("aspect_ratio_buckets")
    @classmethod
    def _names_sizes(cls, text: str | None) -> str | None:
        if text is not None:
            parse_buckets(text)
        return text

    @property
    def buckets(self) -> tuple[tuple[int, int], ...]:
        """Height and width of every bucket; none where pictures become squares."""
        return parse_buckets(self.aspect_ratio_buckets) if self.aspect_ratio_buckets else ()


class FineTuning(LoraTraining):
    """LoRA of SDXL on `hoi_dataset`; stops early on the validation loss."""

    with_prior_preservation: bool = Field(
        False, description="Train on pictures of the base model too, so that its prior stays."
    )
    validation_steps: int = Field(
        20,
        ge=1,
        description="Optimiser steps between measurements of the validation loss, and between "
        "validation pictures.",
    )
    early_stopping_patience: int = Field(
        3, ge=1, description="Measurements without improvement after which the training stops."
    )
    min_train_rows: int = Field(
        8, ge=1, description="Fewest training rows; with fewer nothing is trained."
    )


def parse_buckets(text: str) -> tuple[tuple[int, int], ...]:
    """Heights and widths of diffusers' `aspect_ratio_buckets`.

    Raises:
        ValueError: another form, or a side that is no multiple of 8.

    >>> parse_buckets("832,1216; 1024,1024")
    ((832, 1216), (1024, 1024))
    """
    found = []
    for pair in text.split(";"):
        sides = BUCKET.fullmatch(pair)
        if sides is None:
            raise ValueError(f"{pair!r} is not of the form height,width")
        height, width = int(sides[1]), int(sides[2])
        if any(side < BUCKET_MULTIPLE or side % BUCKET_MULTIPLE for side in (height, width)):
            raise ValueError(f"{pair!r}: sides must be multiples of {BUCKET_MULTIPLE}, in pixels")
        found.append((height, width))
    if len(set(found)) < len(found):
        raise ValueError("names a size twice")
    return tuple(found)
