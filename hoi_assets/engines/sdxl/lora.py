"""LoRA training of SDXL: DreamBooth with prior preservation, and fine-tuning on captions.

After diffusers' `train_dreambooth_lora_sdxl.py` and `train_text_to_image_lora_sdxl.py` (frozen
base, AdamW, LoRA on the attention projections of the UNet and, if wanted, of the text encoders),
DreamBooth (arXiv 2208.12242) and min-SNR loss weights (arXiv 2303.09556).

The randomness of a step follows from the seed and the step's number, never from what ran before. A
checkpoint therefore holds weights, optimiser and step only (and the gradient scaler of fp16), and a
resumed run ends bit-identical to an uninterrupted one (same machine, same number of threads).
"""

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hoi_assets.engines.sdxl.adapters import new_adapter, save_adapter
from hoi_assets.engines.sdxl.checkpoints import Checkpoints, copy_into
from hoi_assets.engines.sdxl.denoising import DenoisingLoss
from hoi_assets.engines.sdxl.examples import Examples, Pair, encode, pair_digests
from hoi_assets.engines.sdxl.framing import Framing
from hoi_assets.engines.sdxl.loading import LoadedSDXL
from hoi_assets.engines.sdxl.optimizers import make_optimizer
from hoi_assets.engines.sdxl.tracking import tracked
from hoi_assets.engines.sdxl.training_loop import (
    DREAMBOOTH_COLUMNS,
    FINETUNING_COLUMNS,
    Training,
    make_accelerator,
    run_training,
)
from hoi_assets.engines.sdxl.training_requirements import check_requirements
from hoi_assets.engines.seeds import seed_of
from hoi_assets.errors import HoiError
from hoi_assets.hashing import digest
from hoi_assets.progress import Log
from hoi_assets.settings import FineTuning, LoraTraining, digested

TRAINING_VERSION = "1"  # part of every LoRA key: raise it when the weights change
ENCODED = "encoded"  # folder of a training's encoded images and captions
# Options that change how training runs, not its result.
UNHASHED_OPTIONS = {"checkpointing_steps", "validation_prompt", "num_validation_images"}
SNAPSHOTS = "snapshots"  # folder of the LoRAs that validation pictures are drawn with


@dataclass(frozen=True)
class LoraResult:
    """A trained LoRA.

    Attributes:
        folder: holds `pytorch_lora_weights.safetensors`; `pipe.load_lora_weights(folder)` opens it.
        log: one row per step. DreamBooth: step (from 1), loss
            (instance loss plus weighted prior loss), instance_loss, prior_loss (0 without prior
            preservation), learning_rate. Fine-tuning: step, loss, validation_loss (None where it
            was not measured), learning_rate; step 0 has the base model's validation loss only.
        best_step: the step whose weights are in `folder`; 0 is the untrained adapter.
        stopped_early: whether validation loss ended the training before its last step.
        steps_run: steps done by this call; fewer than the log's when resumed.
        seconds: wall time of this call's steps.
        snapshots: folders of the LoRA after every `validation_steps` steps and the last, by step;
            with a `validation_prompt` only.
    """

    folder: Path
    log: list[dict[str, Any]]
    best_step: int
    stopped_early: bool
    steps_run: int
    seconds: float
    snapshots: dict[int, Path]


def lora_key(
    train: Sequence[tuple[str, str]],
    other: Sequence[tuple[str, str]],
    config: LoraTraining,
    base_digest: str,
    dtype: str = "float32",
) -> str:
    """Hash of all that determines the trained weights: base, options, images and captions.

    Args:
        train: digest of the pixels, and caption, of every image, in order.
        other: likewise, DreamBooth's class images or fine-tuning's validation images.
        dtype: of the base model.
    """
    # Left out where the VAE always was in float32, so that those LoRAs keep their keys.
    vae = {} if dtype == "float32" else {"vae": "float32"}
    return digest(
        {
            "training": TRAINING_VERSION,
            **vae,
            **({"snapshots": True} if config.validation_prompt else {}),
            "base": base_digest,
            "kind": type(config).__name__,
            "options": {
                name: value
                for name, value in digested(config).items()
                if name not in UNHASHED_OPTIONS
            },
            "train": train,
            "other": other,
        }
    )


def train_dreambooth_lora(
    loaded: LoadedSDXL,
    instance: Sequence[Pair],
    class_images: Sequence[Pair],
    config: LoraTraining,
    work_dir: Path,
    folder: Path,
    log: Log = print,
    logs: Path | None = None,
) -> LoraResult:
    """Teach the base model a category from a few images (DreamBooth LoRA).

    Args:
        instance: the category's images; captions hold its identifier, e.g. "a photo of pwrx …".
        class_images: images of the base model for the same captions without the identifier;
            used with prior preservation.
        work_dir: holds checkpoints; a call with the same arguments resumes from the last one.
        folder: the LoRA is written here.
        logs: folder of the tracker's logs (`report_to`), its name that of the run; None: `logs` of
            `work_dir`.

    Raises:
        HoiError: no images, or a loss that is not finite.
    """
    if config.with_prior_preservation and not class_images:
        raise HoiError(
            "prior preservation is on, but there are no class images",
            "set lora.num_class_images above 0, or lora.with_prior_preservation to false",
        )
    if not config.with_prior_preservation:
        class_images = ()
    return _train(loaded, instance, class_images, (), config, work_dir, folder, log, logs)


