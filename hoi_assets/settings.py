"""Typed configuration. A profile is a YAML file; nothing else distinguishes `tiny` from `full`."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hoi_assets.errors import HoiError

ROOT = Path(__file__).resolve().parent.parent
LABELS_FILE = "labels.csv"  # inside the folder of `verifier.labels_folder`
PROFILES = ROOT / "data" / "profiles"


class Section(BaseModel):
    """Base of all sections: immutable, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelRef(Section):
    """One model: a folder (relative to the repository) or a hub repository at a pinned revision."""

    source: str
    revision: str | None = None
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"

    @property
    def folder(self) -> Path | None:
        """The local folder, or None where `source` is a hub repository."""
        path = Path(self.source) if Path(self.source).is_absolute() else ROOT / self.source
        return path if self.revision is None else None


class Models(Section):
    """`benchmark` is the Stable Diffusion 3 of the second line; `critic` a VQA model, which an
    endpoint of the section `critic` replaces. What is None is not measured."""

    base: ModelRef
    verifier: ModelRef
    clip: ModelRef
    image_reward: ModelRef
    examiner: ModelRef | None = None
    benchmark: ModelRef | None = None
    critic: ModelRef | None = None
    component_examiner: ModelRef | None = None
    blip_vqa: ModelRef | None = None


class Endpoint(Section):
    """`endpoint` None is the built-in way; else any OpenAI-compatible base URL.

    The key is read from the environment variable named by `api_key_env`, never from here.
    """

    endpoint: str | None = None
    model: str | None = None
    api_key_env: str = "HOI_API_KEY"
    seed: int = 0
    temperature: float = Field(0.0, ge=0, le=2)
    max_attempts: int = Field(3, ge=1, le=10)
    timeout_s: float = Field(60, gt=0)
    concurrency: int = Field(4, ge=1, le=64)
    usd_per_million_input_tokens: float | None = Field(None, ge=0)
    usd_per_million_output_tokens: float | None = Field(None, ge=0)
    budget_usd: float | None = Field(None, ge=0)


class Prompter(Endpoint):
    """`endpoint` None is the built-in slot grammar.

    `vocabulary` tiny lets an endpoint use the tiny world's words only, so that the tiny models can
    draw them; open takes any words.
    """

    vocabulary: Literal["tiny", "open"] = "tiny"
    per_base_prompt: int = Field(4, ge=1, le=200)
    temperature: float = Field(0.8, ge=0, le=2)
    max_words: int = Field(40, ge=5, le=75)
    near_duplicate_similarity: float = Field(0.9, gt=0, le=1)


class Interacting(Section):
    """The InterActing benchmark. `folder` None takes the built-in rows; else a folder with the
    official files (`hoi interacting fetch`). `rows_per_scenario` None takes all rows."""

    folder: str | None = None
    rows_per_scenario: int | None = Field(None, ge=1)


class Decomposer(Endpoint):
    """`endpoint` None is the built-in grammar, and rules for sentences outside of it."""


class Rewriter(Endpoint):
    """Who rewrites prompts for the baseline `rewrite`; `endpoint` None says the components again
    behind the prompt, by rule."""

    max_words: int = Field(70, ge=10, le=70)


class Critic(Endpoint):
    """`endpoint` None is the VQA model `models.critic`, whose yes counts from `threshold` on; else
    an endpoint that takes pictures. `image_tokens`: the most it bills for one picture, for the
    budget's sake."""

    threshold: float = Field(0.5, gt=0, lt=1)
    max_words: int = Field(70, ge=10, le=70)
    image_tokens: int = Field(2048, ge=0)


class Judge(Endpoint):
    """A vision endpoint that rates pictures 1 to 5 and says yes or no; None: nobody is asked."""

    image_tokens: int = Field(2048, ge=0)


class Painter(Endpoint):
    """An image endpoint as a baseline (OpenAI images API); None: nobody is asked.

    `size` is asked of the endpoint in pixels; `usd_per_image` None is not known. `seed` is sent to
    nobody: another one asks for other pictures.
    """

    size: str = Field("1024x1024", pattern="^[1-9][0-9]{1,3}x[1-9][0-9]{1,3}$")
    usd_per_image: float | None = Field(None, ge=0)
    timeout_s: float = Field(180, gt=0)

    @model_validator(mode="after")
    def _priced_by_the_picture(self) -> "Painter":
        by_token = (self.usd_per_million_input_tokens, self.usd_per_million_output_tokens)
        if by_token != (None, None):
            raise ValueError("a painter is priced by usd_per_image, not by tokens")
        return self


