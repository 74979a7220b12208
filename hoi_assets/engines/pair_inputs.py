"""The inputs of the models that score (image, text) pairs."""

from collections.abc import Sequence
from typing import Any, Protocol

from PIL import Image


class PairModel(Protocol):
    """A loaded model with what prepares its texts and images."""

    @property
    def tokenizer(self) -> Any: ...

    @property
    def image_processor(self) -> Any: ...

    @property
    def max_text_tokens(self) -> int: ...

    @property
    def device(self) -> str: ...


def require_pairs(images: Sequence[Image.Image], texts: Sequence[str]) -> None:
    """Raise ValueError unless there are as many images as texts."""
    if len(images) != len(texts):
        raise ValueError(f"{len(images)} images for {len(texts)} texts")


def text_inputs(model: PairModel, texts: Sequence[str]) -> dict[str, Any]:
    """Token ids and attention mask, both (N, max_text_tokens); longer texts are cut."""
    encoded = model.tokenizer(
        list(texts),
        padding="max_length",
        truncation=True,
        max_length=model.max_text_tokens,
        return_tensors="pt",
    )
    return {name: encoded[name].to(model.device) for name in ("input_ids", "attention_mask")}


def image_inputs(model: PairModel, images: Sequence[Image.Image], dtype: Any) -> Any:
    """Preprocessed images (N, 3, height, width) on the model's device, as torch `dtype`."""
    rgb = [image.convert("RGB") for image in images]
    pixels = model.image_processor(rgb, return_tensors="pt")["pixel_values"]
    return pixels.to(model.device, dtype)


def text_limit(tokenizer: Any, config: Any) -> int:
    """Most tokens of a text that a model reads, by its tokenizer and its text model's config."""
    return min(int(tokenizer.model_max_length), int(config.max_position_embeddings))
