"""Whether device, memory and disk suffice."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from hoi_assets.cluster.connection import ray_address, require_head
from hoi_assets.engines.model_check import ModelState
from hoi_assets.preflight.costs import BYTES_PER_GB, Plan
from hoi_assets.preflight.findings import Finding, ok, problem, warning
from hoi_assets.settings import Settings, chosen_executor, home_location, mirror_folder
from hoi_assets.store.home import IDENTITY, check_path, check_profile
from hoi_assets.store.remote_home import RemoteHome
from hoi_assets.text import shown_bytes

# Of the free memory; the rest is for activations, which nobody knows before a run.
WEIGHTS_SHARE = 0.7


def check_device(settings: Settings, states: Sequence[ModelState]) -> Iterator[Finding]:
    """The device of the profile, and each model's weights against its free memory.

    Raises:
        HoiError: a GPU is asked for and there is none.
    """
    import torch

    from hoi_assets.engines.device import resolve_device
    from hoi_assets.engines.model_cache import free_bytes

    device = resolve_device(settings.device)
    free = free_bytes(device)
    on_gpu = device.startswith("cuda")
    name = torch.cuda.get_device_name() if on_gpu else "CPU"
    yield ok("device", device, f"{name}, {shown_bytes(free)} of its memory are free")
    if settings.device == "auto" and not on_gpu:
        yield warning(
            "device",
            device,
            "device is auto, and torch sees no GPU: models run on the CPU",
            "install a CUDA build of torch and its driver, or expect hours to be days",
        )
    if on_gpu and not torch.cuda.is_bf16_supported():
        for state in states:
            if state.dtype == "bfloat16":
                yield warning(
                    "device",
                    state.entry,
                    f"{name} does not compute in bfloat16 itself",
                    f"set models.{state.entry}.dtype to float16 (with mixed_precision fp16 where "
                    "it is trained) or float32",
                )
    for state in states:
        if state.memory_bytes is None:
            continue
        what = f"weights of {shown_bytes(state.memory_bytes)}, {shown_bytes(free)} are free"
        remedy = f"set models.{state.entry}.dtype to bfloat16, name a smaller model, or free memory"
        if state.memory_bytes > free:
            yield problem("device", state.entry, what, remedy)
        elif state.memory_bytes > WEIGHTS_SHARE * free:
            yield warning("device", state.entry, f"{what}: little is left for activations", remedy)
    yield _budget(settings, states, free)


def check_cluster() -> Iterator[Finding]:
    """The head of the Ray cluster, where `HOI_EXECUTOR` names one.

    Raises:
        HoiError: it does not answer.
    """
    if chosen_executor() == "ray":
        require_head()
        yield ok("device", "ray", f"the cluster at {ray_address()} draws and scores")


def _budget(settings: Settings, states: Sequence[ModelState], free: int) -> Finding:
    """Whether all models stay in memory together."""
    known = [state.memory_bytes for state in states if state.memory_bytes is not None]
    unknown = len(states) - len(known)
    total = sum(known)
    limit = settings.model_budget_gb
    most = free * 0.5 if limit is None else limit * BYTES_PER_GB
    where = "half of the free memory" if limit is None else "model_budget_gb"
    models = f"{shown_bytes(total)} of weights in all"
    if unknown:
        models = (
            f"{models} without {unknown} models that do not load" if known else "unknown weights"
        )
    what = f"{models}, {where} is {shown_bytes(most)}"
    if total <= most:
        return ok("device", "model budget", what)
    return ok("device", "model budget", f"{what}: they are loaded in turn")


def check_disk(home: Path, plan: Plan | None) -> Iterator[Finding]:
    """Free space for the plan's pictures."""
    free = shutil.disk_usage(existing_folder(home)).free
    gb = None if plan is None else plan.total.gb[plan.picture_format]
    room = f"{shown_bytes(free)} are free at {home}"
    if gb is None:
        yield ok("disk", "home", f"{room}; what is needed is unknown")
    elif gb * BYTES_PER_GB > free:
        yield problem(
            "disk",
            "home",
            f"{room}, the pictures take up to {shown_bytes(gb * BYTES_PER_GB)}",
            "set HOI_HOME to a larger disk, picture_format to webp, or lower candidates.budget",
        )
    else:
        yield ok("disk", "home", f"{room}, up to {shown_bytes(gb * BYTES_PER_GB)} are needed")


def check_home(home: Path, profile: str) -> Iterator[Finding]:
    """Whether the home can be one, and is this profile's.

    Raises:
        HoiError: it cannot, belongs to another profile, or is in a bucket that refuses or does not
            answer.
    """
    location = home_location()
    if isinstance(location, str) and mirror_folder(location) == home:
        RemoteHome(location).pull(home / IDENTITY)
        yield ok("home", location, f"the bucket answers; copies go to {home}")
    check_path(home)
    check_profile(home, profile)
    yield ok("home", str(home), f"outputs of the profile {profile!r} go there")


def existing_folder(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(one for one in (folder, *folder.parents) if one.is_dir())