def finetune_lora(
    loaded: LoadedSDXL,
    train: Sequence[Pair],
    validation: Sequence[Pair],
    config: FineTuning,
    work_dir: Path,
    folder: Path,
    log: Log = print,
    logs: Path | None = None,
) -> LoraResult:
    """Fine-tune on captioned images; the step with the lowest validation loss is saved.

    Validation loss is the training loss at fixed noise and times. Training stops when it has not
    fallen for `early_stopping_patience` measurements.

    Args:
        validation: images that are not trained on; without any, the last step is saved.
        work_dir: holds checkpoints; a call with the same arguments resumes from the last one.
        folder: the LoRA is written here.
        logs: folder of the tracker's logs (`report_to`), its name that of the run; None: `logs` of
            `work_dir`.

    Raises:
        HoiError: fewer than `min_train_rows` pictures, or a loss that is not finite.
    """
    if len(train) < config.min_train_rows:
        raise HoiError(
            f"{len(train)} training rows are fewer than finetuning.min_train_rows "
            f"{config.min_train_rows}",
            "let more candidates be accepted (candidates.per_prompt, accepted_goal), "
            "or lower the setting",
        )
    return _train(loaded, train, (), validation, config, work_dir, folder, log, logs)


def _train(
    loaded: LoadedSDXL,
    train: Sequence[Pair],
    class_images: Sequence[Pair],
    validation: Sequence[Pair],
    config: LoraTraining,
    work_dir: Path,
    folder: Path,
    log: Log,
    logs: Path | None,
) -> LoraResult:
    if not train:
        raise HoiError("no images to train on", "give at least one image with its caption")
    check_requirements(config, loaded.ref, loaded.device)
    if config.random_flip:
        log("random_flip: captions are not mirrored with the pictures; a left hand becomes a right")
    other = pair_digests(class_images or validation)
    key = lora_key(pair_digests(train), other, config, loaded.digest, loaded.ref.dtype)
    with new_adapter(loaded, config) as adapter:
        logs = logs or work_dir / "logs"
        accelerator, parameters = make_accelerator(loaded, config, logs), adapter.parameters
        optimizer = make_optimizer(adapter, config, log)
        best = {name: value.detach().clone() for name, value in parameters.items()}
        with _prepared(accelerator, loaded.denoiser, optimizer) as (denoiser, stepper):
            checkpoints = Checkpoints(
                work_dir, key, parameters, optimizer, best, log, accelerator.scaler
            )
            with accelerator.main_process_first():
                state = checkpoints.load()
            first_step, started = state.step, time.monotonic()
            snapshots = work_dir / SNAPSHOTS
            if accelerator.is_main_process and state.step == 0:
                shutil.rmtree(snapshots, ignore_errors=True)  # of other inputs
            if state.step < config.max_train_steps and not state.stopped:
                pairs = {"train": train, "class": class_images, "validation": validation}
                with accelerator.main_process_first():
                    encoded = [
                        _encode(loaded, some, name, config, work_dir, key)
                        for name, some in pairs.items()
                    ]
                loss = DenoisingLoss(loaded, denoiser, config, *encoded)
                training = Training(
                    accelerator, denoiser, loss, config, stepper, adapter, best, state, snapshots
                )
                with tracked(accelerator, config, logs):
                    run_training(training, checkpoints, log)
            seconds = time.monotonic() - started
        if validation:
            copy_into(parameters, best)
        if accelerator.is_main_process:
            save_adapter(adapter, folder)
        accelerator.wait_for_everyone()
    columns = FINETUNING_COLUMNS if isinstance(config, FineTuning) else DREAMBOOTH_COLUMNS
    return LoraResult(
        folder=folder,
        log=[{name: row[name] for name in columns} for row in state.log],
        best_step=state.best_step,
        stopped_early=state.stopped,
        steps_run=state.step - first_step,
        seconds=seconds,
        snapshots={int(path.name): path for path in snapshots.glob("*")},
    )


@contextmanager
def _prepared(accelerator: Any, denoiser: Any, optimizer: Any) -> Iterator[tuple[Any, Any]]:
    """Denoiser and optimiser as the accelerator wraps them; afterwards the denoiser is as before,
    because the model cache shares it."""
    wrapped, stepper = accelerator.prepare(denoiser, optimizer)
    try:
        yield wrapped, stepper
    finally:
        accelerator.unwrap_model(wrapped, keep_fp32_wrapper=False)
        # `unwrap_model` leaves these, and a marked model is not wrapped again.
        for name in ("forward", "_is_accelerate_prepared"):
            vars(denoiser).pop(name, None)


def _encode(
    loaded: LoadedSDXL,
    pairs: Sequence[Pair],
    name: str,
    config: LoraTraining,
    work_dir: Path,
    key: str,
) -> Examples:
    """Pictures and captions as the options want them; those of the validation are neither mirrored
    nor cut at random."""
    measured = name == "validation"
    framing = Framing(
        sizes=config.buckets or ((loaded.resolution, loaded.resolution),),
        crop_seed=None if config.center_crop or measured else seed_of(config.seed, name),
        mirrored=config.random_flip and not measured,
    )
    # Trained text encoders give other embeddings at every step.
    embed = loaded.encode_anew if config.train_text_encoder else None
    return encode(loaded, pairs, work_dir / ENCODED / name, key, framing, embed)
