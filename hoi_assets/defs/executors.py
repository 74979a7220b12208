"""Where steps and their batches are computed: the one place that `HOI_EXECUTOR` is looked at.

With `ray` the steps of a run become jobs of a Ray cluster, and steps that draw or score share their
batches out over its workers. The assets do not know.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from hoi_assets.cluster.batch_map import RayBatchMap
from hoi_assets.cluster.connection import ray_address, require_head, require_installed
from hoi_assets.cluster.resources import resources_of
from hoi_assets.engines.batch_map import BatchMap, in_use, use
from hoi_assets.publishing.asset import GPU_POOL
from hoi_assets.publishing.stage import Stage
from hoi_assets.settings import Settings, chosen_executor, home_location

RAY = "ray"
# Of dagster-ray, for the resources of a step.
RAY_TAG = "dagster-ray/config"
# What a step's process needs to know and a node cannot; secrets are set on the nodes.
PASSED_ON = (
    "HOI_DATA",
    "HOI_MODELS",
    "HOI_EXECUTOR",
    "HOI_PAGES_URL",
    "DAGSTER_HOME",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL",
    "AWS_REGION",
)
# Assets whose step stores and records only, with the settings under which it computes as well.
SHARED_OUT: Mapping[str, Callable[[Settings], bool]] = {
    "candidate_images": lambda settings: settings.models.proposer is not None,
    "verified_pairs": lambda settings: False,
    "hoi_evaluation_images": lambda settings: False,
    "initial_images": lambda settings: False,
    "image_critiques": lambda settings: False,
    "refined_images": lambda settings: (
        settings.local_repair is not None or settings.models.editor is not None
    ),
    "baseline_images": lambda settings: False,
    "hoi_scorecards": lambda settings: False,
    "interacting_scorecards": lambda settings: False,
    "round_scorecards": lambda settings: False,
    "evaluation_report": lambda settings: False,
}


def shares_out(settings: Settings, asset: str) -> bool:
    """Whether the asset's batches go to the cluster's workers."""
    computes = SHARED_OUT.get(asset)
    return computes is not None and not computes(settings)


def executor() -> dg.ExecutorDefinition:
    """What runs the steps of a run that the UI, a backfill, a schedule or a sensor launches.

    Raises:
        HoiError: `HOI_EXECUTOR` names none, or Ray is not installed.
    """
    if chosen_executor() != RAY:
        return dg.in_process_executor
    require_installed()
    from dagster_ray import ray_executor

    configured: dg.ExecutorDefinition = ray_executor.configured(
        {"ray": {"address": ray_address(), "env_vars": _passed_on()}}, name=RAY
    )
    return configured


def _passed_on() -> list[str]:
    """Variables of a step's process; paths are whole, as its working folder is another."""
    found = [f"{name}={os.environ[name]}" for name in PASSED_ON if os.environ.get(name)]
    profile = os.environ.get("HOI_PROFILE")
    if profile:
        is_file = profile.endswith((".yaml", ".yml"))
        found.append(f"HOI_PROFILE={Path(profile).resolve() if is_file else profile}")
    return [*found, f"HOI_HOME={home_location()}"]


def op_tags(settings: Settings) -> Callable[[Stage], Mapping[str, Any]]:
    """Tags of a stage's step: what it takes of the cluster, where it computes by itself."""
    if chosen_executor() != RAY:
        return lambda stage: {}

    def tags(stage: Stage) -> Mapping[str, Any]:
        computes = stage.asset_keywords.get("pool") == GPU_POOL
        if shares_out(settings, stage.name) or not (computes or stage.name in settings.ray.assets):
            return {}
        own = resources_of(settings, stage.name)
        wanted = {"num_cpus": own.num_cpus, "num_gpus": own.num_gpus, "memory": own.memory_bytes}
        return {RAY_TAG: {name: amount for name, amount in wanted.items() if amount}}

    return tags


def use_batch_map(settings: Settings) -> None:
    """Have this process compute batches where `HOI_EXECUTOR` says; nothing is connected yet."""
    current = in_use()
    if chosen_executor() != RAY:
        if isinstance(current, RayBatchMap):
            current.close()
            use(BatchMap())
        return
    # Workers stay from one run of the warm loop to the next.
    if not isinstance(current, RayBatchMap) or current.settings != settings:
        if isinstance(current, RayBatchMap):
            current.close()
        use(RayBatchMap(settings, lambda asset: shares_out(settings, asset)))


def require_executor() -> None:
    """Refuse a cluster that does not answer, before anything is computed.

    Raises:
        HoiError: its head does not answer.
    """
    if chosen_executor() == RAY:
        require_head()
