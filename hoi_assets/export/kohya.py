"""Key names of Kohya's scripts, which ComfyUI, Forge and diffusers read.

Kohya's scripts train SDXL's UNet under the names of its original code (SGM): blocks are numbered
through, `input_blocks`, `middle_block`, `output_blocks`, where diffusers nests them. The text
encoders are `te1` and `te2`, with the names that transformers gives their parts.
"""

import re
from collections.abc import Mapping
from typing import Any

from hoi_assets.errors import HoiError

PREFIX = "lora_unet"
PLACE = re.compile(
    r"unet\.(?:(down|up)_blocks\.(\d+)|(mid)_block)\.attentions\.(\d+)\.(.+)\.lora\.(down|up)\.weight"
)
TEXT_PLACE = re.compile(
    r"text_encoder(_2)?\.(?:text_model\.)?(.+)\.lora(?:_linear_layer)?\.(down|up)\.weight"
)
ATTENTION = 1  # an SGM block's module 0 is the residual block, module 1 the attention


def kohya_tensors(tensors: Mapping[str, Any], alpha: float) -> dict[str, Any]:
    """The tensors of a LoRA under Kohya's names, with alpha beside each pair, sorted.

    Args:
        tensors: by diffusers' names, `unet.….lora.down.weight` and `….lora.up.weight`, likewise
            `text_encoder.…` and `text_encoder_2.…`.

    Raises:
        HoiError: a tensor that is no LoRA of the UNet's attention or of a text encoder.
    """
    import torch

    layers = layers_per_block(tensors)
    found: dict[str, Any] = {}
    for name, tensor in tensors.items():
        module, direction = kohya_name(name, layers)
        found[f"{module}.lora_{direction}.weight"] = tensor.contiguous()
        found[f"{module}.alpha"] = torch.tensor(alpha, dtype=torch.float32)
    return dict(sorted(found.items()))


def kohya_name(name: str, layers: int) -> tuple[str, str]:
    """Kohya's name of the module that a LoRA tensor belongs to, and `down` or `up`.

    Args:
        layers: the UNet's `layers_per_block`; 2 for SDXL.

    Example:
        >>> kohya_name("unet.down_blocks.1.attentions.0.proj_in.lora.down.weight", 2)
        ('lora_unet_input_blocks_4_1_proj_in', 'down')
        >>> kohya_name("unet.mid_block.attentions.0.proj_in.lora.up.weight", 2)
        ('lora_unet_middle_block_1_proj_in', 'up')
        >>> kohya_name("unet.up_blocks.0.attentions.2.proj_in.lora.up.weight", 2)
        ('lora_unet_output_blocks_2_1_proj_in', 'up')
        >>> name = "text_encoder_2.text_model.encoder.layers.0.self_attn.q_proj"
        >>> kohya_name(f"{name}.lora_linear_layer.up.weight", 2)
        ('lora_te2_text_model_encoder_layers_0_self_attn_q_proj', 'up')
    """
    text = TEXT_PLACE.fullmatch(name)
    if text is not None:
        second, module, direction = text.groups()
        return f"lora_te{2 if second else 1}_text_model_{module.replace('.', '_')}", direction
    place = PLACE.fullmatch(name)
    if place is None:
        raise HoiError(
            f"LoRA tensor {name!r} has no place in Kohya's layout",
            "use the file in diffusers' layout",
        )
    side, block, _, layer, module, direction = place.groups()
    if side == "down":
        # Block 0 is conv_in; a down-sampler follows each block's layers.
        where = f"input_blocks_{1 + int(block) * (layers + 1) + int(layer)}_{ATTENTION}"
    elif side == "up":
        where = f"output_blocks_{int(block) * (layers + 1) + int(layer)}_{ATTENTION}"
    else:
        where = f"middle_block_{ATTENTION}"
    return f"{PREFIX}_{where}_{module.replace('.', '_')}", direction


def layers_per_block(names: Mapping[str, Any]) -> int:
    """The UNet's `layers_per_block`: an up block has one more attention than that.

    Raises:
        HoiError: the LoRA has no up block.
    """
    found = [
        int(place[4]) for name in names if (place := PLACE.fullmatch(name)) and place[1] == "up"
    ]
    if not found or max(found) < 1:
        raise HoiError(
            "a LoRA without up blocks does not say how its UNet's blocks are numbered",
            "use the file in diffusers' layout",
        )
    return max(found)
