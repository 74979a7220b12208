"""ImageReward computed from its published weight names, without transformers.

A second opinion for the tests: a pre-norm ViT, a BERT with cross-attention and a linear head, from
their papers, over a plain mapping of weights.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, linear, unfold

Weights = Mapping[str, Tensor]


def score(
    weights: Weights,
    pixels: Tensor,
    ids: Tensor,
    mask: Tensor,
    *,
    heads: tuple[int, int],
    mean: float,
    std: float,
) -> Tensor:
    """Scores (B,) of pixels (B, 3, S, S) and texts; `heads` of vision and text."""
    image = _vision(weights, "blip.visual_encoder.", pixels, heads[0])
    x = _text(weights, "blip.text_encoder.", ids, mask, image, heads[1])[:, 0]
    for number in (0, 2, 4, 6, 7):
        x = _linear(weights, f"mlp.layers.{number}", x)
    return (x[:, 0] - mean) / std


def _linear(w: Weights, name: str, x: Tensor) -> Tensor:
    return linear(x, w[f"{name}.weight"], w[f"{name}.bias"])


def _norm(w: Weights, name: str, x: Tensor, eps: float) -> Tensor:
    return layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], eps)


def _attend(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """Attention head by head; mask (B, keys) is 1 where a key may be seen."""
    out = []
    for q1, k1, v1 in zip(*(x.split(x.shape[-1] // heads, dim=-1) for x in (q, k, v)), strict=True):
        logits = q1 @ k1.mT / q1.shape[-1] ** 0.5
        if mask is not None:
            logits = logits.masked_fill(mask[:, None, :] == 0, float("-inf"))
        out.append(logits.softmax(dim=-1) @ v1)
    return torch.cat(out, dim=-1)


def _vision(w: Weights, prefix: str, pixels: Tensor, heads: int) -> Tensor:
    kernel = w[f"{prefix}patch_embed.proj.weight"]
    size = kernel.shape[-1]
    patches = unfold(pixels, size, stride=size).mT @ kernel.flatten(1).T
    patches = patches + w[f"{prefix}patch_embed.proj.bias"]
    first = w[f"{prefix}cls_token"].expand(len(pixels), -1, -1)
    x = torch.cat([first, patches], dim=1) + w[f"{prefix}pos_embed"]
    number = 0
    while f"{prefix}blocks.{number}.norm1.weight" in w:
        block = f"{prefix}blocks.{number}."
        q, k, v = _linear(w, f"{block}attn.qkv", _norm(w, f"{block}norm1", x, 1e-6)).chunk(3, -1)
        x = x + _linear(w, f"{block}attn.proj", _attend(q, k, v, heads))
        inner = gelu(_linear(w, f"{block}mlp.fc1", _norm(w, f"{block}norm2", x, 1e-6)))
        x = x + _linear(w, f"{block}mlp.fc2", inner)
        number += 1
    return _norm(w, f"{prefix}norm", x, 1e-6)


def _text(w: Weights, prefix: str, ids: Tensor, mask: Tensor, image: Tensor, heads: int) -> Tensor:
    x = w[f"{prefix}embeddings.word_embeddings.weight"][ids]
    x = x + w[f"{prefix}embeddings.position_embeddings.weight"][: ids.shape[1]]
    x = _norm(w, f"{prefix}embeddings.LayerNorm", x, 1e-12)
    number = 0
    while f"{prefix}encoder.layer.{number}.output.dense.weight" in w:
        layer = f"{prefix}encoder.layer.{number}."
        for part, seen, seen_mask in (("attention", None, mask), ("crossattention", image, None)):
            keys = x if seen is None else seen
            q = _linear(w, f"{layer}{part}.self.query", x)
            k = _linear(w, f"{layer}{part}.self.key", keys)
            v = _linear(w, f"{layer}{part}.self.value", keys)
            found = _linear(w, f"{layer}{part}.output.dense", _attend(q, k, v, heads, seen_mask))
            x = _norm(w, f"{layer}{part}.output.LayerNorm", found + x, 1e-12)
        inner = gelu(_linear(w, f"{layer}intermediate.dense", x))
        found = _linear(w, f"{layer}output.dense", inner)
        x = _norm(w, f"{layer}output.LayerNorm", found + x, 1e-12)
        number += 1
    return x
