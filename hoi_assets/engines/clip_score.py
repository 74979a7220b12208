"""CLIPScore of (image, prompt) pairs (Hessel et al. 2021): 2.5 * max(cos, 0), with the prefix
"A photo depicts "."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from hoi_assets.engines.batching import map_fixed
from hoi_assets.engines.model_cache import Source, load_cached, move_to_device
from hoi_assets.engines.pair_inputs import (
    image_inputs,
    require_pairs,
    text_inputs,
    text_limit,
)
from hoi_assets.engines.pretrained import (
    content_digest,
    processor_facts,
    read_model,
    read_processor,
    require_files,
    tokenizer_facts,
)
from hoi_assets.engines.text_tokens import TextEncoder, TextReader
from hoi_assets.errors import HoiError
from hoi_assets.settings import ModelRef
from hoi_assets.store.weights import model_digest

BATCH_SIZE = 32
CLIP_PREFIX = "A photo depicts "
CLIP_WEIGHT = 2.5


@dataclass(frozen=True)
class ClipModel:
    """A loaded CLIP."""

    model: Any
    tokenizer: Any
    image_processor: Any
    device: str = "cpu"

    @property
    def modules(self) -> tuple[Any, ...]:
        """The weights, as the model cache counts them."""
        return (self.model,)

    @property
    def max_text_tokens(self) -> int:
        """Texts are padded to this many tokens, prefix included, and cut beyond."""
        return text_limit(self.tokenizer, self.model.config.text_config)

    @cached_property
    def digest(self) -> str:
        """Hash of weights, tokenizer and preprocessing."""
        facts = {
            "tokenizer": tokenizer_facts(self.tokenizer),
            "image": processor_facts(self.image_processor),
        }
        return content_digest(self.model.state_dict(), facts)


def load_clip(source: Source, device: str = "cpu") -> ClipModel:
    """Load a CLIP from a ModelRef or folder; cached by `model_cache`.

    Raises:
        HoiError: missing or misshapen weights, or an end token that the tokenizer does not write
            (then every text would have the same embedding).
    """
    return load_cached("clip", source, device, _load)


def _load(ref: ModelRef, device: str) -> ClipModel:
    from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

    require_files(ref, ("config.json", "model.safetensors", "tokenizer_config.json"))
    model = read_model(CLIPModel, ref)
    tokenizer = read_processor(AutoTokenizer, ref)
    end = model.config.text_config.eos_token_id
    # Published configs say 2 by mistake; transformers then takes the largest id.
    largest = tokenizer.eos_token_id == len(tokenizer) - 1
    if end != tokenizer.eos_token_id and not (end == 2 and largest):
        raise HoiError(
            f"CLIP {ref.source}: text_config.eos_token_id is {end}, "
            f"the tokenizer ends texts with {tokenizer.eos_token_id}",
            "set eos_token_id in the config of the weights",
        )
    move_to_device([model], device)
    return ClipModel(
        model=model,
        tokenizer=tokenizer,
        image_processor=read_processor(CLIPImageProcessorPil, ref),
        device=device,
    )


def clip_text_reader(ref: ModelRef) -> TextReader:
    """What a CLIP reads of the prompts that it scores."""

    def load() -> tuple[TextEncoder]:
        from transformers import AutoTokenizer, CLIPConfig

        tokenizer = read_processor(AutoTokenizer, ref)
        limit = text_limit(tokenizer, read_processor(CLIPConfig, ref).text_config)
        return (TextEncoder("clip", tokenizer, limit, prefix=CLIP_PREFIX),)

    return TextReader("clip", model_digest(ref), load)


def clip_scores(
    clip: ClipModel,
    images: Sequence[Image.Image],
    prompts: Sequence[str],
    slots: Sequence[int] | None = None,
    batch_size: int = BATCH_SIZE,
) -> np.ndarray:
    """CLIPScore (Hessel et al. 2021, eq. 1): 2.5 * max(cos(image, text), 0), in 0..2.5.

    Args:
        images: of any size; resized to the model's side and centre-cropped.
        slots: place of each pair in its whole table (see `batching`).

    Returns:
        float64 (N,). What the model does not read of a prompt is in `clip_text_reader`'s counts.
    """
    import torch

    texts = [CLIP_PREFIX + prompt for prompt in prompts]

    def compute(items: list[int]) -> np.ndarray:
        words = text_inputs(clip, [texts[item] for item in items])
        pixels = image_inputs(clip, [images[item] for item in items], clip.model.dtype)
        with torch.inference_mode():
            image = clip.model.get_image_features(pixel_values=pixels).pooler_output
            text = clip.model.get_text_features(**words).pooler_output
            cosine = torch.nn.functional.cosine_similarity(image.double(), text.double())
        return CLIP_WEIGHT * cosine.clamp(min=0).cpu().numpy()

    require_pairs(images, prompts)
    return map_fixed(len(texts), batch_size, compute, slots)
