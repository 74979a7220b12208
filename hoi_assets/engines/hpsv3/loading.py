"""Reads HPSv3 from its two repositories: the weights, and the base model's configuration."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from hoi_assets.engines.model_cache import META, Source, load_cached, move_to_device
from hoi_assets.engines.model_kinds import HPSV3_CHECKPOINT
from hoi_assets.engines.pretrained import (
    content_digest,
    load_error,
    loads_shapes_only,
    processor_facts,
    read_processor,
    require_files,
    tokenizer_facts,
    torch_dtype,
    unreadable,
)
from hoi_assets.settings import ModelRef
from hoi_assets.store.weights import local_folder

# Configuration, tokenizer, chat template and preprocessing are those of the model that was tuned.
PUBLISHED_BASE = ModelRef(
    source="Qwen/Qwen2-VL-7B-Instruct", revision="eed13092ef92e448dd6875b2a00151bd3f7db0ac"
)
TEMPLATE_FILE = "chat_template.json"
BASE_FILES = ("config.json", "tokenizer_config.json", "preprocessor_config.json", TEMPLATE_FILE)
REWARD_TOKEN = "<|Reward|>"
# Every picture is resized to about this area, whatever its size.
PIXELS = 256 * 28 * 28
HEAD = "rm_head."
# The head's linear layers by their places; ReLU and dropout are between them.
HEAD_LAYERS = (0, 3, 5)
# Names in the released file, of transformers 4.45, and in the installed library.
RENAMED = {"model.": "language_model.", "visual.": "visual."}
UNUSED = "lm_head."


@dataclass(frozen=True)
class HPSv3:
    """A loaded HPSv3: Qwen2VLModel, and a head in float32 for mu and log sigma."""

    model: Any
    head: Any
    tokenizer: Any
    image_processor: Any
    template: str
    device: str = "cpu"

    @property
    def modules(self) -> tuple[Any, ...]:
        """The weights, as the model cache counts them."""
        return self.model, self.head

    @property
    def reward_token_id(self) -> int:
        """The token at whose place the head reads."""
        return int(self.tokenizer.convert_tokens_to_ids(REWARD_TOKEN))

    @cached_property
    def digest(self) -> str:
        """Hash of weights, head, tokenizer, template and preprocessing."""
        facts = {
            "tokenizer": tokenizer_facts(self.tokenizer),
            "image": processor_facts(self.image_processor),
            "template": self.template,
        }
        head = {f"{HEAD}{name}": one for name, one in self.head.state_dict().items()}
        return content_digest({**self.model.state_dict(), **head}, facts)


def load_hpsv3(source: Source, device: str = "cpu") -> HPSv3:
    """Load a hub repository or folder with `HPSv3.safetensors`.

    The base model's files are read from the same folder where they are, else from
    `Qwen/Qwen2-VL-7B-Instruct` at a pinned revision.

    Raises:
        HoiError: missing, surplus or misshapen weights, or another tokenizer than they were
            trained with.
    """
    return load_cached("hpsv3", source, device, _load)


def load_base(ref: ModelRef) -> tuple[Any, Any, Any, str]:
    """Configuration, tokenizer with the reward token, image processor and chat template.

    Raises:
        HoiError: one of them cannot be read.
    """
    from transformers import AutoTokenizer, Qwen2VLConfig, Qwen2VLImageProcessorPil

    require_files(ref, BASE_FILES)
    tokenizer = read_processor(AutoTokenizer, ref)
    tokenizer.add_special_tokens({"additional_special_tokens": [REWARD_TOKEN]})
    processor = read_processor(Qwen2VLImageProcessorPil, ref, min_pixels=PIXELS, max_pixels=PIXELS)
    return read_processor(Qwen2VLConfig, ref), tokenizer, processor, _template(ref)


def base_of(ref: ModelRef) -> ModelRef:
    """Where the base model's files of an HPSv3 are; see `load_hpsv3`."""
    folder = ref.folder if ref.revision is None else None
    if folder is not None and (folder / BASE_FILES[0]).is_file():
        return ModelRef(source=str(folder))
    return PUBLISHED_BASE


