"""The training loop of every LoRA, on `accelerate.Accelerator`: one process, or several under
`accelerate launch`.

A step is `gradient_accumulation_steps` micro-batches. Several processes share them out, so that the
effective batch, and with it the result up to rounding, does not depend on their number.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hoi_assets.engines.out_of_memory import naming_out_of_memory
from hoi_assets.engines.sdxl.adapters import Adapter, save_adapter
from hoi_assets.engines.sdxl.checkpoints import Checkpoints, TrainingState, copy_into
from hoi_assets.engines.sdxl.denoising import DenoisingLoss
from hoi_assets.engines.sdxl.loading import LoadedSDXL
from hoi_assets.engines.sdxl.optimizers import learning_rates
from hoi_assets.engines.sdxl.tracking import track_step, tracker_options
from hoi_assets.errors import HoiError
from hoi_assets.progress import Log
from hoi_assets.settings import FineTuning, LoraTraining

LOG_EVERY_S = 10.0
LOWEST_SCALE = 1.0  # of fp16's gradient scaler; gradients that overflow below it are at fault
DREAMBOOTH_COLUMNS = ("step", "loss", "instance_loss", "prior_loss", "learning_rate")
FINETUNING_COLUMNS = ("step", "loss", "validation_loss", "learning_rate")


def make_accelerator(loaded: LoadedSDXL, config: LoraTraining, logs: Path) -> Any:
    """An `accelerate.Accelerator` on the pipeline's device.

    Args:
        logs: folder of this training's logs, where there is a tracker.

    Raises:
        HoiError: the processes cannot share the micro-batches evenly, or the device cannot compute
            in the mixed precision.
    """
    import torch
    from accelerate import Accelerator, PartialState
    from accelerate.state import AcceleratorState
    from accelerate.utils import GradientAccumulationPlugin

    # Accelerate fixes the precision once per process, but trainings of one process may differ.
    AcceleratorState._reset_state(reset_partial_state=True)
    cpu = not loaded.device.startswith("cuda")
    processes = PartialState(cpu=cpu).num_processes
    steps = config.gradient_accumulation_steps
    if steps % processes:
        raise HoiError(
            f"gradient_accumulation_steps {steps} cannot be shared by {processes} processes",
            "set it to a multiple of the number of processes",
        )
    precision: str = config.mixed_precision
    if precision == "no" and loaded.denoiser.dtype != torch.float32:
        precision = "bf16"  # a LoRA has float32 weights
    try:
        return Accelerator(
            **tracker_options(config, logs),
            cpu=cpu,
            mixed_precision=precision,
            # The plain argument could be overridden by an environment variable.
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=steps // processes),
        )
    except ValueError as error:
        raise HoiError(
            f"mixed_precision {precision} cannot be used on {loaded.device}: {error}",
            "set mixed_precision to no, and the base model's dtype to float32",
        ) from error


@dataclass(frozen=True)
class Training:
    """What a step works on; `adapter`, `best` and `state` change as it goes.

    Attributes:
        accelerator: `accelerate.Accelerator`.
        denoiser: the UNet as the accelerator prepared it.
        loss: computes the loss with `denoiser`.
        optimizer: as the accelerator prepared it.
        adapter: what is trained.
        best: values of its tensors at the lowest validation loss.
        snapshots: folder of the LoRAs that validation pictures are drawn with.
    """

    accelerator: Any
    denoiser: Any
    loss: DenoisingLoss
    config: LoraTraining
    optimizer: Any
    adapter: Adapter
    best: dict[str, Any]
    state: TrainingState
    snapshots: Path


def run_training(training: Training, checkpoints: Checkpoints, log: Log) -> None:
    """Step until the last step or early stopping, saving checkpoints.

    Raises:
        HoiError: a loss that is not finite.
    """
    state, config = training.state, training.config
    multiplier = _learning_rate_multiplier(config, checkpoints.optimizer)
    first_step = state.step
    started = logged = time.monotonic()
    validated = isinstance(config, FineTuning) and len(training.loss.held_out) > 0
    if state.step == 0 and validated:
        state.best_loss = _validation_loss(training)
        state.log.append(
            dict.fromkeys(DREAMBOOTH_COLUMNS) | {"step": 0, "validation_loss": state.best_loss}
        )
    done = False
    section = "finetuning" if isinstance(config, FineTuning) else "lora"
    remedy = (
        f"lower {section}.train_batch_size and raise {section}.gradient_accumulation_steps, or set "
        f"{section}.gradient_checkpointing: true; finished steps are kept"
    )
    while not done:
        with naming_out_of_memory(f"step {state.step + 1} of the LoRA's training", remedy):
            _step(training, multiplier(state.step))
        done = state.step >= config.max_train_steps
        if not validated:
            state.best_step = state.step
        elif done or state.step % config.validation_steps == 0:
            _validate(training)
            done = done or state.stopped
        track_step(training.accelerator, state.log[-1])
        if training.accelerator.is_main_process:
            if config.validation_prompt and (done or state.step % config.validation_steps == 0):
                save_adapter(training.adapter, training.snapshots / str(state.step))
            if done or state.step % config.checkpointing_steps == 0:
                checkpoints.save(state)
            if done or time.monotonic() - logged >= LOG_EVERY_S:
                logged = time.monotonic()
                log(_progress(state, config, first_step, logged - started))
    training.accelerator.wait_for_everyone()


def _step(training: Training, multiplier: float) -> None:
    """One step of the optimiser over all its micro-batches; adds a row to the log.

    Args:
        multiplier: share of the learning rates.
    """
    state, config, accelerator = training.state, training.config, training.accelerator
    rates = [rate * multiplier for rate in learning_rates(config)]
    for group, rate in zip(training.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    own_parts = accelerator.gradient_accumulation_steps
    losses = [0.0, 0.0, 0.0]
    for part in range(own_parts):
        number = part * accelerator.num_processes + accelerator.process_index
        with accelerator.accumulate(training.denoiser):
            with _autocast_of_text(training):
                values = training.loss(state.step * config.gradient_accumulation_steps + number)
            accelerator.backward(values[0])  # divided by the number of parts
            losses = [
                total + value.item() / own_parts
                for total, value in zip(losses, values, strict=True)
            ]
            if accelerator.sync_gradients:
                losses = _mean_over_processes(accelerator, losses)
                _share_text_gradients(training)
                norm = accelerator.clip_grad_norm_(
                    training.adapter.parameters.values(), config.max_grad_norm
                )
                _require_finite(losses[0], norm.item(), training)
            training.optimizer.step()  # does nothing before the last part
            training.optimizer.zero_grad(set_to_none=True)
    state.step += 1
    row = dict(zip(DREAMBOOTH_COLUMNS, (state.step, *losses, rates[0]), strict=True))
    state.log.append(row | {"validation_loss": None})


@contextmanager
def _autocast_of_text(training: Training) -> Iterator[None]:
    """Autocast of the text encoders where they are trained; the UNet has its own."""
    with training.accelerator.autocast() if training.adapter.text else nullcontext():
        yield


def _share_text_gradients(training: Training) -> None:
    """Mean over the processes; the UNet, which accelerate wraps, does this itself."""
    if training.accelerator.num_processes > 1:
        for value in training.adapter.text.values():
            if value.grad is not None:  # SDXL does not read the first encoder's last layer
                value.grad = training.accelerator.reduce(value.grad, "mean")


def _require_finite(loss: float, norm: float, training: Training) -> None:
    config, scaler = training.config, training.accelerator.scaler
    if math.isfinite(loss) and math.isfinite(norm):
        return
    # The gradient scaler leaves such a step out and lowers its scale, as long as that can help.
    if scaler is not None and math.isfinite(loss) and scaler.get_scale() > LOWEST_SCALE:
        return
    raise HoiError(
        f"training diverged at step {training.state.step + 1}: loss {loss}, gradient norm {norm}",
        f"lower learning_rate (now {config.learning_rate:g}); with mixed precision, try no",
    )


def _validate(training: Training) -> None:
    """Early stopping: keep the best weights, count measurements without improvement."""
    state, config = training.state, training.config
    assert isinstance(config, FineTuning)
    loss = _validation_loss(training)
    if not math.isfinite(loss):
        raise HoiError(
            f"validation loss is {loss} at step {state.step}",
            f"lower finetuning.learning_rate (now {config.learning_rate:g})",
        )
    state.log[-1]["validation_loss"] = loss
    if state.best_loss is None or loss < state.best_loss:
        state.best_loss, state.best_step, state.misses = loss, state.step, 0
        copy_into(training.best, training.adapter.parameters)
    else:
        state.misses += 1
        state.stopped = state.misses >= config.early_stopping_patience


def _validation_loss(training: Training) -> float:
    """The same number in every process, so that all stop at the same step."""
    # Only with dropout: in the other mode the last bits of peft differ.
    mode = training.adapter.evaluating() if training.config.lora_dropout else nullcontext()
    with mode, _autocast_of_text(training):
        measured = training.loss.validation()
    (loss,) = _mean_over_processes(training.accelerator, [measured])
    return loss


def _mean_over_processes(accelerator: Any, values: list[float]) -> list[float]:
    import torch

    tensor = torch.tensor(values, dtype=torch.float64, device=accelerator.device)
    mean: list[float] = accelerator.reduce(tensor, "mean").tolist()
    return mean


def _learning_rate_multiplier(config: LoraTraining, optimizer: Any) -> Callable[[int], float]:
    """Share of the learning rate at a step (from 0), of diffusers' own schedule."""
    from diffusers.optimization import get_scheduler

    name: str = config.lr_scheduler
    if name == "constant" and config.lr_warmup_steps:
        name = "constant_with_warmup"
    schedule = get_scheduler(
        name,
        optimizer,
        num_warmup_steps=config.lr_warmup_steps,
        num_training_steps=config.max_train_steps,
    )
    multiplier: Callable[[int], float] = schedule.lr_lambdas[0]
    return multiplier


def _progress(state: TrainingState, config: LoraTraining, first_step: int, seconds: float) -> str:
    done = state.step - first_step
    rate = done / seconds if seconds > 0 else math.inf
    row = state.log[-1]
    text = f"LoRA: step {state.step}/{config.max_train_steps}, loss {row['loss']:.4f}"
    if state.best_loss is not None:
        text += f", best validation {state.best_loss:.4f} at step {state.best_step}"
    left = 0 if state.stopped else config.max_train_steps - state.step
    return f"{text}, {rate:.2f} steps/s, {left / rate:.0f} s left"
