"""What the sections share: their base, references to models, and the options of an endpoint."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from hoi_assets.settings.endpoint_address import EndpointAddress
from hoi_assets.settings.locations import resolve_path

# `json_schema_extra` of fields that came later than published versions: what they mean to digests.
UNLESS_DEFAULT: dict[str, Any] = {"digested": "unless_default"}
NEVER: dict[str, Any] = {"digested": "never"}
AUTO: Literal["auto"] = "auto"
MOST_PER_BATCH = 256


def _in_one_message(value: Any, read: ValidatorFunctionWrapHandler) -> Any:
    try:
        return read(value)
    except ValidationError:
        wanted = f"Input should be an integer from 1 to {MOST_PER_BATCH}, or {AUTO}"
        raise PydanticCustomError("batch_size", wanted) from None


# Images per batch.
BatchSize = Annotated[
    Annotated[int, Field(ge=1, le=MOST_PER_BATCH)] | Literal["auto"], WrapValidator(_in_one_message)
]
BATCH_SIZE_HELP = (
    "Pictures per batch; another size changes the last bits. auto: as many as fit, 16 at most, "
    "found at the first run and kept in the home."
)
# Options of an endpoint that a reply depends on, besides those that have always been in its key.
REPLY_OPTIONS = ("max_reply_tokens", "reasoning_effort", "extra_body")
# What a call sets itself.
RESERVED_IN_BODY = {"model", "messages", "stream", "n", "prompt"}


class Section(BaseModel):
    """Base of all sections: immutable; unknown fields, NaN, infinities and integers that do not fit
    into 64 bits are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True
    )

    @field_validator("*")
    @classmethod
    def _fits(cls, value: Any) -> Any:
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise ValueError("does not fit into 64 bits")
        return value

    def given(self, *names: str) -> dict[str, Any]:
        """The named fields that are not at their default."""
        fields = type(self).model_fields
        values = {name: getattr(self, name) for name in names}
        return {name: one for name, one in values.items() if one != fields[name].get_default()}


def digested(section: Section) -> dict[str, Any]:
    """A section as it enters digests, in JSON's types.

    A field marked `UNLESS_DEFAULT` is left out at its default, so that digests from before it was
    added stay; one marked `NEVER` changes nothing that is published, such as memory used.
    """
    found = section.model_dump(mode="json")
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, Section):
            found[name] = digested(value)
        extra = field.json_schema_extra
        rule = extra.get("digested") if isinstance(extra, dict) else None
        if rule == "never" or (rule == "unless_default" and not section.given(name)):
            del found[name]
    return found


class ModelRef(Section):
    """One model: a folder, or a hub repository at a pinned revision."""

    source: str = Field(description="Folder with the weights, or name of a hub repository.")
    revision: str | None = Field(
        None, description="Commit of the hub repository, 40 hex digits; null for a folder."
    )
    dtype: Literal["float32", "float16", "bfloat16"] = Field(
        "float32", description="Type the weights are computed in."
    )

    variant: str | None = Field(
        None,
        pattern="^[A-Za-z0-9_-]+$",
        description="Variant of the weight files, e.g. fp16; null: those of plain names.",
        json_schema_extra=UNLESS_DEFAULT,
    )
    long_prompts: Literal["cut", "chunk"] = Field(
        "cut",
        description="Prompts longer than CLIP reads (77 tokens): cut, or encoded in chunks. "
        "Diffusion models only.",
        json_schema_extra=UNLESS_DEFAULT,
    )
    max_sequence_length: int | None = Field(
        None,
        ge=1,
        le=512,
        description="Tokens of T5's part in Stable Diffusion 3, zeros where there is no T5 "
        "(diffusers: 256); null: 512, and 1 without T5.",
        json_schema_extra=UNLESS_DEFAULT,
    )

    offload: Literal["none", "model", "sequential"] = Field(
        "none",
        description="Where the parts of Stable Diffusion 3 wait for their turn: on the GPU, or in "
        "the CPU's memory as whole parts or layer by layer (least GPU memory, slowest).",
        json_schema_extra=NEVER,
    )
    quantization: Literal["none", "nf4"] = Field(
        "none",
        description="4-bit NormalFloat weights of Stable Diffusion 3's transformer and T5, by "
        "bitsandbytes; other pictures than without.",
        json_schema_extra=UNLESS_DEFAULT,
    )
    tf32: bool = Field(
        False,
        description="Draw with TensorFloat-32 matrix products where the weights are float32: "
        "faster on GPUs from Ampere on, and other last bits.",
        json_schema_extra=UNLESS_DEFAULT,
    )
    torch_compile: bool = Field(
        False,
        description="Compile the denoiser of Stable Diffusion 3 by `torch.compile`: a minute or "
        "more at the first batch of each shape, faster steps, other last bits.",
        json_schema_extra=UNLESS_DEFAULT,
    )
    vae_tiling: bool = Field(
        False,
        description="Decode large images in overlapping tiles, which takes less memory and changes "
        "the pictures a little.",
        json_schema_extra=UNLESS_DEFAULT,
    )

    @model_validator(mode="after")
    def _compiles_whole(self) -> "ModelRef":
        if self.torch_compile and self.given("offload", "quantization"):
            raise ValueError("torch_compile goes with neither offload nor quantization")
        return self

    @property
    def folder(self) -> Path | None:
        """The local folder, or None where `source` is a hub repository."""
        return resolve_path(self.source) if self.revision is None else None


