"""CLIPScore and ImageReward of (picture, prompt) pairs.

CLIPScore: Hessel et al. 2021, 2.5 * max(cos, 0) with the prefix "A photo depicts ".
ImageReward: Xu et al. 2023, the reward of a BLIP with an MLP head, less its mean, by its deviation.
"""

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
from hoi_assets.engines.judge_loading import (
    Source,
    content_digest,
    from_pretrained,
    once,
    pretrained_part,
    processor_facts,
    require_files,
    tokenizer_facts,
    torch_dtype,
    unloadable,
)
from hoi_assets.engines.vilt.verifier import longer_than
from hoi_assets.errors import HoiError
from hoi_assets.settings import ModelRef

BATCH_SIZE = 32
CLIP_PREFIX = "A photo depicts "
CLIP_WEIGHT = 2.5

IMAGE_REWARD_FILE = "image_reward.json"
HEAD_FILE = "head.safetensors"
# The published checkpoint, its constants and the tokenizer that it was trained with.
PUBLISHED_CHECKPOINT = "ImageReward.pt"
PUBLISHED_MEAN = 0.16717362830052426
PUBLISHED_STD = 1.0333394966054072
PUBLISHED_TEXT_TOKENS = 35
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
# Heads of BlipForImageTextRetrieval that ImageReward does not have and never calls.
UNUSED_HEADS = ("vision_proj.", "text_proj.", "itm_head.")


@dataclass(frozen=True)
class Scores:
    """`values` float64 (N,); `truncated`: numbers of the pairs whose text was cut."""

    values: np.ndarray
    truncated: tuple[int, ...]


@dataclass(frozen=True)
class ClipModel:
    """A loaded CLIP."""

    model: Any
    tokenizer: Any
    image_processor: Any
    device: str = "cpu"

    @property
    def max_text_tokens(self) -> int:
        """Texts are padded to this many tokens, prefix included, and cut beyond."""
        positions = int(self.model.config.text_config.max_position_embeddings)
        return min(int(self.tokenizer.model_max_length), positions)

    @cached_property
    def digest(self) -> str:
        """Hash of weights, tokenizer and preprocessing."""
        facts = {
            "tokenizer": tokenizer_facts(self.tokenizer),
            "image": processor_facts(self.image_processor),
        }
        return content_digest(self.model.state_dict(), facts)


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


def load_clip(source: Source, device: str = "cpu") -> ClipModel:
    """Load a CLIP from a ModelRef or folder; loaded once per process.

    Raises:
        HoiError: missing or misshapen weights, or an end token that the tokenizer does not write
            (then every text would have the same embedding).
    """
    return once("clip", source, device, _load_clip)


def _load_clip(ref: ModelRef, device: str) -> ClipModel:
    from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

    require_files(ref, ("config.json", "model.safetensors", "tokenizer_config.json"))
    model = from_pretrained(CLIPModel, ref)
    tokenizer = pretrained_part(AutoTokenizer, ref)
    end = model.config.text_config.eos_token_id
    # 2 is the published configs' wrong value, for which transformers takes the largest id.
    largest = tokenizer.eos_token_id == len(tokenizer) - 1
    if end != tokenizer.eos_token_id and not (end == 2 and largest):
        raise HoiError(
            f"CLIP {ref.source}: text_config.eos_token_id is {end}, "
            f"the tokenizer ends texts with {tokenizer.eos_token_id}",
            "set eos_token_id in the config of the weights",
        )
    return ClipModel(
        model=model.to(device),
        tokenizer=tokenizer,
        image_processor=pretrained_part(CLIPImageProcessorPil, ref),
        device=device,
    )


def clip_scores(
    clip: ClipModel,
    images: Sequence[Image.Image],
    prompts: Sequence[str],
    slots: Sequence[int] | None = None,
    batch_size: int = BATCH_SIZE,
) -> Scores:
    """CLIPScore (Hessel et al. 2021, eq. 1): 2.5 * max(cos(image, text), 0), in 0..2.5.

    Args:
        images: of any size; resized to the model's side and centre-cropped.
        slots: place of each pair in its whole table (see `batching`).
    """
    import torch

    texts = [CLIP_PREFIX + prompt for prompt in prompts]

    def compute(items: list[int]) -> np.ndarray:
        words = _padded(clip, [texts[item] for item in items])
        pixels = _pixels(clip, [images[item] for item in items])
        with torch.inference_mode():
            image = clip.model.get_image_features(pixel_values=pixels).pooler_output
            text = clip.model.get_text_features(**words).pooler_output
            cosine = torch.nn.functional.cosine_similarity(image.double(), text.double())
        return CLIP_WEIGHT * cosine.clamp(min=0).cpu().numpy()

    _same_length(images, prompts)
    values = map_fixed(len(texts), batch_size, compute, slots)
    return Scores(values, tuple(longer_than(clip.tokenizer, texts, clip.max_text_tokens)))


def load_image_reward(source: Source, device: str = "cpu") -> ImageRewardModel:
    """Load an ImageReward from a folder of `save_image_reward`, or the published checkpoint.

    The published one is a hub repository (or folder) with `ImageReward.pt`; its keys are converted
    on loading and its tokenizer is bert-base-uncased at a pinned revision.

    Raises:
        HoiError: missing or misshapen weights.
    """
    return once("image_reward", source, device, _load_image_reward)


