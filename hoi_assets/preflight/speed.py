"""How long a picture and a training step take on this machine: measured, kept in the home.

A measurement holds for one model, batch, size and device. Nothing is derived from another one's.
"""

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from hoi_assets.engines.batch_sizes import DRAW, settle_batch_size
from hoi_assets.errors import HoiError
from hoi_assets.hashing import digest
from hoi_assets.progress import Log
from hoi_assets.settings import LoraTraining, ModelRef, Redenoising, Sampling, Settings
from hoi_assets.store.disk import replace_bytes, writing
from hoi_assets.store.weights import model_fingerprint

FILE = "measured_speed.json"
FILE_MODE = 0o644
FEW_STEPS, MORE_STEPS = 2, 4
TRAINED_FEW, TRAINED_MORE = 1, 3
UNMEASURED = {"report_to": None, "validation_prompt": None}
# Further options that the time of a step depends on; they enter its key where they are set.
ADDED = ("optimizer", "train_text_encoder", "lora_dropout", "aspect_ratio_buckets")
PROMPT = "a photo of a right hand that holds a red cup"


@dataclass(frozen=True)
class Drawing:
    """Seconds of one picture, as part of a full batch.

    Attributes:
        per_evaluation: of the denoiser.
        besides: decoding and all that does not depend on the number of steps.
    """

    per_evaluation: float
    besides: float

    def seconds(self, pictures: int, evaluations: int) -> float:
        """Of so many pictures with so many evaluations in all."""
        return pictures * self.besides + evaluations * self.per_evaluation


@dataclass(frozen=True)
class Speeds:
    """What was measured; a name that is missing was not.

    Attributes:
        drawing: by entry of the model.
        training: seconds of one optimiser step, by section.
        device: name of the device.
    """

    drawing: dict[str, Drawing] = field(default_factory=dict)
    training: dict[str, float] = field(default_factory=dict)
    device: str | None = None


def read_speeds(settings: Settings, home: Path) -> Speeds:
    """What was measured before on this machine under these settings."""
    path = home / FILE
    if not path.is_file():
        return Speeds()
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        drawing = {
            name: Drawing(**stored[key])
            for name, key in _drawing_keys(settings).items()
            if key in stored
        }
        training = {
            name: float(stored[key]["per_step"])
            for name, key in _training_keys(settings).items()
            if key in stored
        }
        return Speeds(drawing, training, stored.get("device"))
    except (ValueError, TypeError, KeyError) as error:
        raise HoiError(f"{path} cannot be read: {error}", "remove it, and measure again") from error


def measure_speeds(settings: Settings, home: Path, log: Log, training: bool = True) -> Speeds:
    """Draw a batch and train a few steps with each model, and keep how long it took.

    Args:
        training: measure training steps too; they need several times the memory of drawing.

    Raises:
        HoiError: a model that does not load, or a device that is not there.
    """
    import platform

    from hoi_assets.engines.device import configure_torch

    device = configure_torch(settings)
    found: dict[str, Any] = {"device": platform.machine()}
    if device.startswith("cuda"):
        import torch

        found["device"] = torch.cuda.get_device_name()
    for name, key in _drawing_keys(settings).items():
        log(f"measuring {name}: one batch of {FEW_STEPS} and one of {MORE_STEPS} steps")
        found[key] = asdict(_DRAWING[name](settings, device, home, log))
    for name, key in _training_keys(settings).items() if training else ():
        log(f"measuring {name}: {TRAINED_MORE} optimiser steps")
        found[key] = {"per_step": _measure_training(settings, getattr(settings, name), device)}
    path = home / FILE
    with writing(path):
        home.mkdir(parents=True, exist_ok=True)
    data = (json.dumps(found, indent=2, sort_keys=True) + "\n").encode()
    replace_bytes(path, data, home, durable=False, mode=FILE_MODE)
    return read_speeds(settings, home)


def _drawing_keys(settings: Settings) -> dict[str, str]:
    named: dict[str, tuple[ModelRef, Sampling | Redenoising]] = {
        "base": (settings.models.base, settings.sampling)
    }
    if settings.models.benchmark is not None:
        named["benchmark"] = (settings.models.benchmark, settings.redenoising)
    return {
        name: _key(
            settings,
            ref,
            {
                "width": options.width,
                "height": options.height,
                "batch_size": options.batch_size,
                "guided": options.guidance_scale > 1,
            },
        )
        for name, (ref, options) in named.items()
        if _is_here(ref)
    }


