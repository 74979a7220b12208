"""The one training loop: every random number of a step comes from (seed, step), so that a training
that was killed goes on with the bits of an unbroken one."""

import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hoi_assets.errors import HoiError
from hoi_assets.progress import Log
from hoi_assets.tinyworld.weights.recipes import Recipe

CHECKPOINT_S = 120.0
EDITION_S = 300.0
LOG_INTERVAL_S = 20.0
COMPILE_FROM_STEPS = 1000
STATE_FILE = "state.pt"

Loss = Callable[[Any], Any]


@dataclass(frozen=True)
class Trained:
    """How a training ended: steps done of those planned, minutes spent, mean loss of the last."""

    steps: int
    planned: int
    minutes: float
    loss: float


def autocast(device: Any = "cpu") -> Any:
    """bf16 on a GPU, and on a CPU that multiplies tiles of it; elsewhere fp32 is faster."""
    import torch

    kind = torch.device(device).type
    fast = kind != "cpu" or torch.cpu._is_amx_tile_supported()
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=fast)


def compiled(module: Any, recipe: Recipe) -> Any:
    """`module` with the same weights and faster steps, where a C++ compiler is at hand and the
    training is long enough to earn back the minute that compiling takes; else `module` itself."""
    import torch

    worth_it = recipe.steps >= COMPILE_FROM_STEPS
    return torch.compile(module) if worth_it and shutil.which("g++") else module


def learning_rate(recipe: Recipe, step: int) -> float:
    """Learning rate of a step, counted from 0."""
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / recipe.warmup_steps
    share = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    cosine = (1 + math.cos(math.pi * share)) / 2
    return recipe.learning_rate * (recipe.final_share + (1 - recipe.final_share) * cosine)


def validation_loss(loss_of: Loss, device: Any = "cpu", batches: int = 8) -> float:
    """Mean loss over fixed draws."""
    import torch

    with torch.inference_mode(), autocast(device):
        total = sum(float(loss_of(torch.Generator().manual_seed(n))) for n in range(batches))
    return total / batches


def fit(
    model: Any,
    loss_of: Loss,
    recipe: Recipe,
    folder: Path,
    log: Log = print,
    max_minutes: float | None = None,
    edition: Callable[[Trained], None] | None = None,
    checkpoint_s: float = CHECKPOINT_S,
) -> Trained:
    """Train `model` in place by `recipe`, going on from the checkpoint in `folder`, if any.

    Args:
        loss_of: takes the step's torch.Generator and returns the loss; it may draw from the global
            generator too, which is seeded alike.
        max_minutes: outer stop, all sessions of this training together.
        edition: called every five minutes or so, while the model holds the averaged weights.

    Raises:
        HoiError: the checkpoint belongs to another recipe, or the loss is no number.
    """
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    parameters = [p for p in model.parameters() if p.requires_grad]
    device = parameters[0].device
    optimizers = _optimizers(model, recipe)
    average = None
    if recipe.ema_decay is not None:
        average = [p.detach().clone() for p in parameters]
    first, spent, recent = _restore(folder, recipe, model, optimizers, average)
    if first:
        log(f"{recipe.name}: resumes at step {first}")
    start = last_log = last_save = last_edition = time.monotonic()
    step = first
    while step < recipe.steps:
        now = time.monotonic()
        if max_minutes is not None and spent + now - start > 60 * max_minutes:
            log(f"{recipe.name}: stopped by --max-minutes {max_minutes:g} at step {step}")
            break
        generator = _generators(recipe, step)
        with autocast(device):
            loss = loss_of(generator)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, recipe.max_grad_norm)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(recipe, step)
            optimizer.step()
        step += 1
        if average is not None and recipe.ema_decay is not None:
            decay = min(recipe.ema_decay, (1 + step) / (10 + step))
            torch._foreach_lerp_(average, [p.detach() for p in parameters], 1 - decay)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise HoiError(
                f"training {recipe.name}: the loss is {value} at step {step}",
                "lower learning_rate in hoi_assets/tinyworld/weights/recipes.py and "
                f"remove {folder}",
            )
        recent = value if step == 1 else 0.98 * recent + 0.02 * value
        now = time.monotonic()
        if now - last_log >= LOG_INTERVAL_S or step == recipe.steps:
            last_log = now
            rate = (step - first) / (now - start)
            left = (recipe.steps - step) / rate / 60
            log(
                f"{recipe.name}: step {step}/{recipe.steps}, {rate:.2f}/s, loss {recent:.4f}, "
                f"{left:.1f} min left"
            )
        if now - last_save >= checkpoint_s:
            last_save = now
            _save(folder, recipe, model, optimizers, average, (step, spent + now - start, recent))
        if edition is not None and now - last_edition >= EDITION_S and step < recipe.steps:
            last_edition = now
            _swap(parameters, average)
            edition(Trained(step, recipe.steps, (spent + now - start) / 60, recent))
            _swap(parameters, average)
    seconds = spent + time.monotonic() - start
    if step > first:
        _save(folder, recipe, model, optimizers, average, (step, seconds, recent))
    _swap(parameters, average)
    return Trained(step, recipe.steps, seconds / 60, recent)


