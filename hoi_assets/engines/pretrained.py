"""Reads models of the transformers library, and names what is wrong with their files.

Also the digest of what was loaded: weights, tokenizer and preprocessing.
"""

import hashlib
import json
import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from hoi_assets.errors import HoiError
from hoi_assets.settings import ModelRef, restore_remedy
from hoi_assets.store.weights import local_folder

_shapes_only: ContextVar[bool] = ContextVar("shapes_only", default=False)


@contextmanager
def shapes_only() -> Iterator[None]:
    """Inside the block models are loaded without their numbers, on torch's meta device.

    Names, classes and shapes are checked as in a real load, in no memory and without the cache.
    """
    token = _shapes_only.set(True)
    try:
        yield
    finally:
        _shapes_only.reset(token)


def loads_shapes_only() -> bool:
    """Whether the caller runs inside `shapes_only`."""
    return _shapes_only.get()


def meta_device() -> dict[str, Any]:
    """Arguments of `from_pretrained` inside `shapes_only`; else none."""
    return {"device_map": "meta"} if loads_shapes_only() else {}


# A model's weights as transformers names them, in one file or sharded.
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


def torch_dtype(name: str) -> Any:
    """The torch dtype of a ModelRef's `dtype`."""
    import torch

    return getattr(torch, name)


def require_files(ref: ModelRef, names: Sequence[str | Sequence[str]]) -> None:
    """Check that a folder holds `names` before anything is loaded; repositories that come from the
    hub or its cache pass.

    Args:
        names: of files; of several in a sequence one is enough.

    Raises:
        HoiError: names the folder and the missing file.
    """
    folder = local_folder(ref)
    if folder is None:
        return
    for name in names:
        alternatives = (name,) if isinstance(name, str) else name
        if ref.variant is not None:
            alternatives = (
                *(_with_variant(one, ref.variant) for one in alternatives),
                *alternatives,
            )
        if not any((folder / one).is_file() for one in alternatives):
            raise HoiError(
                f"model folder {folder}: {alternatives[0]} is missing",
                f"{restore_remedy(str(folder), 'weights')}; or name another folder or a hub "
                "repository with its revision under `models` of the profile",
            )


def _with_variant(name: str, variant: str) -> str:
    """The file's name in the libraries' own form, e.g. model.fp16.safetensors."""
    stem, _, end = name.rpartition(".")
    return f"{stem}.{variant}.{end}"


def read_model(
    cls: Any, ref: ModelRef, allow_missing: Sequence[str] = (), seed: int = 0, **arguments: Any
) -> Any:
    """`cls.from_pretrained` that refuses missing, surplus or misshapen weights.

    Args:
        allow_missing: prefixes of weights that may be drawn anew.
        seed: of those.

    Raises:
        HoiError: names the model and the first weight that does not fit.
    """
    import torch
    from safetensors import SafetensorError
    from transformers.utils import logging

    logging.disable_progress_bar()
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model, report = cls.from_pretrained(
                _location(ref),
                revision=ref.revision,
                variant=ref.variant,
                dtype=torch_dtype(ref.dtype),
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                **meta_device(),
                **arguments,
            )
    except pickle.UnpicklingError as error:
        raise load_error(cls, ref, unreadable(error)) from None
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise load_error(cls, ref, str(error)) from error
    finally:
        logging.set_verbosity(verbosity)
    for key, found, wanted in sorted(report["mismatched_keys"]):
        if not key.startswith(tuple(allow_missing)):
            raise load_error(cls, ref, f"{key} is {tuple(found)}, wanted {tuple(wanted)}")
    missing = sorted(k for k in report["missing_keys"] if not k.startswith(tuple(allow_missing)))
    if missing:
        raise load_error(cls, ref, f"{missing[0]} is missing, with {len(missing) - 1} more")
    return model.eval()


def read_processor(cls: Any, ref: ModelRef, **arguments: Any) -> Any:
    """A tokenizer or image processor of the model, with HoiError where it cannot be read."""
    try:
        loaded = cls.from_pretrained(_location(ref), revision=ref.revision, **arguments)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise load_error(cls, ref, str(error)) from error
    # Tokenizers keep how they were loaded and `save_pretrained` writes it. HF_HUB_OFFLINE sets
    # this to true; what is saved must not depend on it.
    kept = getattr(loaded, "init_kwargs", {})
    if "local_files_only" in kept:
        kept["local_files_only"] = False
    return loaded


def load_tokenizer(ref: ModelRef) -> Any:
    """A tokenizer that is a model of its own.

    Raises:
        HoiError: it cannot be read.
    """
    from transformers import AutoTokenizer

    return read_processor(AutoTokenizer, ref)


def _location(ref: ModelRef) -> str:
    return str(local_folder(ref) or ref.source)


def unreadable(error: Exception) -> str:
    """Why a weight file cannot be read, in one line."""
    if isinstance(error, pickle.UnpicklingError):
        # Torch's message proposes to run what the file holds.
        return "the file is no checkpoint of tensors alone, and nothing else is unpickled"
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def load_error(cls: Any, ref: ModelRef, why: str) -> HoiError:
    """The error for weights that do not load: names the model, the class and the first cause."""
    name = getattr(cls, "__name__", str(cls))
    return HoiError(
        f"{_location(ref)} does not load as {name}: {why.strip().splitlines()[0]}",
        "restore the weights, or name others under `models` of the profile; `hoi models check` "
        "tries all of them",
    )


def content_digest(tensors: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """Hash of what a model computes with: its weights in any order, and `facts` (JSON-able).

    Returns:
        sha256 as 64 hex digits; the same after saving and loading.
    """
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        # Raw bytes: numpy has no bfloat16.
        total.update(tensor.reshape(-1).view(_bytes_dtype()).numpy().tobytes())
    total.update(json.dumps(facts, sort_keys=True, ensure_ascii=False).encode())
    return total.hexdigest()


def _bytes_dtype() -> Any:
    import torch

    return torch.uint8


def tokenizer_facts(tokenizer: Any) -> dict[str, Any]:
    """What identifies a tokenizer: its vocabulary, special tokens and how it pads."""
    vocabulary = json.dumps(sorted(tokenizer.get_vocab().items()), ensure_ascii=False)
    return {
        "vocabulary": hashlib.sha256(vocabulary.encode()).hexdigest(),
        "special_tokens": {k: str(v) for k, v in tokenizer.special_tokens_map.items()},
        "padding_side": tokenizer.padding_side,
    }


def processor_facts(processor: Any) -> dict[str, Any]:
    """What an image processor does to pixels."""
    facts = json.loads(processor.to_json_string())
    names = ("size", "crop_size", "resample", "do_center_crop", "image_mean", "image_std")
    return {name: facts.get(name) for name in names}
