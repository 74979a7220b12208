"""Sections of Prompt-Propose-Verify: prompts, proposers, candidates, verifier, dataset."""

from typing import Literal

from pydantic import Field, model_validator

from hoi_assets.settings.base import BATCH_SIZE_HELP, NEVER, BatchSize, Endpoint, Section

MAX_ROUNDS = 1000
LABELS_FILE = "labels.csv"  # inside the folder of `verifier.labels_folder`


class Prompter(Endpoint):
    """What turns base prompts into detailed prompts; the built-in way is the slot grammar."""

    vocabulary: Literal["tiny", "open"] = Field(
        "tiny", description="Words an endpoint may use: the tiny world's only, or any."
    )
    per_base_prompt: int = Field(
        4, ge=1, le=200, description="Detailed prompts asked for per base prompt."
    )
    temperature: float = Field(0.8, ge=0, le=2, description="Sampling temperature.")
    max_words: int = Field(40, ge=5, le=75, description="Most words of a detailed prompt.")
    near_duplicate_similarity: float = Field(
        0.9, gt=0, le=1, description="Share of equal slots from which a prompt is a near-duplicate."
    )


class InstanceImages(Section):
    """The DreamBooth reference pictures of each category."""

    folder: str | None = Field(
        None, description="Your pictures, in a folder per category; null: renders of the pool."
    )
    pool: str = Field("data/pool", description="Folder with the pool of rendered scenes.")
    per_category: int = Field(12, ge=1, le=1000, description="Most pictures per category.")
    max_side_px: int = Field(
        16384, ge=64, description="Pictures with a longer side are rejected, in pixels."
    )
    min_side_px: int = Field(
        64, ge=1, description="Pictures with a shorter side are rejected, in pixels."
    )


class Sampling(Section):
    """Drawing with SDXL: class images, candidates, evaluation images."""

    scheduler: Literal["euler", "dpmpp_2m"] = Field("dpmpp_2m", description="Noise scheduler.")
    num_inference_steps: int = Field(16, ge=1, le=200, description="Denoising steps per picture.")
    guidance_scale: float = Field(
        4.0, ge=0, le=30, description="Classifier-free guidance; 1 or less turns it off."
    )
    negative_prompt: str = Field("", description="Prompt to steer away from.")
    width: int = Field(128, ge=64, le=2048, multiple_of=8, description="Width in pixels.")
    height: int = Field(128, ge=64, le=2048, multiple_of=8, description="Height in pixels.")
    batch_size: BatchSize = Field(16, description=BATCH_SIZE_HELP)


class Proposer(Section):
    """How `models.proposer` is called; what its pipeline does not take is left out, and said so."""

    num_inference_steps: int = Field(28, ge=1, le=200, description="Denoising steps per picture.")
    guidance_scale: float = Field(
        3.5,
        ge=0,
        le=30,
        description="Argument `guidance_scale`: distilled guidance of FLUX, elsewhere "
        "classifier-free guidance.",
    )
    true_cfg_scale: float | None = Field(
        None,
        ge=0,
        le=30,
        description="Classifier-free guidance of pipelines that call it `true_cfg_scale`; null: "
        "their default.",
    )
    max_sequence_length: int | None = Field(
        None, ge=1, description="Tokens of the prompt that are read; null: the pipeline's default."
    )
    loras_folder: str | None = Field(
        None,
        description="Folder with a LoRA per category, `<category>/pytorch_lora_weights.safetensors`"
        "; a category without one is drawn by its prompts alone.",
    )


class Candidates(Section):
    """How many images the proposers draw per category."""

    per_prompt: int = Field(1, ge=1, description="Images per detailed prompt and round.")
    accepted_goal: int | None = Field(
        None, ge=1, description="Accepted images at which drawing stops; null: one round."
    )
    budget: int = Field(
        96, ge=1, description="Most candidates per category while a goal is pursued."
    )
    seed: int = Field(0, description="Seed from which each image's own seed is derived.")

    @model_validator(mode="after")
    def _budget_covers_goal(self) -> "Candidates":
        if self.accepted_goal is not None and self.accepted_goal > self.budget:
            raise ValueError(
                f"candidates.accepted_goal {self.accepted_goal} is larger than "
                f"candidates.budget {self.budget}"
            )
        return self