def _optimizers(model: Any, recipe: Recipe) -> list[Any]:
    """AdamW; where the recipe says `muon`, Muon for the matrices between the layers, which learn
    in fewer steps by it (arXiv 2502.16982, section 2.2: the same learning rate serves both)."""
    from torch import optim

    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    outer = ("embed", "proj_out", "proj_in", "classifier", "reader")
    hidden = [
        p
        for name, p in named
        if "muon" in dict(recipe.extra) and p.ndim == 2 and not any(part in name for part in outer)
    ]
    rest = [p for _, p in named if not any(p is other for other in hidden)]
    adam = optim.AdamW(
        rest,
        lr=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        betas=(0.9, 0.99),
        fused=True,
    )
    if not hidden:
        return [adam]
    muon = optim.Muon(
        hidden,
        lr=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    return [adam, muon]


def _generators(recipe: Recipe, step: int) -> Any:
    import torch

    seed = recipe.seed * 1_000_003 + step
    torch.manual_seed(seed)
    return torch.Generator().manual_seed(seed + 1)


def _swap(parameters: list[Any], average: list[Any] | None) -> None:
    import torch

    if average is None:
        return
    with torch.no_grad():
        for parameter, kept in zip(parameters, average, strict=True):
            other = parameter.detach().clone()
            parameter.copy_(kept)
            kept.copy_(other)


def _save(
    folder: Path, recipe: Recipe, model: Any, optimizers: list[Any], average: Any, place: Any
) -> None:
    import torch

    state = {
        "recipe": recipe.digest,
        "model": model.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "average": average,
        "place": list(place),
    }
    fresh = folder / f"{STATE_FILE}.new"
    torch.save(state, fresh)
    fresh.replace(folder / STATE_FILE)


def _restore(
    folder: Path, recipe: Recipe, model: Any, optimizers: list[Any], average: Any
) -> tuple[int, float, float]:
    import torch

    path = folder / STATE_FILE
    if not path.is_file():
        return 0, 0.0, 0.0
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["recipe"] != recipe.digest:
        raise HoiError(
            f"{path} is a checkpoint of recipe {state['recipe']}, {recipe.name} is {recipe.digest}",
            "remove the file to train anew, or restore the recipe in "
            "hoi_assets/tinyworld/weights/recipes.py",
        )
    model.load_state_dict(state["model"])
    for optimizer, kept in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(kept)
    if average is not None:
        for kept, value in zip(average, state["average"], strict=True):
            kept.copy_(value)
    step, seconds, recent = state["place"]
    return int(step), float(seconds), float(recent)
