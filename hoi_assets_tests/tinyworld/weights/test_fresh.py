from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

CAPTIONS = (
    "a right hand wraps around a red plastic bottle",
    "two hands squeeze a blue box between both palms",
)


def _noise_picture() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 255, (128, 128, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.slow
def test_sdxl_loads_plainly_and_draws_what_its_seed_says(fresh_weights: Path) -> None:
    from diffusers import StableDiffusionXLPipeline

    pipeline = StableDiffusionXLPipeline.from_pretrained(
        fresh_weights / "sdxl", dtype=torch.float32
    )
    pipeline.set_progress_bar_config(disable=True)
    drawn = [
        pipeline(CAPTIONS[0], num_inference_steps=2, generator=torch.Generator().manual_seed(7))
        for _ in range(2)
    ]
    assert drawn[0].images[0].size == (128, 128)
    assert np.array_equal(np.asarray(drawn[0].images[0]), np.asarray(drawn[1].images[0]))


def test_pooled_embedding_differs_between_prompts(fresh_weights: Path) -> None:
    from transformers import AutoTokenizer, CLIPTextModelWithProjection

    encoder = CLIPTextModelWithProjection.from_pretrained(fresh_weights / "sdxl" / "text_encoder_2")
    tokenizer = AutoTokenizer.from_pretrained(fresh_weights / "sdxl" / "tokenizer_2")
    words = tokenizer(list(CAPTIONS), padding="max_length", max_length=48, return_tensors="pt")
    with torch.inference_mode():
        first, second = encoder(words["input_ids"]).text_embeds
    assert (first - second).abs().max() > 1e-3


def test_clip_tells_texts_apart(fresh_weights: Path) -> None:
    from hoi_assets.engines.clip_score import clip_scores, load_clip

    clip = load_clip(fresh_weights / "clip")
    with torch.inference_mode():
        ids = clip.tokenizer(list(CAPTIONS), padding=True, return_tensors="pt")
        first, second = clip.model.get_text_features(**ids).pooler_output
    assert (first - second).abs().max() > 1e-3
    assert len(clip_scores(clip, [_noise_picture()] * 2, CAPTIONS)) == 2


def test_vilt_has_two_named_heads(fresh_weights: Path) -> None:
    from transformers import ViltForQuestionAnswering

    model = ViltForQuestionAnswering.from_pretrained(fresh_weights / "vilt")
    assert model.config.id2label == {0: "fidelity", 1: "alignment"}


def test_image_reward_scores_a_pair(fresh_weights: Path) -> None:
    from transformers import BlipForImageTextRetrieval

    from hoi_assets.engines.image_reward import image_reward_scores, load_image_reward

    BlipForImageTextRetrieval.from_pretrained(fresh_weights / "image_reward")
    model = load_image_reward(fresh_weights / "image_reward")
    scores = image_reward_scores(model, [_noise_picture()] * 2, CAPTIONS)
    assert scores[0] != scores[1]


def test_examiner_names_every_kind(fresh_weights: Path) -> None:
    from hoi_assets.engines.examiner import examine, load_examiner

    (truth,) = examine(load_examiner(fresh_weights / "examiner"), [_noise_picture()])
    assert truth.pose and truth.object and truth.colour and truth.side


def test_weights_are_stored_as_half_precision_safetensors_only(fresh_weights: Path) -> None:
    from safetensors import safe_open

    suffixes = {path.suffix for path in fresh_weights.rglob("*") if path.is_file()}
    assert suffixes <= {".safetensors", ".json", ".md"}
    for path in fresh_weights.rglob("*.safetensors"):
        with safe_open(path, "pt") as tensors:
            names = tensors.keys()
            kinds = {tensors.get_slice(name).get_dtype() for name in names}
        assert kinds <= {"F16", "I64"}, path


def test_fresh_weights_depend_on_the_seed_alone(fresh_weights: Path, tmp_path: Path) -> None:
    from hoi_assets.hashing import digest_folder
    from hoi_assets.tinyworld.weights.store import write_fresh

    write_fresh(tmp_path, seed=0, log=lambda line: None)
    assert digest_folder(tmp_path) == digest_folder(fresh_weights)
