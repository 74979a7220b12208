"""Scores (image, prompt) pairs with a loaded HPSv3."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hoi_assets.engines.batching import map_fixed
from hoi_assets.engines.hpsv3.loading import HPSv3
from hoi_assets.engines.pair_inputs import require_pairs
from hoi_assets.errors import HoiError

# One at a time: pictures of other shapes and longer texts beside it would change the last bits.
BATCH_SIZE = 1
IMAGE_TOKEN = "<|image_pad|>"
TEMPLATES = Path(__file__).parent / "templates"
# Sides of a picture beyond this ratio cannot be resized to whole patches.
MOST_RATIO = 200


@cache
def instruction() -> str:
    """The published question, word for word (its licence is beside it): it is part of the score.

    `{text_prompt}` stands for the prompt.
    """
    return (TEMPLATES / "instruction.txt").read_text(encoding="utf-8")


def hpsv3_scores(
    scorer: HPSv3,
    images: Sequence[Image.Image],
    prompts: Sequence[str],
    slots: Sequence[int] | None = None,
) -> np.ndarray:
    """Mean and standard deviation of the preference; higher means are better, most are -5..15.

    The picture's tokens have the positions of text, one after the other along one axis. Qwen2-VL
    itself gives them rows and columns; the published code hands over embeddings alone, and the
    transformers that it pins (4.45.2), as later ones, then counts tokens. The weights were trained
    that way.

    Args:
        images: of any size; resized to about 256 * 28 * 28 pixels, the ratio kept.
        slots: place of each pair in its whole table (see `batching`).

    Returns:
        float64 (N, 2): mu and sigma. The metric is mu.

    Raises:
        HoiError: a picture with one side over 200 times the other.
    """
    import torch

    def compute(items: list[int]) -> np.ndarray:
        with torch.inference_mode():
            found = [_score(scorer, images[item], prompts[item]) for item in items]
            rows = torch.stack(found).double().cpu().numpy()
        rows[:, 1] = np.exp(rows[:, 1])
        return rows

    require_pairs(images, prompts)
    if not images:
        return np.zeros((0, 2))
    return map_fixed(len(prompts), BATCH_SIZE, compute, slots)


def _score(scorer: HPSv3, image: Image.Image, prompt: str) -> Any:
    """Mu and log sigma, float32 (2,)."""
    import torch

    if max(image.size) > MOST_RATIO * min(image.size):
        raise HoiError(
            f"HPSv3 cannot score a picture of {image.width}x{image.height}",
            f"leave out pictures with one side over {MOST_RATIO} times the other",
        )
    model = scorer.model
    pixels = scorer.image_processor(image.convert("RGB"), return_tensors="pt")
    grid = pixels["image_grid_thw"].to(scorer.device)
    patches = pixels["pixel_values"].to(scorer.device)
    seen = torch.cat(model.get_image_features(patches, grid).pooler_output)
    ids = torch.tensor([_tokens(scorer, prompt, len(seen))], device=scorer.device)
    embeddings = model.get_input_embeddings()(ids)
    places = (ids == model.config.image_token_id).unsqueeze(-1).expand_as(embeddings)
    embeddings = embeddings.masked_scatter(places, seen.to(embeddings.dtype))
    positions = text_positions(ids).to(scorer.device)
    hidden = model.language_model(
        inputs_embeds=embeddings, position_ids=positions, use_cache=False
    ).last_hidden_state
    return scorer.head(hidden[ids == scorer.reward_token_id].float())[0]


def text_positions(ids: Any) -> Any:
    """Positions (3, 1, L) of tokens (1, L): the same along all axes of the rotary embedding."""
    import torch

    return torch.arange(ids.shape[1]).expand(3, 1, -1)


def _tokens(scorer: HPSv3, prompt: str, image_tokens: int) -> list[int]:
    """Ids of the whole conversation; tokens of control in the prompt are left out."""
    for token in scorer.tokenizer.get_added_vocab():
        prompt = prompt.replace(token, "")
    message = {
        "role": "user",
        "content": [
            {"type": "image"},
            {"type": "text", "text": instruction().replace("{text_prompt}", prompt)},
        ],
    }
    text = scorer.tokenizer.apply_chat_template(
        [message], chat_template=scorer.template, tokenize=False, add_generation_prompt=True
    )
    found: list[int] = scorer.tokenizer(text.replace(IMAGE_TOKEN, IMAGE_TOKEN * image_tokens))[
        "input_ids"
    ]
    return found