class Rounds(Section):
    """Rounds after the first pass, which draw what is missing; see docs/rounds.md. A round keeps
    the figures it was planned with, so these apply to rounds that are still to be planned."""

    number: int = Field(
        0,
        ge=0,
        le=MAX_ROUNDS,
        description="Rounds that every category gets, one a run; `hoi round` asks for one more.",
        json_schema_extra=NEVER,
    )
    prompts: int = Field(
        12, ge=1, le=500, description="Detailed prompts asked for in a round, one per thin slice."
    )
    enough_accepted: int = Field(
        1,
        ge=1,
        description="Accepted images from which a slice (object, skin tone, view and side) counts "
        "as covered.",
    )
    min_accepted_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="A category that accepts a smaller share gets more instance images and a new "
        "LoRA.",
    )
    instance_images: int = Field(
        4, ge=0, le=1000, description="How many more instance images it gets then."
    )
    guard_prompts: int = Field(
        12,
        ge=2,
        description="General prompts, and as many held-out prompts of other categories, that a new "
        "LoRA and the one before draw.",
    )
    guard_margin: float = Field(
        0.05,
        ge=0,
        description="The new one is taken where its mean CLIPScore (0 to 2.5) is not lower by more "
        "than this; the lower end of the 95% interval of the difference decides.",
    )


class Verifier(Section):
    """Training and thresholds of the ViLT verifier."""

    train_steps: int = Field(60, ge=0, description="Optimiser steps.")
    batch_size: int = Field(32, ge=2, description="Pairs per step.")
    learning_rate: float = Field(1e-4, gt=0, description="Highest learning rate of AdamW.")
    target_precision: float = Field(
        0.8,
        gt=0,
        lt=1,
        description="Share of accepted validation pairs that is good by its labels.",
    )
    training_pairs: int = Field(480, ge=32, description="Most pairs to train on.")
    labels_folder: str | None = Field(
        None, description="Folder with your labels.csv and pictures; null: renders of the pool."
    )
    generator_view_share: float = Field(
        0.5, ge=0, le=1, description="Share of renders shown as the generator would draw them."
    )
    renoise_strength: float = Field(
        0.25, ge=0, lt=1, description="How far such renders are noised before they are denoised."
    )
    seed: int = Field(0, description="Seed of the choice of pairs, of order and initial heads.")


class Dataset(Section):
    """How accepted pairs become `hoi_dataset`."""

    perceptual_hash_distance: int = Field(
        4, ge=0, le=64, description="Pictures whose hashes differ in so many bits are duplicates."
    )
    validation_share: float = Field(
        0.15, gt=0, lt=0.5, description="Share of base prompts in the validation split."
    )
    test_share: float = Field(
        0.15, gt=0, lt=0.5, description="Share of base prompts in the test split."
    )
    min_categories: int = Field(1, ge=1, description="Fewest categories in the dataset.")
    seed: int = Field(0, description="Seed of the split.")


class SignalOptions(Section):
    """What every signal beside the verifier has."""

    gate: bool = Field(
        False,
        description="Reject candidates by it, once it is calibrated on the labelled pairs; false: "
        "record it only.",
    )
    target_precision: float = Field(
        0.9, gt=0, lt=1, description="Share of whole hands among what its threshold accepts."
    )
    calibration_images: int = Field(
        200, ge=10, description="Most labelled images of each split that it is measured on."
    )


class Anatomy(Endpoint, SignalOptions):
    """A vision endpoint asked whether the hands of a candidate are anatomically right, as a signal
    beside the verifier; off where the section is left out."""

    parts_per_side: int = Field(
        2, ge=1, le=4, description="Enlarged parts shown, in a row and in a column; 1: none."
    )
    part_side: int = Field(768, ge=128, le=2048, description="Longer side of a part, in pixels.")
    image_tokens: int = Field(
        2048, ge=0, description="Most tokens billed for one picture, for the estimate of costs."
    )


class Landmarks(SignalOptions):
    """Confidence of MediaPipe's hand-landmark model, as a signal beside the verifier; off where the
    section is left out. It finds pictures without a recognisable hand; a sixth finger hardly
    lowers it."""

    folder: str = Field(
        description="Folder with palm_detection_full.tflite and hand_landmark_full.tflite, which "
        "the wheel mediapipe 0.10.21 holds."
    )
