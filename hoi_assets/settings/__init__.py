"""Typed configuration: the schema of a profile, its reader, and where files are looked for.

A profile is a YAML file; nothing else distinguishes `tiny` from `full`. Import from here; the
modules below group the sections by who reads them. `docs/configuration.md` lists every field.
"""

from hoi_assets.settings.base import (
    AUTO,
    REPLY_OPTIONS,
    BatchSize,
    Endpoint,
    ModelRef,
    Models,
    Section,
    digested,
)
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
from hoi_assets.settings.executor import Executor, Ray, RayResources, chosen_executor
from hoi_assets.settings.locations import (
    IN_CHECKOUT,
    PROFILES,
    ROOT,
    expand_user,
    home_folder,
    models_folder,
    resolve_path,
    restore_remedy,
)
from hoi_assets.settings.ppv import (
    LABELS_FILE,
    MAX_ROUNDS,
    Anatomy,
    Candidates,
    Dataset,
    InstanceImages,
    Landmarks,
    Prompter,
    Proposer,
    Rounds,
    Sampling,
    SignalOptions,
    Verifier,
)
from hoi_assets.settings.profile import BYTES_PER_GB, FORMER_NAMES, Settings, load_settings
from hoi_assets.settings.schedules import Schedules
from hoi_assets.settings.training import FineTuning, LoraTraining

__all__ = [
    "AUTO",
    "Anatomy",
    "BYTES_PER_GB",
    "BatchSize",
    "Candidates",
    "Critic",
    "Dataset",
    "Decomposer",
    "Endpoint",
    "Evaluation",
    "Executor",
    "FORMER_NAMES",
    "FineTuning",
    "Gates",
    "IN_CHECKOUT",
    "ImageEditing",
    "ImageEndpoint",
    "InstanceImages",
    "Interacting",
    "Judge",
    "LABELS_FILE",
    "MAX_ROUNDS",
    "Landmarks",
    "LocalRepair",
    "LoraTraining",
    "ModelRef",
    "Models",
    "PROFILES",
    "Prompter",
    "REPLY_OPTIONS",
    "Ray",
    "RayResources",
    "Proposer",
    "ROOT",
    "Rounds",
    "Redenoising",
    "Rewriter",
    "Sampling",
    "Schedules",
    "Section",
    "Settings",
    "SignalOptions",
    "Verifier",
    "digested",
    "YesNoJudge",
    "chosen_executor",
    "expand_user",
    "home_folder",
    "load_settings",
    "models_folder",
    "resolve_path",
    "restore_remedy",
]
