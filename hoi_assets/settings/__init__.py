"""Typed configuration: the schema of a profile, its reader, and where files are looked for.

A profile is a YAML file; nothing else distinguishes `tiny` from `full`. Import from here; the
modules below group the sections by who reads them. `docs/configuration.md` lists every field.
"""

from hoi_assets.settings.base import (
    REPLY_OPTIONS,
    Endpoint,
    ModelRef,
    Models,
    Section,
    digested,
)
from hoi_assets.settings.detailscribe import (
    Critic,
    Decomposer,
    ImageEndpoint,
    Interacting,
    Redenoising,
    Rewriter,
)
from hoi_assets.settings.evaluation import Evaluation, Gates, Judge
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
    Candidates,
    Dataset,
    FineTuning,
    InstanceImages,
    LoraTraining,
    Prompter,
    Sampling,
    Verifier,
)
from hoi_assets.settings.profile import FORMER_NAMES, Settings, load_settings
from hoi_assets.settings.schedules import Schedules

__all__ = [
    "Candidates",
    "Critic",
    "Dataset",
    "Decomposer",
    "Endpoint",
    "Evaluation",
    "FORMER_NAMES",
    "FineTuning",
    "Gates",
    "IN_CHECKOUT",
    "ImageEndpoint",
    "InstanceImages",
    "Interacting",
    "Judge",
    "LABELS_FILE",
    "LoraTraining",
    "ModelRef",
    "Models",
    "PROFILES",
    "Prompter",
    "REPLY_OPTIONS",
    "ROOT",
    "Redenoising",
    "Rewriter",
    "Sampling",
    "Schedules",
    "Section",
    "Settings",
    "Verifier",
    "digested",
    "expand_user",
    "home_folder",
    "load_settings",
    "models_folder",
    "resolve_path",
    "restore_remedy",
]