def _load(ref: ModelRef, device: str) -> HPSv3:
    from accelerate import init_empty_weights
    from transformers import Qwen2VLModel

    require_files(ref, (HPSV3_CHECKPOINT,))
    state = _read_weights(ref)
    config, tokenizer, image_processor, template = load_base(base_of(ref))
    words = state.get("model.embed_tokens.weight")
    if words is None or len(words) != len(tokenizer):
        found = "no" if words is None else str(len(words))
        why = f"it has {found} word embeddings, its tokenizer {len(tokenizer)} words"
        raise load_error("HPSv3", ref, why)
    config.text_config.vocab_size = len(words)
    head_state = {k.removeprefix(HEAD): v for k, v in state.items() if k.startswith(HEAD)}
    with init_empty_weights(include_buffers=False):
        model = Qwen2VLModel(config).eval()
    dtype = torch_dtype(ref.dtype)
    _fill(model, {k: v.to(dtype) for k, v in _renamed(state).items()}, ref)
    head = _build_head(head_state, ref)
    move_to_device([model, head], device)
    return HPSv3(model, head, tokenizer, image_processor, template, device)


def _read_weights(ref: ModelRef) -> dict[str, Any]:
    """Tensors by their released names; without numbers inside `shapes_only`."""
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(_path_of(ref, HPSV3_CHECKPOINT), framework="pt") as file:
            names = file.keys()
            if not loads_shapes_only():
                return {name: file.get_tensor(name) for name in names}
            empty = partial(torch.empty, device=META)
            return {name: empty(file.get_slice(name).get_shape()) for name in names}
    except (OSError, ValueError, SafetensorError) as error:
        raise load_error("HPSv3", ref, f"{HPSV3_CHECKPOINT}: {unreadable(error)}") from error


def _renamed(state: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for name, tensor in state.items():
        if name.startswith((HEAD, UNUSED)):
            continue
        prefix, _, rest = name.partition(".")
        found[RENAMED.get(f"{prefix}.", f"{prefix}.") + rest] = tensor
    return found


def _build_head(state: Mapping[str, Any], ref: ModelRef) -> Any:
    from torch import nn

    missing = [n for n in HEAD_LAYERS if f"{n}.weight" not in state]
    if missing:
        raise load_error("HPSv3's head", ref, f"{HEAD}{missing[0]}.weight is missing")
    first, second, third = (
        nn.Linear(*reversed(state[f"{n}.weight"].shape), device=META) for n in HEAD_LAYERS
    )
    head = nn.Sequential(first, nn.ReLU(), nn.Dropout(0.05), second, nn.ReLU(), third).eval()
    _fill(head, {name: tensor.float() for name, tensor in state.items()}, ref)
    return head


def _fill(module: Any, state: Mapping[str, Any], ref: ModelRef) -> None:
    """Put `state` in place of a module's empty weights.

    Raises:
        HoiError: names the first weight that is missing, surplus or misshapen.
    """
    wanted = module.state_dict()
    for name in sorted(wanted.keys() | state.keys()):
        if name not in state or name not in wanted:
            what = "surplus" if name in state else "missing"
            raise load_error(type(module), ref, f"{name} is {what}")
        if state[name].shape != wanted[name].shape:
            found, fitting = tuple(state[name].shape), tuple(wanted[name].shape)
            raise load_error(type(module), ref, f"{name} is {found}, wanted {fitting}")
    module.load_state_dict(state, assign=True)


def _template(ref: ModelRef) -> str:
    try:
        facts = json.loads(_path_of(ref, TEMPLATE_FILE).read_text(encoding="utf-8"))
        return str(facts["chat_template"])
    except (OSError, ValueError, KeyError) as error:
        raise load_error("HPSv3", ref, f"{TEMPLATE_FILE}: {unreadable(error)}") from error


def _path_of(ref: ModelRef, name: str) -> Path:
    from huggingface_hub import hf_hub_download

    folder = local_folder(ref)
    if folder is not None:
        return folder / name
    return Path(hf_hub_download(ref.source, name, revision=ref.revision))
