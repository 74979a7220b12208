"""What the sections share: their base, references to models, and the options of an endpoint."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from hoi_assets.settings.locations import resolve_path


class Section(BaseModel):
    """Base of all sections: immutable; unknown fields, NaN, infinities and integers that do not fit
    into 64 bits are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _fits(cls, value: Any) -> Any:
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise ValueError("does not fit into 64 bits")
        return value


class ModelRef(Section):
    """One model: a folder, or a hub repository at a pinned revision."""

    source: str = Field(description="Folder with the weights, or name of a hub repository.")
    revision: str | None = Field(
        None, description="Commit of the hub repository, 40 hex digits; null for a folder."
    )
    dtype: Literal["float32", "float16", "bfloat16"] = Field(
        "float32", description="Type the weights are computed in."
    )

    @property
    def folder(self) -> Path | None:
        """The local folder, or None where `source` is a hub repository."""
        return resolve_path(self.source) if self.revision is None else None


class Models(Section):
    """The models, each as a `ModelRef`. A metric whose model is null is not measured."""

    base: ModelRef = Field(description="Stable Diffusion XL, which the PPV proposers tune.")
    verifier: ModelRef = Field(description="ViLT that the verifier's training starts from.")
    clip: ModelRef = Field(description="CLIP for CLIPScore.")
    image_reward: ModelRef = Field(description="ImageReward.")
    examiner: ModelRef | None = Field(
        None, description="Examiner of the tiny world's single scenes: which object, pose, defects."
    )
    benchmark: ModelRef | None = Field(
        None, description="Stable Diffusion 3, which DetailScribe re-denoises with."
    )
    critic: ModelRef | None = Field(
        None, description="VQA model that critiques where `critic.endpoint` is null."
    )
    component_examiner: ModelRef | None = Field(
        None, description="Examiner of the tiny world's interactions: which components hold."
    )
    blip_vqa: ModelRef | None = Field(None, description="BLIP for BLIP-VQA.")
    proposer: ModelRef | None = Field(
        None,
        description="Any pipeline of diffusers' `AutoPipelineForText2Image`, e.g. FLUX or "
        "Qwen-Image, that draws the candidates; null: `base` with the category's LoRA.",
    )
    editor: ModelRef | None = Field(
        None,
        description="Image-editing pipeline, e.g. Qwen-Image-Edit or FLUX.1 Kontext, that corrects "
        "initial images by the critique (method `image_edit`); null: no such method.",
    )
    repair: ModelRef | None = Field(
        None,
        description="Stable Diffusion 3 or SDXL of `local_repair`; null: `benchmark`.",
    )
    repair_verifier: ModelRef | None = Field(
        None,
        description="Verifier with a defect head, whose map `local_repair` takes as its mask.",
    )


class Endpoint(Section):
    """An OpenAI-compatible endpoint. The key is never written here, only the variable's name."""

    endpoint: str | None = Field(
        None,
        description="Base URL, e.g. http://127.0.0.1:8000/v1; null: none. Its login and query are "
        "sent with every call and shown nowhere.",
    )
    model: str | None = Field(None, description="Model requested from the endpoint.")
    api_key_env: str = Field(
        "HOI_API_KEY", description="Environment variable that holds the endpoint's key."
    )
    seed: int = Field(
        0, description="Seed of the generation; part of the cache key: another seed, new replies."
    )
    temperature: float = Field(0.0, ge=0, le=2, description="Sampling temperature.")
    max_attempts: int = Field(
        3, ge=1, le=10, description="Tries per request before its row is recorded as failed."
    )
    timeout_s: float = Field(60, gt=0, description="Longest wait for one answer, in seconds.")
    concurrency: int = Field(4, ge=1, le=64, description="Requests in flight at once.")
    usd_per_million_input_tokens: float | None = Field(
        None, ge=0, description="Price in USD per million input tokens; null: unknown."
    )
    usd_per_million_output_tokens: float | None = Field(
        None, ge=0, description="Price in USD per million output tokens; null: unknown."
    )
    budget_usd: float | None = Field(
        None, ge=0, description="Most to spend in one run, in USD; null: no limit."
    )