def _load_image_reward(ref: ModelRef, device: str) -> ImageRewardModel:
    folder = ref.folder
    if folder is None or (folder / PUBLISHED_CHECKPOINT).is_file():
        return _load_published(ref, device)
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    from transformers import AutoTokenizer, BlipForImageTextRetrieval, CLIPImageProcessorPil

    files = ("config.json", "model.safetensors", "tokenizer_config.json")
    require_files(ref, (*files, HEAD_FILE, IMAGE_REWARD_FILE))
    facts = json.loads((folder / IMAGE_REWARD_FILE).read_text(encoding="utf-8"))
    blip = from_pretrained(BlipForImageTextRetrieval, ref, allow_missing=UNUSED_HEADS)
    try:
        head_state = load_file(folder / HEAD_FILE)
    except SafetensorError as error:
        raise unloadable(HEAD_FILE, ref, str(error)) from error
    return ImageRewardModel(
        blip=blip.to(device),
        head=_head_of(head_state, ref).to(device),
        tokenizer=pretrained_part(AutoTokenizer, ref),
        image_processor=pretrained_part(CLIPImageProcessorPil, ref),
        mean=float(facts["mean"]),
        std=float(facts["std"]),
        max_text_tokens=int(facts["max_text_tokens"]),
        device=device,
    )


def _load_published(ref: ModelRef, device: str) -> ImageRewardModel:
    import torch
    from huggingface_hub import hf_hub_download
    from transformers import (
        AutoTokenizer,
        BlipConfig,
        BlipForImageTextRetrieval,
        CLIPImageProcessorPil,
    )

    try:
        path = (
            ref.folder / PUBLISHED_CHECKPOINT
            if ref.folder
            else Path(hf_hub_download(ref.source, PUBLISHED_CHECKPOINT, revision=ref.revision))
        )
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise unloadable(BlipForImageTextRetrieval, ref, str(error)) from error
    blip_state, head_state = convert_image_reward_state_dict(state)
    config = BlipConfig(vision_config=PUBLISHED_VISION, text_config=PUBLISHED_TEXT)
    blip = BlipForImageTextRetrieval(config).eval()
    missing, unexpected = blip.load_state_dict(blip_state, strict=False)
    wrong = [k for k in missing if not k.startswith(UNUSED_HEADS)] + list(unexpected)
    if wrong:
        raise unloadable(BlipForImageTextRetrieval, ref, f"{wrong[0]} does not fit")
    size = {"height": PUBLISHED_VISION["image_size"], "width": PUBLISHED_VISION["image_size"]}
    return ImageRewardModel(
        blip=blip.to(device, torch_dtype(ref.dtype)),
        head=_head_of(head_state, ref).to(device),
        tokenizer=pretrained_part(AutoTokenizer, PUBLISHED_TOKENIZER),
        image_processor=CLIPImageProcessorPil(
            size={"shortest_edge": PUBLISHED_VISION["image_size"]}, crop_size=size
        ),
        device=device,
    )


def convert_image_reward_state_dict(
    state: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Rename the keys of the published ImageReward checkpoint.

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
        raise unloadable("ImageReward's head", ref, f"{missing[0]} is missing")
    widths = [state["0.weight"].shape[1], *(state[f"{n}.weight"].shape[0] for n in numbers)]
    head = build_head(widths)
    try:
        head.load_state_dict({k: v.float() for k, v in state.items()})
    except RuntimeError as error:
        raise unloadable("ImageReward's head", ref, str(error).splitlines()[-1]) from error
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
    """Differentiable reward (B,), before mean and deviation are taken out.

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
) -> Scores:
    """ImageReward (Xu et al. 2023): (reward - mean) / std; about -2..2, higher is better.

    Args:
        images: of any size; resized to the model's side and centre-cropped.
        slots: place of each pair in its whole table (see `batching`).
    """
    import torch

    def compute(items: list[int]) -> np.ndarray:
        words = _padded(reward_model, [prompts[item] for item in items])
        pixels = _pixels(reward_model, [images[item] for item in items])
        with torch.inference_mode():
            raw = reward(reward_model.blip, reward_model.head, pixels, **words).double()
        return ((raw - reward_model.mean) / reward_model.std).cpu().numpy()

    _same_length(images, prompts)
    values = map_fixed(len(prompts), batch_size, compute, slots)
    long = longer_than(reward_model.tokenizer, prompts, reward_model.max_text_tokens)
    return Scores(values, tuple(long))


def _same_length(images: Sequence[Image.Image], prompts: Sequence[str]) -> None:
    if len(images) != len(prompts):
        raise ValueError(f"{len(images)} images for {len(prompts)} prompts")


def _padded(judge: ClipModel | ImageRewardModel, texts: list[str]) -> dict[str, Any]:
    encoded = judge.tokenizer(
        texts,
        padding="max_length",
        truncation=True,
        max_length=judge.max_text_tokens,
        return_tensors="pt",
    )
    names = ("input_ids", "attention_mask")
    return {name: encoded[name].to(judge.device) for name in names}


def _pixels(judge: ClipModel | ImageRewardModel, images: list[Image.Image]) -> Any:
    pictures = [image.convert("RGB") for image in images]
    pixels = judge.image_processor(pictures, return_tensors="pt")["pixel_values"]
    weights = judge.model if isinstance(judge, ClipModel) else judge.blip
    return pixels.to(judge.device, weights.dtype)
