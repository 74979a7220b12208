"""CLIPScore, ImageReward and BLIP-VQA from the file to the figure, against computations of their
own: pictures prepared by Pillow and numpy, models by plain torch or by the library's generation.

`engines/test_image_reward.py` and `engines/test_blip_vqa.py` hold more of the same models.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import cosine_similarity, layer_norm, linear, unfold

from hoi_assets.engines.blip_vqa import blip_vqa_scores, load_blip_vqa
from hoi_assets.engines.clip_score import clip_scores, load_clip
from hoi_assets.engines.image_reward import image_reward_scores
from hoi_assets_tests.engines import published_image_reward
from hoi_assets_tests.engines.small_judges import BLIP_VISION, SIDE, picture, tokenizer
from hoi_assets_tests.engines.test_blip_vqa import make_blip_vqa
from hoi_assets_tests.engines.test_image_reward import _published, _rewarder

TOLERANCE = 1e-4
PROMPTS = ["a red ball", "right hand holds blue box", "a green box on wall"]
# Of two shapes, and of the judges' own side.
PICTURES = [picture(0, (50, 40)), picture(1, (40, 64)), picture(2)]
CLIP_MEAN = np.array([0.48145466, 0.4578275, 0.40821073])
CLIP_STD = np.array([0.26862954, 0.26130258, 0.27577711])
HEADS, LAYERS, EPS = 2, 2, 1e-5


def normalised(image: Image.Image) -> Tensor:
    """(1, 3, height, width), with CLIP's mean and deviation, which BLIP shares."""
    pixels = (np.asarray(image.convert("RGB")) / 255 - CLIP_MEAN) / CLIP_STD
    return torch.from_numpy(pixels).float().permute(2, 0, 1)[None]


def centre_square(image: Image.Image) -> Tensor:
    """The shorter side brought to SIDE (bicubic), the centre cut out: CLIP and ImageReward."""
    scale = SIDE / min(image.size)
    width, height = (int(length * scale) for length in image.size)
    left, top = (width - SIDE) // 2, (height - SIDE) // 2
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    return normalised(resized.crop((left, top, left + SIDE, top + SIDE)))


def clip_cosine(w: Mapping[str, Tensor], pixels: Tensor, ids: Tensor) -> float:
    """Cosine of one picture and one text, from a CLIP's weights (Radford et al. 2021)."""

    def dense(name: str, x: Tensor) -> Tensor:
        return linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))

    def norm(name: str, x: Tensor) -> Tensor:
        return layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], EPS)

    def transformer(prefix: str, x: Tensor, causal: bool) -> Tensor:
        for number in range(LAYERS):
            name = f"{prefix}.encoder.layers.{number}"
            y = norm(f"{name}.layer_norm1", x)
            parts = [dense(f"{name}.self_attn.{one}_proj", y).chunk(HEADS, -1) for one in "qkv"]
            seen = []
            for q, k, v in zip(*parts, strict=True):
                logits = q @ k.mT / q.shape[-1] ** 0.5
                if causal:
                    hidden = torch.ones_like(logits).triu(1).bool()
                    logits = logits.masked_fill(hidden, float("-inf"))
                seen.append(logits.softmax(-1) @ v)
            x = x + dense(f"{name}.self_attn.out_proj", torch.cat(seen, -1))
            y = dense(f"{name}.mlp.fc1", norm(f"{name}.layer_norm2", x))
            x = x + dense(f"{name}.mlp.fc2", y * torch.sigmoid(1.702 * y))
        return x

    vision, text = "vision_model", "text_model"
    kernel = w[f"{vision}.embeddings.patch_embedding.weight"]
    patches = unfold(pixels, kernel.shape[-1], stride=kernel.shape[-1]).mT @ kernel.flatten(1).T
    x = torch.cat([w[f"{vision}.embeddings.class_embedding"].expand(1, 1, -1), patches], dim=1)
    x = norm(f"{vision}.pre_layrnorm", x + w[f"{vision}.embeddings.position_embedding.weight"])
    x = norm(f"{vision}.post_layernorm", transformer(vision, x, causal=False)[:, 0])
    image = dense("visual_projection", x)
    x = w[f"{text}.embeddings.token_embedding.weight"][ids]
    x = x + w[f"{text}.embeddings.position_embedding.weight"][: ids.shape[1]]
    # The text's feature is that of its last token, the end token.
    x = norm(f"{text}.final_layer_norm", transformer(text, x, causal=True))[:, -1]
    return float(cosine_similarity(image, dense("text_projection", x)))


def test_clip_score_is_that_of_plain_torch_from_pillows_pixels(clip_folder: Path) -> None:
    weights = load_file(clip_folder / "model.safetensors")
    images = PICTURES * 3
    prompts = [prompt for prompt in PROMPTS for _ in PICTURES]
    cosines = []
    for image, prompt in zip(images, prompts, strict=True):
        ids = tokenizer()(f"A photo depicts {prompt}", return_tensors="pt")["input_ids"]
        cosines.append(clip_cosine(weights, centre_square(image), ids))
    wanted = 2.5 * np.maximum(cosines, 0)
    found = clip_scores(load_clip(clip_folder), images, prompts)
    np.testing.assert_allclose(found, wanted, atol=TOLERANCE)
    assert (wanted > 100 * TOLERANCE).any()


def test_image_reward_is_that_of_its_published_weights_from_pillows_pixels() -> None:
    model = _rewarder()
    words = tokenizer()(PROMPTS, padding="max_length", max_length=10, return_tensors="pt")
    wanted = published_image_reward.score(
        _published(model),
        torch.cat([centre_square(image) for image in PICTURES]),
        words["input_ids"],
        words["attention_mask"],
        heads=(BLIP_VISION["num_attention_heads"], 4),
        mean=0.2,
        std=0.5,
    )
    found = image_reward_scores(model, PICTURES, PROMPTS)
    np.testing.assert_allclose(found, wanted.detach().numpy(), atol=TOLERANCE)
    assert found.std() > 10 * TOLERANCE


def test_blip_vqa_is_the_product_of_what_the_library_generates(tmp_path: Path) -> None:
    blip = load_blip_vqa(make_blip_vqa(tmp_path))
    phrases = [("a red ball",), ("right hand", "blue box", "a wall"), ("a green box", "hand")]
    wanted = []
    for image, own in zip(PICTURES, phrases, strict=True):
        squeezed = normalised(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
        product = 1.0
        for phrase in own:
            question = tokenizer()(f"{phrase}?", return_tensors="pt")
            made = blip.model.generate(
                input_ids=question["input_ids"],
                attention_mask=question["attention_mask"],
                pixel_values=squeezed,
                max_new_tokens=1,
                do_sample=False,
                return_dict_in_generate=True,
                output_logits=True,
            )
            product *= float(made.logits[0].softmax(-1)[0, blip.yes])
        wanted.append(product)
    found = blip_vqa_scores(blip, PICTURES, phrases)
    np.testing.assert_allclose(found, wanted, rtol=TOLERANCE)
    assert pytest.approx(found[0], rel=10 * TOLERANCE) != found[2]
