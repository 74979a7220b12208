"""ImageReward of (image, prompt) pairs (Xu et al. 2023): the standardised reward of a BLIP
with an MLP head."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hoi_assets.engines.batching import map_fixed
from hoi_assets.engines.model_cache import Source, load_cached, move_to_device
from hoi_assets.engines.pair_inputs import (
    image_inputs,
    require_pairs,
    text_inputs,
)
from hoi_assets.engines.pretrained import (
    content_digest,
    load_error,
    processor_facts,
    read_model,
    read_processor,
    require_files,
    tokenizer_facts,
    torch_dtype,
    unreadable,
)
from hoi_assets.engines.text_tokens import TextEncoder, TextReader
from hoi_assets.errors import HoiError
from hoi_assets.settings import ModelRef
from hoi_assets.store.weights import local_folder, model_digest

BATCH_SIZE = 32

IMAGE_REWARD_FILE = "image_reward.json"
HEAD_FILE = "head.safetensors"
# The published checkpoint, its constants and the tokenizer that it was trained with.
PUBLISHED_CHECKPOINT = "ImageReward.pt"
PUBLISHED_MEAN = 0.16717362830052426
PUBLISHED_STD = 1.0333394966054072
PUBLISHED_TEXT_TOKENS = 35
# A folder with the checkpoint may hold it in this folder; else it comes from the hub.
TOKENIZER_FOLDER = "tokenizer"
PUBLISHED_TOKENIZER = ModelRef(
    source="google-bert/bert-base-uncased", revision="86b5e0934494bd15c9632b12f734a8a67f723594"
)
PUBLISHED_VISION = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 16,
    "layer_norm_eps": 1e-6,
}
PUBLISHED_TEXT = {
    "vocab_size": 30524,
    "hidden_size": 768,
    "encoder_hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 512,
    "layer_norm_eps": 1e-12,
}
# Heads of BlipForImageTextRetrieval that ImageReward never calls. The published checkpoint holds
# the projections all the same, left over from BLIP's pretraining.
UNUSED_HEADS = ("vision_proj.", "text_proj.", "itm_head.")


@dataclass(frozen=True)
class ImageRewardModel:
    """A loaded ImageReward: BlipForImageTextRetrieval, MLP head, and the reward's mean and std."""

    blip: Any
    head: Any
    tokenizer: Any
    image_processor: Any
    mean: float = PUBLISHED_MEAN
    std: float = PUBLISHED_STD
    max_text_tokens: int = PUBLISHED_TEXT_TOKENS
    device: str = "cpu"

    @property
    def modules(self) -> tuple[Any, ...]:
        """The weights, as the model cache counts them."""
        return self.blip, self.head

    @cached_property
    def digest(self) -> str:
        """Hash of weights, head, tokenizer, preprocessing, mean and std."""
        facts = {
            "tokenizer": tokenizer_facts(self.tokenizer),
            "image": processor_facts(self.image_processor),
            "mean": self.mean,
            "std": self.std,
            "max_text_tokens": self.max_text_tokens,
        }
        used = {k: v for k, v in self.blip.state_dict().items() if not k.startswith(UNUSED_HEADS)}
        head = {f"head.{k}": v for k, v in self.head.state_dict().items()}
        return content_digest({**used, **head}, facts)


def load_image_reward(source: Source, device: str = "cpu") -> ImageRewardModel:
    """Load an ImageReward from a folder of `save_image_reward`, or the published checkpoint.

    The published one is a hub repository (or folder) with `ImageReward.pt`; its keys are converted
    on loading. Its tokenizer is bert-base-uncased: the files beside it or in its folder
    `tokenizer`, else the hub's at a pinned revision.

    Raises:
        HoiError: missing or misshapen weights.
    """
    return load_cached("image_reward", source, device, _load)


def image_reward_text_reader(ref: ModelRef) -> TextReader:
    """What an ImageReward reads of the prompts that it scores."""

    def load() -> tuple[TextEncoder]:
        from transformers import AutoTokenizer

        folder = ref.folder
        if folder is None or (folder / PUBLISHED_CHECKPOINT).is_file():
            published = _published_tokenizer(ref)
            return (TextEncoder("image_reward", published, PUBLISHED_TEXT_TOKENS),)
        require_files(ref, ("tokenizer_config.json", IMAGE_REWARD_FILE))
        facts = json.loads((folder / IMAGE_REWARD_FILE).read_text(encoding="utf-8"))
        limit = int(facts["max_text_tokens"])
        return (TextEncoder("image_reward", read_processor(AutoTokenizer, ref), limit),)

    return TextReader("image_reward", model_digest(ref), load)


