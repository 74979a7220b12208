"""Promises of CLIPScore, and those that it shares with ImageReward."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hoi_assets.engines.clip_score import clip_scores, load_clip
from hoi_assets.engines.image_reward import image_reward_scores, load_image_reward
from hoi_assets.errors import HoiError
from hoi_assets_tests.engines.small_judges import make_clip, picture, private_copy

PROMPTS = ["a red ball", "right hand holds blue box", "a green box on wall"]
CLIP_MEAN = np.array([0.48145466, 0.4578275, 0.40821073])
CLIP_STD = np.array([0.26862954, 0.26130258, 0.27577711])


def test_clip_score_is_two_and_a_half_times_the_positive_cosine(clip_folder: Path) -> None:
    clip = load_clip(clip_folder)
    images = [picture(n) for n in range(6)]
    prompts = [PROMPTS[n % 3] for n in range(6)]
    pixels = np.stack([(np.asarray(i) / 255 - CLIP_MEAN) / CLIP_STD for i in images])
    words = [f"A photo depicts {prompt}" for prompt in prompts]
    with torch.no_grad():
        out = clip.model(
            pixel_values=torch.from_numpy(pixels).float().permute(0, 3, 1, 2),
            **{
                k: v
                for k, v in clip.tokenizer(words, padding=True, return_tensors="pt").items()
                if k != "token_type_ids"
            },
        )
    cosine = (out.logits_per_image / clip.model.logit_scale.exp()).diagonal().detach().numpy()
    scores = clip_scores(clip, images, prompts)
    np.testing.assert_allclose(scores, 2.5 * np.maximum(cosine, 0), atol=1e-5)
    assert min(cosine) < 0 < max(cosine)


def test_clip_score_of_opposed_embeddings_is_zero(tmp_path: Path) -> None:
    clip = private_copy(load_clip(make_clip(tmp_path / "clip")))
    assert clip_scores(clip, [picture(0)], PROMPTS[:1])[0] > 0
    with torch.no_grad():
        clip.model.text_projection.weight.neg_()
    assert clip_scores(clip, [picture(0)], PROMPTS[:1])[0] == 0


def test_clip_that_cannot_tell_texts_apart_is_refused(tmp_path: Path) -> None:
    folder = make_clip(tmp_path / "clip", eos_token_id=7)
    with pytest.raises(HoiError, match="eos_token_id is 7"):
        load_clip(folder)


@pytest.mark.parametrize("judge", ["clip", "image_reward"])
def test_score_of_a_pair_does_not_depend_on_what_else_is_scored(
    judge: str, clip_folder: Path, image_reward_folder: Path
) -> None:
    images, prompts = [picture(n) for n in range(7)], [PROMPTS[n % 3] for n in range(7)]
    if judge == "clip":
        model, score = load_clip(clip_folder), clip_scores
    else:
        model, score = load_image_reward(image_reward_folder), image_reward_scores
    whole = score(model, images, prompts, batch_size=4)
    part = score(model, [images[5], images[2]], [prompts[5], prompts[2]], [5, 2], 4)
    assert np.array_equal(part, whole[[5, 2]])


def test_large_picture_in_grey_is_scored(clip_folder: Path, image_reward_folder: Path) -> None:
    image = Image.linear_gradient("L").resize((300, 70))
    assert clip_scores(load_clip(clip_folder), [image], PROMPTS[:1]).shape == (1,)
    reward = load_image_reward(image_reward_folder)
    assert np.isfinite(image_reward_scores(reward, [image], PROMPTS[:1])).all()
