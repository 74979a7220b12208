"""The tiny world's ImageReward: a BLIP with the published head's shape, taught by preferences."""

from pathlib import Path
from typing import Any

from hoi_assets.engines.image_reward import ImageRewardModel, build_head, save_image_reward
from hoi_assets.tinyworld.weights.tokenizers import MAX_LENGTH, bert_tokenizer
from hoi_assets.tinyworld.weights.vae import IMAGE_SIZE

WIDTH = 128
HEAD_WIDTHS = (WIDTH, 128, 64, 32, 16, 1)


def build(tokenizer: Any) -> Any:
    """A fresh module of two parts: `blip` (BlipForImageTextRetrieval) and `head`."""
    from torch import nn
    from transformers import BlipConfig, BlipForImageTextRetrieval

    vision = {
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "image_size": IMAGE_SIZE,
        "patch_size": 16,
        "layer_norm_eps": 1e-6,
    }
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "encoder_hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": MAX_LENGTH,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
        "sep_token_id": tokenizer.sep_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = BlipConfig(
        vision_config=vision, text_config=text, projection_dim=32, image_text_hidden_size=32
    )
    blip = BlipForImageTextRetrieval(config)
    return nn.ModuleDict({"blip": blip, "head": build_head(HEAD_WIDTHS)})


def parts(stored: ImageRewardModel) -> Any:
    """A stored model as `build` gives a fresh one."""
    from torch import nn

    return nn.ModuleDict({"blip": stored.blip, "head": stored.head})


def wrap(model: Any, mean: float = 0.0, std: float = 1.0) -> ImageRewardModel:
    """`model` with tokenizer, preprocessing and its reward's mean and deviation."""
    from transformers import CLIPImageProcessorPil

    side = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    return ImageRewardModel(
        blip=model["blip"],
        head=model["head"],
        tokenizer=bert_tokenizer(),
        image_processor=CLIPImageProcessorPil(
            size={"shortest_edge": IMAGE_SIZE},
            crop_size=side,
            image_mean=[0.5] * 3,
            image_std=[0.5] * 3,
        ),
        mean=mean,
        std=std,
        max_text_tokens=MAX_LENGTH,
    )


def save(model: Any, folder: Path, mean: float = 0.0, std: float = 1.0) -> None:
    """Write fp16 weights, head, tokenizer, preprocessing, mean and deviation."""
    save_image_reward(wrap(model.half(), mean, std), folder)


def trainable(model: Any) -> Any:
    """`model` and two auxiliary heads: one reads the picture's truth from the vision feature, one
    reads picture and text from the feature that is rewarded."""
    from torch import nn

    from hoi_assets.tinyworld.weights.truth import label_names, reader

    truth = nn.Linear(WIDTH, len(label_names()))
    return nn.ModuleDict({"reward": model, "truth": truth, "reader": reader(WIDTH)})


def loss_of(model: Any, pictures: Any, recipe: Any) -> Any:
    """The loss of a step: of two pairs the one with fewer faults is preferred (Xu et al. 2023,
    eq. 1), over all couples of the batch; and the auxiliary head's."""
    import torch
    from torch.nn import functional

    from hoi_assets.engines.image_reward import reward
    from hoi_assets.tinyworld.weights.pairs import PairSampler
    from hoi_assets.tinyworld.weights.pictures import as_float, jitter
    from hoi_assets.tinyworld.weights.tokenizers import token_ids
    from hoi_assets.tinyworld.weights.truth import reader_loss, targets, truth_loss

    sampler = PairSampler(
        pictures, spoilt_share=recipe["spoilt_share"], lie_share=recipe["lie_share"]
    )
    tokenizer, truth = bert_tokenizer(), targets(pictures.rows)
    seen: dict[str, Any] = {}
    blip, head = model["reward"]["blip"], model["reward"]["head"]
    blip.vision_model.register_forward_hook(
        lambda module, inputs, output: seen.update(image=output.last_hidden_state[:, 0])
    )
    blip.text_encoder.register_forward_hook(
        lambda module, inputs, output: seen.update(joint=output.last_hidden_state[:, 0])
    )

    def loss(generator: Any) -> Any:
        pairs = sampler.sample(recipe.batch_size, generator)
        pixels = jitter(as_float(pictures.pixels[pairs.chosen]), generator)
        ids, mask = token_ids(tokenizer, pairs.texts, device=pixels.device)
        value = reward(blip, head, pixels, ids, mask).float()
        faults = torch.tensor(pairs.faults, device=value.device)
        better = faults[:, None] < faults[None, :]
        preference = functional.softplus(value[None, :] - value[:, None])[better].mean()
        read = truth_loss(model["truth"](seen["image"]), truth, pairs.chosen)
        joint = model["reader"](seen["joint"])
        read = read + reader_loss(joint, truth, pairs.chosen, pairs.claims)
        # Near zero, so that the stored mean and deviation stay small numbers.
        return preference + 0.01 * value.square().mean() + recipe["reader_weight"] * read

    return loss


def rewards(model: Any, pictures: Any, chosen: list[int], texts: list[str]) -> Any:
    """Raw rewards (N,) of pictures `chosen` under `texts`, float32."""
    import torch

    from hoi_assets.engines.image_reward import reward
    from hoi_assets.tinyworld.weights.pictures import as_float
    from hoi_assets.tinyworld.weights.tokenizers import token_ids

    ids, mask = token_ids(bert_tokenizer(), texts, device=pictures.pixels.device)
    values = []
    with torch.inference_mode():
        for start in range(0, len(chosen), 64):
            part = slice(start, start + 64)
            pixels = as_float(pictures.pixels[chosen[part]])
            values.append(reward(model["blip"], model["head"], pixels, ids[part], mask[part]))
    return torch.cat(values).cpu()


def measure(model: Any, pictures: Any, seed: int = 0, count: int = 1200) -> dict[str, float]:
    """Share of couples in the right order, by their faults; mean and deviation of the rewards."""
    import torch

    from hoi_assets.tinyworld.weights.pairs import PairSampler

    # More pairs of few pictures say nothing new.
    count = min(count, 20 * len(pictures.pixels))
    sampler = PairSampler(pictures, spoilt_share=0.4, lie_share=0.4)
    pairs = sampler.sample(count, torch.Generator().manual_seed(seed))
    value = rewards(model, pictures, pairs.chosen, pairs.texts)
    faults = torch.tensor(pairs.faults)
    right = value[:, None] > value[None, :]

    def share(fewer: Any, more: Any) -> float:
        couples = fewer[:, None] & more[None, :]
        return float(right[couples].float().mean())

    spoilt = torch.tensor(pairs.spoilt)
    lying = torch.tensor([lie is not None for lie in pairs.lies])
    return {
        "pair_accuracy": float(right[faults[:, None] < faults[None, :]].float().mean()),
        "clean_over_spoilt": share(~spoilt & ~lying, spoilt & ~lying),
        "true_over_lying": share(~spoilt & ~lying, ~spoilt & lying),
        "mean": float(value.mean()),
        "std": float(value.std()),
    }
