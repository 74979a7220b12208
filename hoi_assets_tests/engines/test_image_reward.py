"""Promises of ImageReward."""

from pathlib import Path

import numpy as np
import pytest
import torch

from hoi_assets.engines import image_reward
from hoi_assets.engines.image_reward import (
    PUBLISHED_CHECKPOINT,
    ImageRewardModel,
    build_head,
    convert_image_reward_state_dict,
    image_reward_scores,
    load_image_reward,
    save_image_reward,
)
from hoi_assets.errors import HoiError
from hoi_assets.settings import ModelRef
from hoi_assets_tests.engines import published_image_reward
from hoi_assets_tests.engines.small_judges import (
    BLIP_VISION,
    blip,
    clip_processor,
    make_image_reward,
    picture,
    tokenizer,
)

PROMPTS = ["a red ball", "right hand holds blue box", "a green box on wall"]
CLIP_MEAN = np.array([0.48145466, 0.4578275, 0.40821073])
CLIP_STD = np.array([0.26862954, 0.26130258, 0.27577711])


def _published(model: ImageRewardModel) -> dict[str, torch.Tensor]:
    """Weights under the names of the published checkpoint."""
    names = (
        ("vision_model.embeddings.class_embedding", "visual_encoder.cls_token"),
        ("vision_model.embeddings.position_embedding", "visual_encoder.pos_embed"),
        ("vision_model.embeddings.patch_embedding", "visual_encoder.patch_embed.proj"),
        ("vision_model.post_layernorm", "visual_encoder.norm"),
        ("vision_model.encoder.layers", "visual_encoder.blocks"),
        ("layer_norm", "norm"),
        ("self_attn.qkv", "attn.qkv"),
        ("self_attn.projection", "attn.proj"),
    )
    state = {}
    for key, value in model.blip.state_dict().items():
        if key.startswith(("vision_model", "text_encoder")):
            for ours, theirs in names:
                key = key.replace(ours, theirs) if not key.startswith("text_enc") else key
            state[f"blip.{key}"] = value
    state["blip.text_encoder.embeddings.position_ids"] = torch.arange(12)[None]
    return state | {f"mlp.layers.{k}": v for k, v in model.head.state_dict().items()}


def _rewarder() -> ImageRewardModel:
    torch.manual_seed(6)
    return ImageRewardModel(
        blip=blip(),
        head=build_head((32, 16, 8, 8, 4, 1)).eval(),
        tokenizer=tokenizer(),
        image_processor=clip_processor(),
        mean=0.2,
        std=0.5,
        max_text_tokens=10,
    )


def test_image_reward_equals_an_independent_computation_from_published_names() -> None:
    model = _rewarder()
    images, prompts = [picture(n) for n in range(5)], [PROMPTS[n % 3] for n in range(5)]
    words = tokenizer()(prompts, padding="max_length", max_length=10, return_tensors="pt")
    pixels = np.stack([(np.asarray(i) / 255 - CLIP_MEAN) / CLIP_STD for i in images])
    wanted = published_image_reward.score(
        _published(model),
        torch.from_numpy(pixels).float().permute(0, 3, 1, 2),
        words["input_ids"],
        words["attention_mask"],
        heads=(BLIP_VISION["num_attention_heads"], 4),
        mean=0.2,
        std=0.5,
    )
    found = image_reward_scores(model, images, prompts)
    np.testing.assert_allclose(found, wanted.detach().numpy(), atol=2e-5)
    assert found.std() > 1e-3


def test_published_checkpoint_is_converted_and_scores_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _rewarder()
    torch.save(_published(model), tmp_path / PUBLISHED_CHECKPOINT)
    tokenizer().save_pretrained(tmp_path)
    monkeypatch.setattr(image_reward, "PUBLISHED_VISION", model.blip.config.vision_config.to_dict())
    monkeypatch.setattr(image_reward, "PUBLISHED_TEXT", model.blip.config.text_config.to_dict())
    monkeypatch.setattr(image_reward, "PUBLISHED_TOKENIZER", ModelRef(source=str(tmp_path)))
    loaded = load_image_reward(tmp_path)
    assert (loaded.mean, loaded.std, loaded.max_text_tokens) == (
        0.16717362830052426,
        1.0333394966054072,
        35,
    )
    with torch.no_grad():
        inputs = (torch.randn(2, 3, 32, 32), torch.tensor([[2, 5, 9, 4]] * 2), torch.ones(2, 4))
        assert torch.equal(
            image_reward.reward(loaded.blip, loaded.head, *inputs),
            image_reward.reward(model.blip, model.head, *inputs),
        )


def test_unknown_weight_in_the_published_checkpoint_is_named() -> None:
    with pytest.raises(HoiError, match=r"blip\.text_decoder\.x"):
        convert_image_reward_state_dict({"blip.text_decoder.x": torch.zeros(1)})


def test_saved_image_reward_loads_with_equal_bits(
    image_reward_folder: Path, tmp_path: Path
) -> None:
    model = load_image_reward(image_reward_folder)
    again = load_image_reward(save_image_reward(model, tmp_path / "copy"))
    assert again.digest == model.digest
    assert (again.mean, again.std, again.max_text_tokens) == (0.25, 0.5, 10)
    first, second = (
        image_reward_scores(m, [picture(0), picture(1)], PROMPTS[:2]) for m in (model, again)
    )
    assert np.array_equal(first, second)


def test_image_reward_without_its_head_is_named(tmp_path: Path) -> None:
    folder = make_image_reward(tmp_path / "reward")
    (folder / "head.safetensors").unlink()
    with pytest.raises(HoiError, match=r"head\.safetensors is missing"):
        load_image_reward(folder)


def test_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    trap = tmp_path / "ran"
    torch.save({"weights": Trap(trap)}, tmp_path / PUBLISHED_CHECKPOINT)
    with pytest.raises(HoiError, match="does not load"):
        load_image_reward(tmp_path)
    assert not trap.exists()


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)
