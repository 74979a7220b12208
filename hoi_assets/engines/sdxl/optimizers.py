"""The optimisers of LoRA training, as in diffusers' scripts."""

from typing import Any

from hoi_assets.engines.sdxl.adapters import Adapter
from hoi_assets.errors import HoiError
from hoi_assets.progress import Log
from hoi_assets.settings import LoraTraining

LOWEST_PRODIGY_RATE = 0.1  # below it Prodigy hardly moves


def learning_rates(config: LoraTraining) -> list[float]:
    """Highest learning rate of every parameter group: UNet, then text encoders."""
    if not config.train_text_encoder:
        return [config.learning_rate]
    text = config.text_encoder_lr or config.learning_rate
    # Prodigy refuses groups of different rates.
    return [config.learning_rate, config.learning_rate if config.optimizer == "prodigy" else text]


def make_optimizer(adapter: Adapter, config: LoraTraining, device: str, log: Log) -> Any:
    """The optimiser of `config.optimizer` on the adapter's tensors.

    Raises:
        HoiError: its package is not installed, or it needs a GPU.
    """
    import torch

    tensors = [one for one in (adapter.unet, adapter.text) if one]
    groups = [
        {"params": list(some.values()), "lr": rate}
        for some, rate in zip(tensors, learning_rates(config), strict=True)
    ]
    options: dict[str, Any] = {
        "lr": config.learning_rate,
        "betas": (config.adam_beta1, config.adam_beta2),
        "weight_decay": config.adam_weight_decay,
        "eps": config.adam_epsilon,
    }
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, **options)
    if config.optimizer == "adamw_8bit":
        if not device.startswith("cuda"):
            raise HoiError(
                f"optimizer adamw_8bit needs a GPU, and the device is {device}",
                "set optimizer to adamw",
            )
        return _bitsandbytes().optim.AdamW8bit(groups, **options)
    if config.learning_rate <= LOWEST_PRODIGY_RATE:
        log(
            f"prodigy finds its step size itself: learning_rate {config.learning_rate:g} is low, "
            "about 1 is usual"
        )
    return _prodigy()(
        groups, **options, decouple=True, use_bias_correction=True, safeguard_warmup=True
    )


def _prodigy() -> Any:
    try:
        from prodigyopt import Prodigy
    except ImportError as error:
        raise HoiError(
            "optimizer prodigy needs the package prodigyopt",
            "pip install 'prodigyopt>=1.1.2,<2', or set optimizer: adamw",
        ) from error
    return Prodigy


def _bitsandbytes() -> Any:
    try:
        import bitsandbytes
    except ImportError as error:
        raise HoiError(
            "optimizer adamw_8bit needs the package bitsandbytes",
            "pip install 'bitsandbytes>=0.50,<1', or set optimizer: adamw",
        ) from error
    return bitsandbytes
