"""The LoRA that is trained: of the UNet, and of the text encoders where they are trained too."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hoi_assets.engines.sdxl.loading import TEXT_ENCODERS, LoadedSDXL
from hoi_assets.engines.sdxl.sampling import LORA_FILE
from hoi_assets.engines.seeds import seed_of
from hoi_assets.engines.tensors import settle_header
from hoi_assets.settings import LoraTraining

UNET_MODULES = ["to_k", "to_out.0", "to_q", "to_v"]
TEXT_MODULES = ["k_proj", "out_proj", "q_proj", "v_proj"]
ADAPTER = "default"


@dataclass(frozen=True)
class Adapter:
    """A new LoRA on the shared model.

    Attributes:
        networks: those it is on, by their names in the pipeline; the UNet first.
        unet: its trained tensors on the UNet, by name.
        text: those on the text encoders, by name; empty where they are not trained.
    """

    networks: dict[str, Any]
    unet: dict[str, Any]
    text: dict[str, Any]

    @property
    def parameters(self) -> dict[str, Any]:
        """All trained tensors by name."""
        return {**self.unet, **self.text}

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Without dropout."""
        for network in self.networks.values():
            network.eval()
        try:
            yield
        finally:
            for network in self.networks.values():
                network.train()


@contextmanager
def new_adapter(loaded: LoadedSDXL, config: LoraTraining) -> Iterator[Adapter]:
    """A LoRA with initial weights from the seed; afterwards the shared model is as before."""
    names = ("unet", *(TEXT_ENCODERS if config.train_text_encoder else ()))
    networks = {name: getattr(loaded.pipe, name) for name in names}
    unet = loaded.pipe.unet
    loaded.unload_adapters()
    try:
        for name, network in networks.items():
            _add(loaded, name, network, config)
        if config.gradient_checkpointing:
            unet.enable_gradient_checkpointing()
        yield Adapter(
            networks,
            _trained(unet),
            {
                f"{name}.{key}": value
                for name in names[1:]
                for key, value in _trained(networks[name]).items()
            },
        )
    finally:
        if config.gradient_checkpointing:
            unet.disable_gradient_checkpointing()
        loaded.unload_adapters()
        for network in networks.values():
            network.requires_grad_(False).eval()


def _add(loaded: LoadedSDXL, name: str, network: Any, config: LoraTraining) -> None:
    import torch
    from diffusers.training_utils import cast_training_params
    from peft import LoraConfig

    purpose = ("initial weights",) if name == "unet" else ("initial weights", name)
    on_gpu = loaded.device.startswith("cuda")
    with torch.random.fork_rng(devices=[torch.device(loaded.device)] if on_gpu else []):
        torch.manual_seed(seed_of(config.seed, *purpose))
        network.add_adapter(
            LoraConfig(
                r=config.rank,
                lora_alpha=config.lora_alpha,
                lora_dropout=config.lora_dropout,
                init_lora_weights="gaussian",
                target_modules=UNET_MODULES if name == "unet" else TEXT_MODULES,
            ),
            adapter_name=ADAPTER,
        )
    cast_training_params(network, dtype=torch.float32)
    network.train()


def _trained(network: Any) -> dict[str, Any]:
    return {name: p for name, p in network.named_parameters() if p.requires_grad}


def save_adapter(adapter: Adapter, folder: Path) -> None:
    """Write the LoRA in diffusers' layout; equal weights give equal bytes."""
    from diffusers import StableDiffusionXLPipeline
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft.utils import get_peft_model_state_dict

    parts = {}
    for name, network in adapter.networks.items():
        layers = convert_state_dict_to_diffusers(
            get_peft_model_state_dict(network, adapter_name=ADAPTER)
        )
        if name in TEXT_ENCODERS:
            layers = {_with_text_model(key): value for key, value in layers.items()}
        parts[f"{name}_lora_layers"] = layers
        metadata = {
            key: sorted(value) if isinstance(value, set) else value
            for key, value in network.peft_config[ADAPTER].to_dict().items()
        }
        # A loader would put the dropout of the training into the model that draws.
        parts[f"{name}_lora_adapter_metadata"] = metadata | {"lora_dropout": 0.0}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        StableDiffusionXLPipeline.save_lora_weights(temporary, **parts)
        written = Path(temporary) / LORA_FILE
        settle_header(written)
        written.chmod(0o644)
        folder.mkdir(exist_ok=True)
        written.replace(folder / LORA_FILE)


def _with_text_model(key: str) -> str:
    """The name as released LoRAs have it: transformers 5 leaves `text_model` out of some models,
    and diffusers reads both."""
    return key if key.startswith("text_model.") else f"text_model.{key}"