def _load(ref: ModelRef, device: str) -> ImageRewardModel:
    folder = ref.folder
    if folder is None or (folder / PUBLISHED_CHECKPOINT).is_file():
        return _load_published(ref, device)
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    from transformers import AutoTokenizer, BlipForImageTextRetrieval, CLIPImageProcessorPil

    files = ("config.json", "model.safetensors", "tokenizer_config.json")
    require_files(ref, (*files, HEAD_FILE, IMAGE_REWARD_FILE))
    facts = json.loads((folder / IMAGE_REWARD_FILE).read_text(encoding="utf-8"))
    blip = read_model(BlipForImageTextRetrieval, ref, allow_missing=UNUSED_HEADS)
    try:
        head_state = load_file(folder / HEAD_FILE)
    except SafetensorError as error:
        raise load_error(HEAD_FILE, ref, str(error)) from error
    head = _head_of(head_state, ref)
    move_to_device([blip, head], device)
    return ImageRewardModel(
        blip=blip,
        head=head,
        tokenizer=read_processor(AutoTokenizer, ref),
        image_processor=read_processor(CLIPImageProcessorPil, ref),
        mean=float(facts["mean"]),
        std=float(facts["std"]),
        max_text_tokens=int(facts["max_text_tokens"]),
        device=device,
    )


def _load_published(ref: ModelRef, device: str) -> ImageRewardModel:
    import pickle

    import torch
    from huggingface_hub import hf_hub_download
    from transformers import BlipConfig, BlipForImageTextRetrieval, CLIPImageProcessorPil

    folder = local_folder(ref)
    try:
        path = (
            folder / PUBLISHED_CHECKPOINT
            if folder
            else Path(hf_hub_download(ref.source, PUBLISHED_CHECKPOINT, revision=ref.revision))
        )
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        why = f"{PUBLISHED_CHECKPOINT}: {unreadable(error)}"
        raise load_error(BlipForImageTextRetrieval, ref, why) from error
    blip_state, head_state = convert_image_reward_state_dict(state)
    config = BlipConfig(vision_config=PUBLISHED_VISION, text_config=PUBLISHED_TEXT)
    blip = BlipForImageTextRetrieval(config).eval()
    missing, unexpected = blip.load_state_dict(blip_state, strict=False)
    wrong = [k for k in missing if not k.startswith(UNUSED_HEADS)] + list(unexpected)
    if wrong:
        raise load_error(BlipForImageTextRetrieval, ref, f"{wrong[0]} does not fit")
    size = {"height": PUBLISHED_VISION["image_size"], "width": PUBLISHED_VISION["image_size"]}
    head = _head_of(head_state, ref)
    move_to_device([blip.to(torch_dtype(ref.dtype)), head], device)
    return ImageRewardModel(
        blip=blip,
        head=head,
        tokenizer=_published_tokenizer(ref),
        image_processor=CLIPImageProcessorPil(
            size={"shortest_edge": PUBLISHED_VISION["image_size"]}, crop_size=size
        ),
        device=device,
    )


def _published_tokenizer(ref: ModelRef) -> Any:
    from transformers import BertTokenizer

    folders = () if ref.folder is None else (ref.folder, ref.folder / TOKENIZER_FOLDER)
    files = [one / name for one in folders for name in ("tokenizer.json", "vocab.txt")]
    found = next((file.parent for file in files if file.is_file()), None)
    source = PUBLISHED_TOKENIZER if found is None else ModelRef(source=str(found))
    return read_processor(BertTokenizer, source)