class Refining(Section):
    """Drawing and re-denoising with the benchmark model (DetailScribe, arXiv 2504.08714).

    `s_reference` does as the published code does. `craft_rounds`: edits of the CRAFT-like arm.
    """

    num_inference_steps: int = Field(28, ge=2, le=200)
    guidance_scale: float = Field(4.5, ge=0, le=30)
    negative_prompt: str = ""
    width: int = Field(128, ge=64, le=2048, multiple_of=16)
    height: int = Field(128, ge=64, le=2048, multiple_of=16)
    batch_size: int = Field(16, ge=1, le=256)
    switch_steps: tuple[Annotated[int, Field(ge=0)], ...] = Field((0, 1, 2, 4), min_length=1)
    s_reference: bool = False
    craft_rounds: int = Field(3, ge=0, le=10)
    seed: int = 0


class InstanceImages(Section):
    """`folder` None takes renders of the tiny world; else `<folder>/<category>/*` with captions."""

    folder: str | None = None
    pool: str = "data/pool"
    per_category: int = Field(12, ge=1, le=1000)
    max_side_px: int = Field(16384, ge=64)
    min_side_px: int = Field(64, ge=1)


class LoraTraining(Section):
    """Options of diffusers' DreamBooth LoRA SDXL recipe, under its names."""

    rank: int = Field(8, ge=1, le=256)
    lora_alpha: int = Field(8, ge=1, le=512)
    max_train_steps: int = Field(60, ge=1)
    train_batch_size: int = Field(4, ge=1)
    gradient_accumulation_steps: int = Field(1, ge=1)
    gradient_checkpointing: bool = False
    learning_rate: float = Field(3e-4, gt=0)
    lr_scheduler: Literal["constant", "cosine"] = "constant"
    lr_warmup_steps: int = Field(0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    snr_gamma: float | None = Field(5.0, gt=0)
    with_prior_preservation: bool = True
    prior_loss_weight: float = Field(1.0, ge=0)
    num_class_images: int = Field(16, ge=0)
    checkpointing_steps: int = Field(50, ge=1)
    mixed_precision: Literal["no", "bf16"] = "no"
    seed: int = 0


class FineTuning(LoraTraining):
    """LoRA fine-tuning of SDXL on the dataset; stops early on validation loss."""

    with_prior_preservation: bool = False
    validation_steps: int = Field(20, ge=1)
    early_stopping_patience: int = Field(3, ge=1)
    min_train_rows: int = Field(8, ge=1)


class Sampling(Section):
    scheduler: Literal["euler", "dpmpp_2m"] = "dpmpp_2m"
    num_inference_steps: int = Field(16, ge=1, le=200)
    guidance_scale: float = Field(4.0, ge=0, le=30)
    negative_prompt: str = ""
    width: int = Field(128, ge=64, le=2048, multiple_of=8)
    height: int = Field(128, ge=64, le=2048, multiple_of=8)
    batch_size: int = Field(16, ge=1, le=256)


class Candidates(Section):
    """`accepted_goal` None draws `per_prompt` images of each prompt once; with a goal, further
    rounds are drawn until `accepted_goal` are accepted or `budget` candidates are drawn."""

    per_prompt: int = Field(1, ge=1)
    accepted_goal: int | None = Field(None, ge=1)
    budget: int = Field(96, ge=1)
    seed: int = 0


class Verifier(Section):
    train_steps: int = Field(60, ge=0)
    batch_size: int = Field(32, ge=2)
    learning_rate: float = Field(1e-4, gt=0)
    target_precision: float = Field(0.8, gt=0, lt=1)
    training_pairs: int = Field(480, ge=32)
    labels_folder: str | None = None
    generator_view_share: float = Field(0.5, ge=0, le=1)
    renoise_strength: float = Field(0.25, ge=0, lt=1)
    seed: int = 0


class Dataset(Section):
    perceptual_hash_distance: int = Field(4, ge=0, le=64)
    validation_share: float = Field(0.15, gt=0, lt=0.5)
    test_share: float = Field(0.15, gt=0, lt=0.5)
    min_categories: int = Field(1, ge=1)
    seed: int = 0


class Evaluation(Section):
    """`reference_pool`: rendered scenes (split `reference`) that scores are ranked against."""

    reference_pool: str | None = "data/pool"
    images_per_prompt: int = Field(2, ge=1)
    hoi_prompts_per_category: int = Field(6, ge=1)
    general_prompts: int = Field(16, ge=0)
    seed: int = 1000
    bootstrap_samples: int = Field(2000, ge=100)


class Gates(Section):
    """Thresholds of the expectation suites."""

    min_prompts: int = Field(8, ge=1)
    min_instance_images: int = Field(4, ge=1)
    max_failed_share: float = Field(0.1, ge=0, le=1)
    max_duplicate_share: float = Field(0.2, ge=0, le=1)
    min_pixel_std: float = Field(4.0, ge=0)
    min_auc_fidelity: float = Field(0.6, ge=0, le=1)
    min_auc_alignment: float = Field(0.6, ge=0, le=1)
    min_accepted_per_category: int = Field(1, ge=0)
    min_dataset_rows: int = Field(12, ge=1)
    max_loss: float = Field(2.0, gt=0)


class Settings(Section):
    """Everything that can be set. See `data/profiles/tiny.yaml` for the words in use."""

    profile: str
    taxonomy: str = "data/taxonomy"
    run_categories: tuple[str, ...] = ()
    run_scenarios: tuple[str, ...] = ()
    device: Literal["cpu", "cuda", "auto"] = "cpu"
    threads: int = Field(2, ge=1, le=256)
    models: Models
    prompter: Prompter = Prompter()
    interacting: Interacting = Interacting()
    decomposer: Decomposer = Decomposer()
    rewriter: Rewriter = Rewriter()
    critic: Critic = Critic()
    judge: Judge = Judge()
    painter: Painter = Painter()
    refining: Refining = Refining()
    instance_images: InstanceImages = InstanceImages()
    lora: LoraTraining = LoraTraining()
    sampling: Sampling = Sampling()
    candidates: Candidates = Candidates()
    verifier: Verifier = Verifier()
    dataset: Dataset = Dataset()
    finetuning: FineTuning = FineTuning()
    evaluation: Evaluation = Evaluation()
    gates: Gates = Gates()

    @model_validator(mode="after")
    def _budget_covers_goal(self) -> "Settings":
        goal = self.candidates.accepted_goal
        if goal is not None and goal > self.candidates.budget:
            raise ValueError(
                f"candidates.accepted_goal {goal} is larger than "
                f"candidates.budget {self.candidates.budget}"
            )
        return self

    @property
    def taxonomy_folder(self) -> Path:
        return ROOT / self.taxonomy


def load_settings(profile: str | None = None) -> Settings:
    """Read a profile by name (`tiny`, `full`) or by path of a YAML file.

    Args:
        profile: None takes the environment variable `HOI_PROFILE`, else `tiny`.

    Raises:
        HoiError: no such profile, broken YAML, or a field that is unknown or out of range.
    """
    name = profile or os.environ.get("HOI_PROFILE") or "tiny"
    path = Path(name) if name.endswith((".yaml", ".yml")) else PROFILES / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in PROFILES.glob("*.yaml")))
        raise HoiError(
            f"profile {name!r} not found at {path}",
            f"name one of: {known}; or give the path of a .yaml file of your own",
        )
    try:
        raw: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Settings.model_validate({"profile": path.stem, **(raw or {})})
    except yaml.YAMLError as error:
        raise HoiError(f"{path} is not valid YAML: {error}", "mend the line it names") from error
    except ValidationError as error:
        lines = [
            f"{'.'.join(str(p) for p in e['loc']) or 'profile'}: {e['msg']}"
            for e in error.errors(include_url=False, include_input=False)
        ]
        raise HoiError(
            f"{path}: " + "; ".join(lines), "mend the fields named; see hoi_assets/settings.py"
        ) from error


def home_folder() -> Path:
    """Where outputs go: the environment variable `HOI_HOME`, else `data/out` of the repository."""
    return Path(os.environ.get("HOI_HOME") or ROOT / "data" / "out").resolve()
