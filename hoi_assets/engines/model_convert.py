"""Weights released as `.bin` or `.pt`, written as safetensors. No code in them is ever run."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hoi_assets.engines.model_kinds import CONFIGURATION, IMAGE_REWARD_CHECKPOINT, WEIGHTS
from hoi_assets.engines.pretrained import unreadable
from hoi_assets.errors import HoiError
from hoi_assets.settings import ModelRef
from hoi_assets.store.disk import writing

SAFETENSORS = "model.safetensors"
BIN_INDEX = "pytorch_model.bin.index.json"


def convert_model(source: Path, out: Path) -> list[Path]:
    """Write a model of one folder to `out`, its weights as safetensors.

    Args:
        source: holds `pytorch_model.bin` (whole or sharded), or `ImageReward.pt`.
        out: must be absent or empty.

    Returns:
        The files written.

    Raises:
        HoiError: nothing to convert, unreadable weights, or `out` holds files.
    """
    if out.is_dir() and any(out.iterdir()):
        raise HoiError(f"{out} is not empty", "name a new folder")
    if (source / IMAGE_REWARD_CHECKPOINT).is_file():
        from hoi_assets.engines.image_reward import load_image_reward, save_image_reward

        save_image_reward(load_image_reward(ModelRef(source=str(source.resolve()))), out)
    else:
        with writing(out):
            out.mkdir(parents=True, exist_ok=True)
            write_safetensors(source, out)
            for path in source.iterdir():
                plain = CONFIGURATION.fullmatch(path.name) and not WEIGHTS.fullmatch(path.name)
                if path.is_file() and plain:
                    shutil.copyfile(path, out / path.name)
    return sorted(path for path in out.rglob("*") if path.is_file())


def write_safetensors(source: Path, out: Path) -> Path:
    """Write the `.bin` weights in `source` as one `model.safetensors` in `out`.

    Raises:
        HoiError: none there, or a file that holds more than tensors.
    """
    from safetensors.torch import save_file

    state: dict[str, Any] = {}
    for path in _bin_files(source):
        state |= _read(path)
    target = out / SAFETENSORS
    partial = target.with_suffix(".part")
    # Copies: safetensors takes no tensors that share memory.
    copied = {name: tensor.detach().clone().contiguous() for name, tensor in state.items()}
    with writing(target):
        save_file(copied, partial, metadata={"format": "pt"})
        partial.replace(target)
    return target


def _bin_files(folder: Path) -> list[Path]:
    index = folder / BIN_INDEX
    if index.is_file():
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        return [folder / name for name in sorted(set(names))]
    path = folder / "pytorch_model.bin"
    if not path.is_file():
        raise HoiError(
            f"{folder} holds no pytorch_model.bin and no {IMAGE_REWARD_CHECKPOINT}",
            "name the folder of a model that is released in one of these forms",
        )
    return [path]


def _read(path: Path) -> Mapping[str, Any]:
    import pickle

    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        good = isinstance(state, dict) and all(torch.is_tensor(one) for one in state.values())
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise HoiError(
            f"{path} cannot be read: {unreadable(error)}", "get the file again"
        ) from error
    if not good:
        raise HoiError(f"{path} holds other things than weights", "name a file of weights alone")
    return state
