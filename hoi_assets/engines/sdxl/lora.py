"""LoRA training of SDXL's UNet: DreamBooth with prior preservation, and fine-tuning on captions.

After diffusers' `train_dreambooth_lora_sdxl.py` and `train_text_to_image_lora_sdxl.py` (frozen
base, AdamW, LoRA on the attention projections), DreamBooth (arXiv 2208.12242) and min-SNR loss
weights (arXiv 2303.09556).

The randomness of a step follows from the seed and the step's number, never from what ran before. A
checkpoint therefore holds weights, optimiser and step only, and a resumed run ends bit-identical to
an uninterrupted one (same machine, same number of threads).
"""

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from hoi_assets.engines.sdxl.checkpoints import Checkpoints, copy_into
from hoi_assets.engines.sdxl.denoising import DenoisingLoss, encode
from hoi_assets.engines.sdxl.loading import LoadedSDXL
from hoi_assets.engines.sdxl.sampling import LORA_FILE
from hoi_assets.engines.sdxl.training_loop import (
    DREAMBOOTH_COLUMNS,
    FINETUNING_COLUMNS,
    Training,
    make_accelerator,
    run_training,
)
from hoi_assets.engines.seeds import seed_of
from hoi_assets.engines.tensors import settle_header
from hoi_assets.errors import HoiError
from hoi_assets.hashing import digest, digest_pixels
from hoi_assets.progress import Log
from hoi_assets.settings import FineTuning, LoraTraining, digested

Pair = tuple[Image.Image, str]  # an image and its caption

TRAINING_VERSION = "1"  # part of every LoRA key: raise it when the weights change
TARGET_MODULES = ["to_k", "to_out.0", "to_q", "to_v"]
ADAPTER = "default"
# Options that change how training runs, not its result.
UNHASHED_OPTIONS = {"checkpointing_steps"}


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
    """

    folder: Path
    log: list[dict[str, Any]]
    best_step: int
    stopped_early: bool
    steps_run: int
    seconds: float


def lora_key(
    train: Sequence[tuple[str, str]],
    other: Sequence[tuple[str, str]],
    config: LoraTraining,
    base_digest: str,
) -> str:
    """Hash of all that determines the trained weights: base, options, images and captions.

    Args:
        train: digest of the pixels, and caption, of every image, in order.
        other: likewise, DreamBooth's class images or fine-tuning's validation images.
    """
    return digest(
        {
            "training": TRAINING_VERSION,
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
) -> LoraResult:
    """Teach the base model a category from a few images (DreamBooth LoRA).

    Args:
        instance: the category's images; captions hold its identifier, e.g. "a photo of pwrx …".
        class_images: images of the base model for the same captions without the identifier;
            used with prior preservation.
        work_dir: holds checkpoints; a call with the same arguments resumes from the last one.
        folder: the LoRA is written here.

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
    return _train(loaded, instance, class_images, (), config, work_dir, folder, log)


