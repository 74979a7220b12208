"""A whole profile and its reader."""

import os
import warnings
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator, model_validator

from hoi_assets.errors import HoiError
from hoi_assets.settings.base import Models, Section
from hoi_assets.settings.detailscribe import (
    Critic,
    Decomposer,
    ImageEditing,
    ImageEndpoint,
    Interacting,
    LocalRepair,
    Redenoising,
    Rewriter,
)
from hoi_assets.settings.evaluation import Evaluation, Gates, Judge, YesNoJudge
from hoi_assets.settings.executor import Ray
from hoi_assets.settings.locations import PROFILES, path_exists, resolve_path
from hoi_assets.settings.ppv import (
    Anatomy,
    Candidates,
    Dataset,
    InstanceImages,
    Landmarks,
    Prompter,
    Proposer,
    Rounds,
    Sampling,
    Verifier,
)
from hoi_assets.settings.schedules import Schedules
from hoi_assets.settings.training import FineTuning, LoraTraining
from hoi_assets.text import text_problem
from hoi_assets.yaml_file import YamlError, YamlFile

# Sections by their name, with the name they had in release 0.1. Profiles may still use that one;
# digests of settings use it for good, so that versions published before stay fresh.
FORMER_NAMES = {"image_endpoint": "painter", "redenoising": "refining"}
LAST_RELEASE_OF_FORMER_NAMES = "0.2"
# GB are decimal, as disks and cards are sold.
BYTES_PER_GB = 10**9


class Settings(Section):
    """Everything that can be set. See `data/profiles/tiny.yaml` for an example."""

    profile: str = Field(description="Name of the profile; the file's name where left out.")
    taxonomy: str = Field("data/taxonomy", description="Folder of the taxonomy of hand poses.")
    run_categories: tuple[str, ...] = Field(
        (), description="Hand-pose categories that `hoi run` makes; empty: all."
    )
    run_scenarios: tuple[str, ...] = Field(
        (), description="InterActing scenarios that `hoi run` makes; empty: all."
    )
    device: Literal["cpu", "cuda", "auto"] = Field(
        "cpu", description="Where models run; auto: a GPU where there is one."
    )
    threads: int = Field(2, ge=1, le=256, description="CPU threads of torch.")
    model_budget_gb: float | None = Field(
        None,
        gt=0,
        description="Memory in GB that loaded models may hold; null: half of the free memory.",
    )
    picture_format: Literal["png", "webp"] = Field(
        "png",
        description="Lossless format of stored images; webp: smaller, slower to write. Datasets "
        "hold PNG either way.",
    )
    timezone: str = Field(
        "UTC", description="Time zone of the schedules, as in the IANA data, e.g. Europe/Paris."
    )
    models: Models = Field(description="Which weights are used.")
    prompter: Prompter = Prompter()
    interacting: Interacting = Interacting()
    decomposer: Decomposer = Decomposer()
    rewriter: Rewriter = Rewriter()
    critic: Critic = Critic()
    judge: Judge = Judge()
    vqa_score: YesNoJudge | None = Field(None, description="See `vqa_score` below.")
    image_endpoint: ImageEndpoint = ImageEndpoint()
    redenoising: Redenoising = Redenoising()
    image_editing: ImageEditing | None = Field(None, description="See `image_editing` below.")
    local_repair: LocalRepair | None = Field(None, description="See `local_repair` below.")
    instance_images: InstanceImages = InstanceImages()
    lora: LoraTraining = LoraTraining()
    sampling: Sampling = Sampling()
    proposer: Proposer | None = Field(None, description="See `proposer` below.")
    candidates: Candidates = Candidates()
    rounds: Rounds = Rounds()
    verifier: Verifier = Verifier()
    anatomy: Anatomy | None = Field(None, description="See `anatomy` below.")
    landmarks: Landmarks | None = Field(None, description="See `landmarks` below.")
    dataset: Dataset = Dataset()
    finetuning: FineTuning = FineTuning()
    evaluation: Evaluation = Evaluation()
    gates: Gates = Gates()
    schedules: Schedules = Schedules()
    ray: Ray = Ray()

    @field_validator("profile")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        problem = text_problem(name)
        if problem is not None:
            raise ValueError(f"is no plain text: {problem}")
        return name

    @field_validator("timezone")
    @classmethod
    def _known_timezone(cls, name: str) -> str:
        try:
            # UTC needs no data, which small systems lack.
            known = name == "UTC" or ZoneInfo(name) is not None
        except (LookupError, ValueError, OSError):
            known = False
        if not known:
            raise ValueError("is not a time zone of the IANA data, e.g. UTC or Europe/Paris")
        return name

    @model_validator(mode="after")
    def _fp16_trains_on_a_gpu(self) -> "Settings":
        for name in ("lora", "finetuning"):
            if self.device == "cpu" and getattr(self, name).mixed_precision == "fp16":
                raise ValueError(f"{name}.mixed_precision fp16 needs a GPU, and device is cpu")
        return self

    @property
    def model_budget_bytes(self) -> int | None:
        """`model_budget_gb` in bytes."""
        budget = self.model_budget_gb
        return None if budget is None else int(budget * BYTES_PER_GB)

    @property
    def taxonomy_folder(self) -> Path:
        """Folder of the taxonomy; see `resolve_path`."""
        return resolve_path(self.taxonomy)


def load_settings(profile: str | None = None) -> Settings:
    """Read a profile by name (`tiny`, `full`) or by path of a YAML file.

    Warns (FutureWarning) of sections under a former name, with file and line.

    Args:
        profile: None takes the environment variable `HOI_PROFILE`, else `tiny`.

    Raises:
        HoiError: no such profile.
        YamlError: broken YAML, or fields that are unknown or out of range; each with its line.
    """
    name = profile or os.environ.get("HOI_PROFILE") or "tiny"
    path = Path(name) if name.endswith((".yaml", ".yml")) else PROFILES / f"{name}.yaml"
    if not path_exists(path):
        known = ", ".join(sorted(p.stem for p in PROFILES.glob("*.yaml")))
        raise HoiError(
            f"profile {name[:80]!r} not found at {str(path)[:200]}",
            f"name one of: {known}; or give the path of a .yaml file of your own",
        )
    mistakes: list[str] = []
    settings = None
    file = YamlFile.read(path, mistakes)
    if file is not None:
        _take_former_names(file, mistakes)
        settings = file.parse(Settings, mistakes, profile=path.stem)
    if settings is None or mistakes:
        remedy = "correct the lines named; docs/configuration.md lists every field and its range"
        raise YamlError(mistakes, remedy, f"profile {path}")
    return settings


def _take_former_names(file: YamlFile, mistakes: list[str]) -> None:
    """Read sections under their former names, with a warning."""
    for new, old in FORMER_NAMES.items():
        if old in file.data and new in file.data:
            mistakes.append(file.mistake((old,), f"is the former name of {new}, given as well"))
            continue
        line = file.rename(old, new)
        if line is not None:
            warnings.warn(
                f"{file.path}:{line}: {old}: is called {new} now; the old name is accepted up to "
                f"release {LAST_RELEASE_OF_FORMER_NAMES}",
                FutureWarning,
                stacklevel=3,
            )
