"""The optimisers of LoRA training, as in diffusers' scripts."""

from typing import Any

from hoi_assets.engines.sdxl.adapters import Adapter
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


def make_optimizer(adapter: Adapter, config: LoraTraining, log: Log) -> Any:
    """The optimiser of `config.optimizer` on the adapter's tensors."""
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
        from bitsandbytes.optim import AdamW8bit

        return AdamW8bit(groups, **options)
    from prodigyopt import Prodigy

    if config.learning_rate <= LOWEST_PRODIGY_RATE:
        log(
            f"prodigy finds its step size itself: learning_rate {config.learning_rate:g} is low, "
            "about 1 is usual"
        )
    return Prodigy(
        groups, **options, decouple=True, use_bias_correction=True, safeguard_warmup=True
    )
