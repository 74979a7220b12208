"""Trains a small LoRA in a process of its own: killed half-way, or one of several."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from hoi_assets.engines.sdxl.loading import LoadedSDXL, load_sdxl
from hoi_assets.engines.sdxl.lora import LoraResult, train_dreambooth_lora
from hoi_assets.settings import LoraTraining, ModelRef
from hoi_assets_tests.engines.small_sdxl import picture

ACCUMULATING = LoraTraining(
    rank=2,
    max_train_steps=3,
    train_batch_size=1,
    gradient_accumulation_steps=4,
    learning_rate=1e-2,
    train_text_encoder=True,
    lora_dropout=0.1,
)
CONFIG = LoraTraining(
    rank=2,
    lora_alpha=4,
    max_train_steps=40,
    train_batch_size=2,
    learning_rate=1e-2,
    lr_scheduler="cosine",
    lr_warmup_steps=3,
    checkpointing_steps=5,
)


def train(
    loaded: LoadedSDXL, work_dir: Path, folder: Path, config: LoraTraining = CONFIG
) -> LoraResult:
    instance = [(picture(c), f"a photo of pwrx {c} ball") for c in ("red", "blue", "green")]
    prior = [(picture("black"), "a black ball"), (picture("white"), "a white ball")]
    return train_dreambooth_lora(loaded, instance, prior, config, work_dir, folder)


def kill_at_step(loaded: LoadedSDXL, step: int) -> None:
    """Send this process SIGKILL in the middle of step number `step`."""
    done: list[int] = []

    def count(*_: Any) -> None:
        done.append(1)
        if len(done) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    loaded.pipe.unet.register_forward_hook(count)


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    model, work, result, *step = sys.argv[1:]
    base = load_sdxl(ModelRef(source=model))
    if step:
        kill_at_step(base, int(step[0]))
        train(base, Path(work), Path(result))
    else:
        train(base, Path(work), Path(result), ACCUMULATING)