def _training_keys(settings: Settings) -> dict[str, str]:
    base = settings.models.base
    if not _is_here(base):
        return {}
    names = ("train_batch_size", "gradient_accumulation_steps", "gradient_checkpointing", "rank")
    more = ("with_prior_preservation", "mixed_precision")
    return {
        section: _key(
            settings,
            base,
            {
                **{name: getattr(getattr(settings, section), name) for name in names + more},
                **getattr(settings, section).given(*ADDED),
            },
        )
        for section in ("lora", "finetuning")
    }


def _is_here(ref: ModelRef) -> bool:
    """Whether a fingerprint can be taken; a missing model has no speed."""
    try:
        model_fingerprint(ref)
    except HoiError:
        return False
    return True


def _key(settings: Settings, ref: ModelRef, facts: dict[str, Any]) -> str:
    where = {"device": settings.device, "threads": settings.threads}
    return digest({"model": model_fingerprint(ref), **where, **facts})[:16]


def _measure_base(settings: Settings, device: str, home: Path, log: Log) -> Drawing:
    from hoi_assets.engines.sdxl.loading import load_sdxl
    from hoi_assets.engines.sdxl.sampling import generate_images, make_image_spec, try_batch

    loaded, options = load_sdxl(settings.models.base, device), settings.sampling
    row = make_image_spec(options, PROMPT, 0, 0)
    size = settle_batch_size(
        loaded,
        home,
        options.batch_size,
        (DRAW, row.width, row.height),
        lambda count: try_batch(loaded, row, count),
        log,
    )

    def draw(steps: int) -> None:
        rows = [replace(row, seed=n, slot=n, steps=steps) for n in range(size)]
        list(generate_images(loaded, rows, size))

    return _timed(draw, size, options.guidance_scale)


def _measure_benchmark(settings: Settings, device: str, home: Path, log: Log) -> Drawing:
    from hoi_assets.engines.sd3.compute import initial_image_spec
    from hoi_assets.engines.sd3.loading import load_sd3
    from hoi_assets.engines.sd3.redenoising import generate_initial_images, try_batch

    assert settings.models.benchmark is not None
    loaded, options = load_sd3(settings.models.benchmark, device), settings.redenoising
    row = initial_image_spec(
        PROMPT, 0, 0, 1, MORE_STEPS, options.guidance_scale, options.width, options.height
    )
    size = settle_batch_size(
        loaded,
        home,
        options.batch_size,
        (DRAW, row.width, row.height),
        lambda count: try_batch(loaded, row, count),
        log,
    )

    def draw(steps: int) -> None:
        rows = [replace(row, seed=n, slot=n, steps=steps) for n in range(size)]
        list(generate_initial_images(loaded, rows, size))

    return _timed(draw, size, options.guidance_scale)


_DRAWING = {"base": _measure_base, "benchmark": _measure_benchmark}


def _timed(draw: Callable[[int], None], batch_size: int, guidance_scale: float) -> Drawing:
    draw(FEW_STEPS)  # the first batch loads kernels
    few, more = _seconds(draw, FEW_STEPS), _seconds(draw, MORE_STEPS)
    # On a busy machine the longer one can seem quicker; then all time goes to the steps.
    per_step = (more - few) / (MORE_STEPS - FEW_STEPS)
    if per_step <= 0:
        per_step = more / MORE_STEPS
    besides = max(0.0, more - MORE_STEPS * per_step)
    evaluations = batch_size * (2 if guidance_scale > 1 else 1)
    return Drawing(per_step / evaluations, besides / batch_size)


def _seconds(draw: Callable[[int], None], steps: int) -> float:
    started = time.perf_counter()
    draw(steps)
    return time.perf_counter() - started


def _measure_training(settings: Settings, options: LoraTraining, device: str) -> float:
    """Seconds of one optimiser step, on pictures of noise at the model's resolution."""
    import numpy as np
    from PIL import Image

    from hoi_assets.engines.sdxl.loading import load_sdxl
    from hoi_assets.engines.sdxl.lora import train_dreambooth_lora

    loaded = load_sdxl(settings.models.base, device)
    side = loaded.resolution
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    pairs = [(Image.fromarray(noise), PROMPT)]
    fields = {name: getattr(options, name) for name in LoraTraining.model_fields}

    def train(steps: int) -> float:
        config = LoraTraining(
            **{**fields, "max_train_steps": steps, "lr_warmup_steps": 0, **UNMEASURED}
        )
        with tempfile.TemporaryDirectory() as folder:
            work, out = Path(folder) / "work", Path(folder) / "lora"
            return train_dreambooth_lora(
                loaded, pairs, pairs, config, work, out, lambda line: None
            ).seconds

    train(TRAINED_FEW)
    few, more = train(TRAINED_FEW), train(TRAINED_MORE)
    per_step = (more - few) / (TRAINED_MORE - TRAINED_FEW)
    return per_step if per_step > 0 else more / TRAINED_MORE
