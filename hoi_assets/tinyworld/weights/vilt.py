"""The tiny world's verifier base: ViLT with a fidelity and an alignment head."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hoi_assets.engines.vilt.verifier import HEADS, VerifierModel, save_verifier
from hoi_assets.tinyworld.weights.tokenizers import MAX_LENGTH, bert_tokenizer
from hoi_assets.tinyworld.weights.vae import IMAGE_SIZE

PATCH_SIZE = 16


@dataclass(frozen=True)
class Size:
    """Width of the features, layers, heads of attention."""

    width: int
    layers: int
    heads: int


SIZE = Size(160, 5, 5)


def build(tokenizer: Any) -> Any:
    """A fresh ViltForQuestionAnswering with two labels."""
    return build_vilt(tokenizer, HEADS, SIZE, PATCH_SIZE, MAX_LENGTH)


def build_vilt(
    tokenizer: Any, labels: Sequence[str], size: Size, patch_px: int, max_tokens: int
) -> Any:
    """A fresh ViltForQuestionAnswering for pictures of `IMAGE_SIZE`."""
    from transformers import ViltConfig, ViltForQuestionAnswering

    config = ViltConfig(
        vocab_size=len(tokenizer),
        hidden_size=size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        intermediate_size=4 * size.width,
        max_position_embeddings=max_tokens,
        image_size=IMAGE_SIZE,
        patch_size=patch_px,
        # -1: no resampling of patches, which would draw from the global generator.
        max_image_length=-1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        id2label=dict(enumerate(labels)),
        label2id={name: index for index, name in enumerate(labels)},
    )
    return ViltForQuestionAnswering(config)


def wrap(model: Any) -> VerifierModel:
    """`model` with its tokenizer and preprocessing, as `hoi_assets.engines` takes it."""
    from transformers import ViltImageProcessorPil

    processor = ViltImageProcessorPil(size={"shortest_edge": IMAGE_SIZE}, size_divisor=PATCH_SIZE)
    return VerifierModel(model=model, tokenizer=bert_tokenizer(), image_processor=processor)


def save(model: Any, folder: Path) -> None:
    """Write fp16 weights, tokenizer and preprocessing."""
    save_verifier(wrap(model.half()), folder)


def trainable(model: Any) -> Any:
    """ViLT and an auxiliary head that reads picture and text: both are learnt sooner."""
    from torch import nn

    from hoi_assets.tinyworld.weights.truth import reader

    return nn.ModuleDict({"vilt": model, "reader": reader(SIZE.width)})


def loss_of(model: Any, pictures: Any, recipe: Any) -> Any:
    """The loss of a step: both heads' binary cross-entropy, and the auxiliary head's."""
    import torch
    from torch.nn import functional

    from hoi_assets.engines.vilt.forward import pair_logits
    from hoi_assets.tinyworld.weights.pairs import PairSampler
    from hoi_assets.tinyworld.weights.pictures import as_float, jitter
    from hoi_assets.tinyworld.weights.tokenizers import token_ids
    from hoi_assets.tinyworld.weights.truth import reader_loss, targets

    sampler = PairSampler(
        pictures,
        spoilt_share=recipe["spoilt_share"],
        lie_share=recipe["lie_share"],
        blank_share=recipe["blank_share"],
    )
    tokenizer, truth = bert_tokenizer(), targets(pictures.rows)
    pooled: dict[str, Any] = {}
    model["vilt"].vilt.pooler.register_forward_hook(
        lambda module, inputs, output: pooled.update(now=output)
    )

    def loss(generator: Any) -> Any:
        pairs = sampler.sample(recipe.batch_size, generator)
        pixels = jitter(as_float(pictures.pixels[pairs.chosen]), generator)
        ids, mask = token_ids(tokenizer, pairs.texts, device=pixels.device)
        logits = pair_logits(model["vilt"], pixels, ids, mask).float()
        wanted = torch.tensor([not spoilt for spoilt in pairs.spoilt]).to(logits)
        fidelity = functional.binary_cross_entropy_with_logits(logits[:, 0], wanted)
        true = torch.tensor([lie is None for lie in pairs.lies]).to(logits)
        has_text = torch.tensor(pairs.has_text).to(logits)
        alignment = functional.binary_cross_entropy_with_logits(logits[:, 1], true, weight=has_text)
        read = reader_loss(model["reader"](pooled["now"]), truth, pairs.chosen, pairs.claims)
        return fidelity + alignment + recipe["reader_weight"] * read

    return loss


def measure(model: Any, pictures: Any, seed: int = 0, count: int = 1200) -> dict[str, float]:
    """AUC of both heads on `count` pairs, and alignment's for each kind of false claim."""
    import numpy as np
    import torch

    from hoi_assets.engines.vilt.forward import pair_logits
    from hoi_assets.tinyworld.weights.pairs import OTHER, PairSampler, roc_area
    from hoi_assets.tinyworld.weights.pictures import as_float
    from hoi_assets.tinyworld.weights.tokenizers import token_ids

    # More pairs of few pictures say nothing new.
    count = min(count, 20 * len(pictures.pixels))
    sampler = PairSampler(pictures, spoilt_share=0.4, lie_share=0.5)
    pairs = sampler.sample(count, torch.Generator().manual_seed(seed))
    ids, mask = token_ids(bert_tokenizer(), pairs.texts, device=pictures.pixels.device)
    rows = []
    with torch.inference_mode():
        for start in range(0, count, 64):
            part = slice(start, start + 64)
            pixels = as_float(pictures.pixels[pairs.chosen[part]])
            rows.append(pair_logits(model, pixels, ids[part], mask[part]))
    logits = torch.cat(rows).cpu().numpy()
    lies = np.array([lie or "" for lie in pairs.lies])
    found = {
        "fidelity_auc": roc_area([not spoilt for spoilt in pairs.spoilt], logits[:, 0]),
        "alignment_auc": roc_area(lies == "", logits[:, 1]),
    }
    for kind in sorted(set(lies) - {""}):
        among = (lies == "") | (lies == kind)
        name = "other_caption" if kind == OTHER else kind
        found[f"{name}_auc"] = roc_area(lies[among] == "", logits[among, 1])
    return found