def convert_image_reward_state_dict(
    state: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Rename the keys of the published ImageReward checkpoint; those of unused heads are dropped.

    Returns:
        Weights for transformers' BlipForImageTextRetrieval, and weights `layers.N.*` of the head.

    Raises:
        HoiError: a key that the published checkpoint does not have.
    """
    vision = (
        ("visual_encoder.cls_token", "vision_model.embeddings.class_embedding"),
        ("visual_encoder.pos_embed", "vision_model.embeddings.position_embedding"),
        ("visual_encoder.patch_embed.proj.", "vision_model.embeddings.patch_embedding."),
        ("visual_encoder.norm.", "vision_model.post_layernorm."),
        ("visual_encoder.blocks.", "vision_model.encoder.layers."),
    )
    block = ((".norm1.", ".layer_norm1."), (".norm2.", ".layer_norm2."))
    attention = ((".attn.qkv.", ".self_attn.qkv."), (".attn.proj.", ".self_attn.projection."))
    blip: dict[str, Any] = {}
    head: dict[str, Any] = {}
    for key, value in state.items():
        if key.endswith("position_ids"):
            continue
        if key.startswith("mlp."):
            head[key.removeprefix("mlp.")] = value
            continue
        name = key.removeprefix("blip.")
        if key.startswith("blip.") and name.startswith(UNUSED_HEADS):
            continue
        if name.startswith("visual_encoder."):
            for old, new in vision:
                name = new + name.removeprefix(old) if name.startswith(old) else name
            for old, new in (*block, *attention):
                name = name.replace(old, new)
        if not key.startswith("blip.") or not name.startswith(("vision_model.", "text_encoder.")):
            raise HoiError(
                f"{key} is not a weight of the published ImageReward",
                "name the checkpoint ImageReward.pt of THUDM/ImageReward",
            )
        blip[name] = value
    return blip, head


def build_head(widths: Sequence[int]) -> Any:
    """The published head's shape: linear layers without activations, dropout after the first three.

    Args:
        widths: six, e.g. (768, 1024, 128, 64, 16, 1) as published; layers are numbered 0,2,4,6,7.
    """
    from torch import nn

    first, second, third, fourth, fifth = (nn.Linear(a, b) for a, b in pairwise(widths))
    return nn.Sequential(
        first, nn.Dropout(0.2), second, nn.Dropout(0.2), third, nn.Dropout(0.1), fourth, fifth
    )


def _head_of(state: Mapping[str, Any], ref: ModelRef) -> Any:
    state = {k.removeprefix("mlp.").removeprefix("layers."): v for k, v in state.items()}
    numbers = (0, 2, 4, 6, 7)
    missing = [f"layers.{n}.weight" for n in numbers if f"{n}.weight" not in state]
    if missing:
        raise load_error("ImageReward's head", ref, f"{missing[0]} is missing")
    widths = [state["0.weight"].shape[1], *(state[f"{n}.weight"].shape[0] for n in numbers)]
    head = build_head(widths)
    try:
        head.load_state_dict({k: v.float() for k, v in state.items()})
    except RuntimeError as error:
        raise load_error("ImageReward's head", ref, str(error).splitlines()[-1]) from error
    return head.eval()


def save_image_reward(reward_model: ImageRewardModel, folder: Path) -> Path:
    """Write the folder that `load_image_reward` reads; all weights as safetensors."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    reward_model.blip.save_pretrained(folder)
    reward_model.tokenizer.save_pretrained(folder)
    reward_model.image_processor.save_pretrained(folder)
    head = {f"mlp.layers.{k}": v.contiguous() for k, v in reward_model.head.state_dict().items()}
    save_file(head, folder / HEAD_FILE)
    facts = {
        "mean": reward_model.mean,
        "std": reward_model.std,
        "max_text_tokens": reward_model.max_text_tokens,
    }
    text = json.dumps(facts, indent=2, sort_keys=True) + "\n"
    (folder / IMAGE_REWARD_FILE).write_text(text, encoding="utf-8")
    return folder


def reward(blip: Any, head: Any, pixel_values: Any, input_ids: Any, attention_mask: Any) -> Any:
    """Differentiable reward (B,), before it is standardised.

    Args:
        blip: BlipForImageTextRetrieval; its first text feature goes through `head`.
    """
    import torch

    image = blip.vision_model(pixel_values=pixel_values).last_hidden_state
    everywhere = torch.ones(image.shape[:2], dtype=torch.long, device=image.device)
    text = blip.text_encoder(
        input_ids=input_ids,
        attention_mask=attention_mask,
        encoder_hidden_states=image,
        encoder_attention_mask=everywhere,
        is_decoder=False,
    )
    return head(text.last_hidden_state[:, 0].float()).squeeze(-1)


def image_reward_scores(
    reward_model: ImageRewardModel,
    images: Sequence[Image.Image],
    prompts: Sequence[str],
    slots: Sequence[int] | None = None,
    batch_size: int = BATCH_SIZE,
) -> np.ndarray:
    """ImageReward (Xu et al. 2023): (reward - mean) / std; about -2..2, higher is better.

    Args:
        images: of any size; resized to the model's side and centre-cropped.
        slots: place of each pair in its whole table (see `batching`).

    Returns:
        float64 (N,).
    """
    import torch

    def compute(items: list[int]) -> np.ndarray:
        words = text_inputs(reward_model, [prompts[item] for item in items])
        pixels = image_inputs(
            reward_model, [images[item] for item in items], reward_model.blip.dtype
        )
        with torch.inference_mode():
            raw = reward(reward_model.blip, reward_model.head, pixels, **words).double()
        return ((raw - reward_model.mean) / reward_model.std).cpu().numpy()

    require_pairs(images, prompts)
    return map_fixed(len(prompts), batch_size, compute, slots)