def finetune_lora(
    loaded: LoadedSDXL,
    train: Sequence[Pair],
    validation: Sequence[Pair],
    config: FineTuning,
    work_dir: Path,
    folder: Path,
    log: Log = print,
) -> LoraResult:
    """Fine-tune on captioned images; the step with the lowest validation loss is saved.

    Validation loss is the training loss at fixed noise and times. Training stops when it has not
    fallen for `early_stopping_patience` measurements.

    Args:
        validation: images that are not trained on; without any, the last step is saved.
        work_dir: holds checkpoints; a call with the same arguments resumes from the last one.
        folder: the LoRA is written here.

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
    return _train(loaded, train, (), validation, config, work_dir, folder, log)


def _train(
    loaded: LoadedSDXL,
    train: Sequence[Pair],
    class_images: Sequence[Pair],
    validation: Sequence[Pair],
    config: LoraTraining,
    work_dir: Path,
    folder: Path,
    log: Log,
) -> LoraResult:
    import torch

    if not train:
        raise HoiError("no images to train on", "give at least one image with its caption")
    if loaded.pipe.unet.dtype == torch.float16:
        raise HoiError(
            f"model {loaded.ref.source!r} is loaded as float16, in which training overflows",
            "set its dtype to float32, or to bfloat16 on a GPU",
        )
    key = lora_key(_digests(train), _digests(class_images or validation), config, loaded.digest)
    with _adapter(loaded, config) as parameters:
        accelerator = make_accelerator(loaded, config)
        optimizer = torch.optim.AdamW(
            parameters.values(), lr=config.learning_rate, weight_decay=1e-2, eps=1e-8
        )
        best = {name: value.detach().clone() for name, value in parameters.items()}
        with _prepared(accelerator, loaded.denoiser, optimizer) as (denoiser, stepper):
            checkpoints = Checkpoints(work_dir, key, parameters, optimizer, best, log)
            with accelerator.main_process_first():
                state = checkpoints.load()
            first_step, started = state.step, time.monotonic()
            if state.step < config.max_train_steps and not state.stopped:
                pairs = (train, class_images, validation)
                loss = DenoisingLoss(loaded, denoiser, config, *(encode(loaded, p) for p in pairs))
                run_training(
                    Training(accelerator, denoiser, loss, config, stepper, parameters, best, state),
                    checkpoints,
                    log,
                )
            seconds = time.monotonic() - started
        if validation:
            copy_into(parameters, best)
        if accelerator.is_main_process:
            _save(loaded, folder)
        accelerator.wait_for_everyone()
    columns = FINETUNING_COLUMNS if isinstance(config, FineTuning) else DREAMBOOTH_COLUMNS
    return LoraResult(
        folder=folder,
        log=[{name: row[name] for name in columns} for row in state.log],
        best_step=state.best_step,
        stopped_early=state.stopped,
        steps_run=state.step - first_step,
        seconds=seconds,
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


@contextmanager
def _adapter(loaded: LoadedSDXL, config: LoraTraining) -> Iterator[dict[str, Any]]:
    """A new LoRA on the shared UNet, removed afterwards; yields its parameters by name."""
    import torch
    from diffusers.training_utils import cast_training_params
    from peft import LoraConfig

    unet = loaded.pipe.unet
    loaded.unload_adapters()
    on_gpu = loaded.device.startswith("cuda")
    with torch.random.fork_rng(devices=[torch.device(loaded.device)] if on_gpu else []):
        torch.manual_seed(seed_of(config.seed, "initial weights"))
        unet.add_adapter(
            LoraConfig(
                r=config.rank,
                lora_alpha=config.lora_alpha,
                init_lora_weights="gaussian",
                target_modules=TARGET_MODULES,
            ),
            adapter_name=ADAPTER,
        )
    try:
        cast_training_params(unet, dtype=torch.float32)
        unet.train()
        if config.gradient_checkpointing:
            unet.enable_gradient_checkpointing()
        yield {name: p for name, p in unet.named_parameters() if p.requires_grad}
    finally:
        if config.gradient_checkpointing:
            unet.disable_gradient_checkpointing()
        loaded.unload_adapters()
        unet.requires_grad_(False).eval()


def _save(loaded: LoadedSDXL, folder: Path) -> None:
    """Write the adapter in diffusers' layout; equal weights give equal bytes."""
    from diffusers import StableDiffusionXLPipeline
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft.utils import get_peft_model_state_dict

    unet = loaded.pipe.unet
    metadata = {
        name: sorted(value) if isinstance(value, set) else value
        for name, value in unet.peft_config[ADAPTER].to_dict().items()
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        StableDiffusionXLPipeline.save_lora_weights(
            temporary,
            unet_lora_layers=convert_state_dict_to_diffusers(
                get_peft_model_state_dict(unet, adapter_name=ADAPTER)
            ),
            unet_lora_adapter_metadata=metadata,
        )
        written = Path(temporary) / LORA_FILE
        settle_header(written)
        written.chmod(0o644)
        folder.mkdir(exist_ok=True)
        written.replace(folder / LORA_FILE)


def _digests(pairs: Sequence[Pair]) -> list[tuple[str, str]]:
    return [(digest_pixels(image), caption) for image, caption in pairs]
