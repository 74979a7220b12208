"""Sections of the evaluation and of the gates."""

from typing import Literal

from pydantic import Field

from hoi_assets.settings.base import UNLESS_DEFAULT, Endpoint, Section


class Judge(Endpoint):
    """A vision endpoint that rates pictures 1 to 5 and answers yes or no; null: not measured."""

    topic: bool = Field(
        False,
        description="Tell the judge the row's topic, and have it rate by the published criteria.",
        json_schema_extra=UNLESS_DEFAULT,
    )
    rates: Literal["selected", "all"] = Field(
        "selected",
        description="Which pictures are rated: those that a method selected, or every candidate.",
        json_schema_extra=UNLESS_DEFAULT,
    )

    image_tokens: int = Field(
        2048, ge=0, description="Most tokens billed for one picture, for the estimate of costs."
    )


class YesNoJudge(Endpoint):
    """A vision endpoint that gives logprobs, for VQAScore and Soft-TIFA (its probability of yes);
    off where the section is left out."""

    image_tokens: int = Field(
        2048, ge=0, description="Most tokens billed for one picture, for the estimate of costs."
    )


class Evaluation(Section):
    """What is drawn and how it is scored."""

    reference_pool: str | None = Field(
        "data/pool",
        description="Pool whose scenes (split `reference`) give percentiles; null: none are given.",
    )
    images_per_prompt: int = Field(2, ge=1, description="Images per evaluation prompt and method.")
    hoi_prompts_per_category: int = Field(
        6, ge=1, description="Held-out interaction prompts per category."
    )
    general_prompts: int = Field(
        16, ge=0, description="Prompts without a hand, shared among the categories."
    )
    seed: int = Field(1000, description="Seed from which each image's own seed is derived.")
    bootstrap_samples: int = Field(
        2000, ge=100, description="Resamples behind each confidence interval."
    )
    best_of_variants: bool = Field(
        False,
        description="Report `detailscribe_published` too: each metric's best of the variants, as "
        "the published table counts; the initial picture is not among them.",
        json_schema_extra=UNLESS_DEFAULT,
    )


class Gates(Section):
    """Thresholds of the expectation suites: a version that misses one is not published."""

    min_prompts: int = Field(8, ge=1, description="Fewest detailed prompts per category.")
    min_instance_images: int = Field(4, ge=1, description="Fewest instance images per category.")
    max_failed_share: float = Field(
        0.1, ge=0, le=1, description="Largest share of failed rows in a table."
    )
    max_duplicate_share: float = Field(
        0.2, ge=0, le=1, description="Largest share of repeated pictures or prompts."
    )
    min_labelled_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="A gate warns that the verifier is not calibrated on your pictures where a "
        "smaller share of its pairs was labelled by people.",
        json_schema_extra=UNLESS_DEFAULT,
    )
    warn_cut_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="A gate warns where a larger share of texts was read only in part.",
    )
    max_cut_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Largest share of images whose prompt no text encoder read to the end.",
    )
    min_pixel_std: float = Field(
        4.0,
        ge=0,
        description="Pictures of which no colour channel deviates more (0-255) count as blank.",
    )
    min_auc_fidelity: float = Field(
        0.6, ge=0, le=1, description="Smallest held-out AUC of the verifier's fidelity head."
    )
    min_auc_alignment: float = Field(
        0.6, ge=0, le=1, description="Smallest held-out AUC of the verifier's alignment head."
    )
    min_accepted_share: float = Field(
        0.001, ge=0, le=1, description="Smallest share of test pairs that a verifier accepts."
    )
    max_accepted_share: float = Field(
        0.99, ge=0, le=1, description="Largest share of test pairs that a verifier accepts."
    )
    min_accepted_per_category: int = Field(
        1, ge=0, description="Fewest accepted pairs per category."
    )
    min_dataset_rows: int = Field(12, ge=1, description="Fewest rows of `hoi_dataset`.")
    max_loss: float = Field(2.0, gt=0, description="Largest last loss of a training.")