# Of a ModelRef, and what they are for.
DIFFUSION_OPTIONS = {
    "base": ("long_prompts", "tf32", "vae_tiling"),
    "benchmark": (
        "long_prompts",
        "max_sequence_length",
        "offload",
        "quantization",
        "tf32",
        "torch_compile",
        "vae_tiling",
    ),
}


class Models(Section):
    """The models, each as a `ModelRef`. A metric whose model is null is not measured."""

    @model_validator(mode="after")
    def _options_apply(self) -> "Models":
        for name in type(self).model_fields:
            ref = getattr(self, name)
            others = set().union(*DIFFUSION_OPTIONS.values()) - set(DIFFUSION_OPTIONS.get(name, ()))
            wrong = [] if ref is None else sorted(ref.given(*others))
            if wrong:
                users = [one for one, options in DIFFUSION_OPTIONS.items() if wrong[0] in options]
                raise ValueError(f"{name}: {wrong[0]} is an option of {' and '.join(users)} only")
        return self

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
    hpsv3: ModelRef | None = Field(
        None, description="HPSv3, a metric of both pipelines; null: no such metric."
    )
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

    endpoint: EndpointAddress | None = Field(
        None,
        description="Base URL, e.g. http://127.0.0.1:8000/v1; null: none. Credentials in it are "
        "sent with every call, and neither shown nor part of any version or cache key.",
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
    max_reply_tokens: int = Field(
        1024,
        ge=16,
        le=1_000_000,
        description="Most tokens of a reply, thoughts included; reasoning models need thousands.",
        json_schema_extra=UNLESS_DEFAULT,
    )
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = Field(
        None,
        description="How long a reasoning model thinks; null: the endpoint's default.",
        json_schema_extra=UNLESS_DEFAULT,
    )
    extra_body: dict[str, Any] | None = Field(
        None,
        description="Further fields of every request, e.g. {top_p: 0.9}; no secrets.",
        json_schema_extra=UNLESS_DEFAULT,
    )
    usd_per_million_input_tokens: float | None = Field(
        None, ge=0, description="Price in USD per million input tokens; null: unknown."
    )
    usd_per_million_output_tokens: float | None = Field(
        None, ge=0, description="Price in USD per million output tokens; null: unknown."
    )
    budget_usd: float | None = Field(
        None, ge=0, description="Most to spend in one run, in USD; null: no limit."
    )

    @field_validator("extra_body")
    @classmethod
    def _leaves_the_call_alone(cls, body: dict[str, Any] | None) -> dict[str, Any] | None:
        taken = sorted(RESERVED_IN_BODY & set(body or {}))
        if taken:
            raise ValueError(f"{taken[0]} is set by every call itself")
        try:
            json.dumps(body, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"cannot be sent as JSON: {error}") from None
        return body
