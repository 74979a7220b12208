"""Where work is computed: the environment variable `HOI_EXECUTOR`, and the section of Ray."""

import os
from typing import Literal, get_args

from pydantic import Field

from hoi_assets.errors import HoiError
from hoi_assets.settings.base import Section

Executor = Literal["in_process", "ray"]
VARIABLE = "HOI_EXECUTOR"


class RayResources(Section):
    """What one process takes of a Ray cluster; null: as the section `ray` says."""

    num_gpus: float | None = Field(None, ge=0, description="GPUs; 0.5 lets two share one.")
    num_cpus: float | None = Field(None, ge=0, description="CPUs.")
    memory_gb: float | None = Field(None, gt=0, description="Memory in GB that Ray sets aside.")


class Ray(Section):
    """A Ray cluster's share in the work, where `HOI_EXECUTOR=ray`; see `docs/ray.md`. Changes no
    version."""

    num_gpus: float | None = Field(
        None,
        ge=0,
        description="GPUs of a worker, and of a step that computes by itself, such as a training; "
        "null: 1, or 0 where `device` is cpu.",
    )
    num_cpus: float | None = Field(
        None, ge=0, description="CPUs of the same; null: 1 beside a GPU, else `threads`."
    )
    memory_gb: float | None = Field(
        None, gt=0, description="Memory in GB that Ray sets aside for the same; null: none."
    )
    resources: dict[str, float] = Field(
        {},
        description="Further resources that the nodes of workers must have, such as "
        '{"accelerator_type:H100": 0.001}.',
    )
    assets: dict[str, RayResources] = Field(
        {}, description="num_gpus, num_cpus and memory_gb of single assets, by name."
    )
    max_workers: int | None = Field(
        None, ge=1, description="Most workers of a step; null: as many as the cluster holds."
    )
    batch_retries: int = Field(
        3, ge=0, description="How often a batch is computed again whose worker died."
    )
    start_timeout_s: float = Field(
        300,
        gt=0,
        description="Longest wait in seconds for a node that is large enough for a worker, such as "
        "one that an autoscaler adds.",
    )


def chosen_executor() -> Executor:
    """What `HOI_EXECUTOR` names: `in_process`, the default, or `ray`.

    Raises:
        HoiError: it names something else.
    """
    name = os.environ.get(VARIABLE) or "in_process"
    for known in get_args(Executor):
        if name == known:
            return known
    raise HoiError(
        f"{VARIABLE} is {name!r}", f"set it to one of: {', '.join(get_args(Executor))}; or unset it"
    )
