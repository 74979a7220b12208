"""Sections of DetailScribe: benchmark, decomposition, critique, re-denoising, baselines."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from hoi_assets.settings.base import (
    BATCH_SIZE_HELP,
    UNLESS_DEFAULT,
    BatchSize,
    Endpoint,
    Section,
)


class Interacting(Section):
    """The InterActing benchmark."""

    folder: str | None = Field(
        None, description="Official files (`hoi interacting fetch`); null: the built-in prompts."
    )
    rows_per_scenario: int | None = Field(
        None, ge=1, description="How many prompts of each scenario, from the first; null: all."
    )


class Decomposer(Endpoint):
    """What splits a prompt into components; the built-in way is a grammar."""


class Rewriter(Endpoint):
    """What rewrites prompts for the baseline `rewrite`; the built-in way appends the components."""

    max_words: int = Field(70, ge=10, le=70, description="Most words of a rewritten prompt.")


class Critic(Endpoint):
    """What judges a picture component by component; the built-in way is `models.critic`."""

    protocol: Literal["components", "published"] = Field(
        "components",
        description="How an initial picture is critiqued. components: each component is judged, "
        "and code appends the corrections. published: the endpoint is told the topic and that the "
        "picture is faulty, and writes the whole new prompt; `refine` asks it for one of its own.",
        json_schema_extra=UNLESS_DEFAULT,
    )

    threshold: float = Field(
        0.5, gt=0, lt=1, description="Probability from which a yes of `models.critic` counts."
    )
    max_words: int = Field(70, ge=10, le=70, description="Most words of a corrected prompt.")
    image_tokens: int = Field(
        2048, ge=0, description="Most tokens billed for one picture, for the estimate of costs."
    )

    @model_validator(mode="after")
    def _published_by_endpoint(self) -> "Critic":
        if self.protocol == "published" and self.endpoint is None:
            raise ValueError("critic.protocol published needs critic.endpoint")
        return self


class ImageEndpoint(Endpoint):
    """An OpenAI-compatible image endpoint as one more baseline; null: no such baseline."""

    size: str = Field(
        "1024x1024",
        pattern="^[1-9][0-9]{1,3}x[1-9][0-9]{1,3}$",
        description="Size requested from the endpoint, in pixels.",
    )
    seed: int = Field(0, description="Not sent to the endpoint; part of the cache key only.")
    usd_per_image: float | None = Field(
        None, ge=0, description="Price in USD per picture; null: unknown."
    )
    timeout_s: float = Field(180, gt=0, description="Longest wait for one picture, in seconds.")

    @model_validator(mode="after")
    def _priced_per_image(self) -> "ImageEndpoint":
        per_token = (self.usd_per_million_input_tokens, self.usd_per_million_output_tokens)
        if per_token != (None, None):
            raise ValueError("an image endpoint is priced by usd_per_image, not by tokens")
        if self.given("max_reply_tokens", "reasoning_effort"):
            raise ValueError("max_reply_tokens and reasoning_effort are of chat endpoints only")
        return self


class Redenoising(Section):
    """Drawing and re-denoising with `models.benchmark` (DetailScribe, arXiv 2504.08714)."""

    num_inference_steps: int = Field(28, ge=2, le=200, description="Denoising steps per picture.")
    guidance_scale: float = Field(4.5, ge=0, le=30, description="Classifier-free guidance.")
    negative_prompt: str = Field("", description="Prompt to steer away from.")
    width: int = Field(128, ge=64, le=2048, multiple_of=16, description="Width in pixels.")
    height: int = Field(128, ge=64, le=2048, multiple_of=16, description="Height in pixels.")
    batch_size: BatchSize = Field(16, description=BATCH_SIZE_HELP)
    switch_steps: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (0, 1, 2, 4),
        min_length=1,
        description="Steps with the first prompt until the corrected one takes over, per variant.",
    )
    s_reference: bool = Field(
        False,
        description="Switch one step later and keep pooled embeddings, as published code does.",
    )
    craft_rounds: int = Field(3, ge=0, le=10, description="Rounds of edits of the CRAFT-like arm.")
    seed: int = Field(0, description="Seed from which each picture's own seed is derived.")
    seeds: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(
        None,
        min_length=1,
        description="Seeds of every prompt's pictures: the first for all methods, all of them for "
        "`multi_seed`; null: derived from `seed`, and as many as the same compute pays.",
        json_schema_extra=UNLESS_DEFAULT,
    )
    initial_is_candidate: bool = Field(
        True,
        description="Whether `detailscribe` and `refine` may select the initial picture.",
        json_schema_extra=UNLESS_DEFAULT,
    )
    baseline_images: Literal["equal_compute", "one"] = Field(
        "equal_compute",
        description="Pictures that `rewrite` and `refine` draw: as many as the same compute pays, "
        "or one.",
        json_schema_extra=UNLESS_DEFAULT,
    )


class LocalRepair(Section):
    """Draws only what looks wrong in the initial picture again, by inpainting, at the compute of
    re-denoising (method `local_repair`). Off where the section is left out."""

    mask: Literal["critic", "verifier"] = Field(
        "critic",
        description="What marks the part: where `models.critic` looked when it found a component "
        "missing, or the defect map of `models.repair_verifier`.",
    )
    mask_threshold: float = Field(
        0.5, gt=0, le=1, description="Value of the map from which a cell is drawn again."
    )
    mask_margin: float = Field(
        0.06, ge=0, le=0.5, description="How far the mask is widened, as share of the side."
    )
    strength: float = Field(
        0.8, gt=0, le=1, description="Share of the denoising steps that a repair runs."
    )


class ImageEditing(Section):
    """How `models.editor` is called; what its pipeline does not take is left out, and said so."""

    instruction: str = Field(
        "Keep the picture as it is, and change only this: {corrections}.",
        pattern=r"\{corrections\}",
        description="What the editor is told; {corrections} stands for the critique's.",
    )
    num_inference_steps: int = Field(28, ge=1, le=200, description="Denoising steps per edit.")
    guidance_scale: float = Field(
        2.5, ge=0, le=30, description="Argument `guidance_scale`, of distilled models."
    )
    true_cfg_scale: float | None = Field(
        None,
        ge=0,
        le=30,
        description="Classifier-free guidance of pipelines that call it `true_cfg_scale`; null: "
        "their default.",
    )
    negative_prompt: str = Field("", description="Prompt to steer away from.")
    max_edits: int = Field(
        4, ge=1, description="Most edits per picture, within the variants' evaluations (NFE)."
    )
