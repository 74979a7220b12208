"""The tiny world's verifier base, which learns from twins: ViLT with a fidelity and an alignment
head, and a defect head."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hoi_assets.engines.vilt.defect_head import (
    CELLS_PER_SIDE,
    build_defect_head,
    cell_logits,
    defect_loss,
)
from hoi_assets.engines.vilt.verifier import HEADS, VerifierModel, save_verifier
from hoi_assets.tinyworld.scenes.vocabulary import PARTS, TWIN_DEFECTS
from hoi_assets.tinyworld.weights.tokenizers import MAX_LENGTH, bert_tokenizer
from hoi_assets.tinyworld.weights.vae import IMAGE_SIZE

# A finger is about ten pixels wide.
PATCH_SIZE = 8


@dataclass(frozen=True)
class Size:
    """Width of the features, layers, heads of attention."""

    width: int
    layers: int
    heads: int


SIZE = Size(160, 5, 5)


def build(tokenizer: Any) -> Any:
    """Fresh models by name: `vilt`, a ViltForQuestionAnswering with two labels, and `defects`, its
    defect head."""
    from torch import nn

    vilt = build_vilt(tokenizer, HEADS, SIZE, PATCH_SIZE, MAX_LENGTH)
    return nn.ModuleDict({"vilt": vilt, "defects": build_defect_head(SIZE.width, TWIN_DEFECTS)})


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


def stored(verifier: VerifierModel) -> Any:
    """The models of a stored verifier, by name; a defect head that it lacks is fresh."""
    from torch import nn

    head = verifier.defect_head or build_defect_head(SIZE.width, TWIN_DEFECTS)
    return nn.ModuleDict({"vilt": verifier.model, "defects": head})


def wrap(models: Any) -> VerifierModel:
    """`models` with tokenizer and preprocessing, as `hoi_assets.engines` takes them."""
    from transformers import ViltImageProcessorPil

    processor = ViltImageProcessorPil(size={"shortest_edge": IMAGE_SIZE}, size_divisor=PATCH_SIZE)
    return VerifierModel(
        model=models["vilt"],
        defect_head=models["defects"],
        tokenizer=bert_tokenizer(),
        image_processor=processor,
    )


def save(models: Any, folder: Path) -> None:
    """Write fp16 weights, tokenizer and preprocessing."""
    save_verifier(wrap(models.half()), folder)


def trainable(models: Any) -> Any:
    """The models, and heads that only training uses: what pooled features say of picture and text,
    and what each patch says of the hand's parts. With them the rest is learnt sooner."""
    from torch import nn

    from hoi_assets.tinyworld.weights.truth import reader

    parts = nn.Linear(SIZE.width, len(PARTS) * CELLS_PER_SIDE**2)
    return nn.ModuleDict({**models, "reader": reader(SIZE.width), "parts": parts})


def loss_of(models: Any, pictures: Any, recipe: Any) -> Any:
    """The loss of a step on twins: both heads' binary cross-entropy, that of the defect map and the
    parts, and the reader's."""
    import torch
    from torch.nn import functional

    from hoi_assets.engines.vilt.forward import pair_features, read_features
    from hoi_assets.tinyworld.weights.dense import cell_targets, part_loss
    from hoi_assets.tinyworld.weights.loop import compiled
    from hoi_assets.tinyworld.weights.pairs import TwinSampler
    from hoi_assets.tinyworld.weights.pictures import as_float, brightened, draw_moves, moved
    from hoi_assets.tinyworld.weights.tokenizers import token_ids
    from hoi_assets.tinyworld.weights.truth import reader_loss, targets

    sampler = TwinSampler(
        pictures, lie_share=recipe["lie_share"], blank_share=recipe["blank_share"]
    )
    tokenizer, truth = bert_tokenizer(), targets(pictures.rows)
    kinds = torch.tensor(
        [[float(kind in row["defects"]) for kind in TWIN_DEFECTS] for row in pictures.rows]
    )
    features = compiled(pair_features, recipe)

    def loss(generator: Any) -> Any:
        pairs = sampler.sample(recipe.batch_size, generator)
        moves = draw_moves(recipe.batch_size, generator)
        pixels = moved(as_float(pictures.pixels[pairs.chosen]), moves)
        dense = moved(pictures.dense[pairs.chosen], moves)
        ids, mask = token_ids(tokenizer, pairs.texts, device=pixels.device)
        pooled, patches = features(models["vilt"], brightened(pixels, generator), ids, mask)
        out = read_features(models["vilt"], models["defects"], pooled, patches)
        logits = out.logits.float()
        wanted = torch.tensor([not spoilt for spoilt in pairs.spoilt]).to(logits)
        fidelity = functional.binary_cross_entropy_with_logits(logits[:, 0], wanted)
        true = torch.tensor([lie is None for lie in pairs.lies]).to(logits)
        has_text = torch.tensor(pairs.has_text).to(logits)
        alignment = functional.binary_cross_entropy_with_logits(logits[:, 1], true, weight=has_text)
        read = reader_loss(models["reader"](pooled), truth, pairs.chosen, pairs.claims)
        parts = part_loss(cell_logits(models["parts"], patches), dense)
        shares = cell_targets(dense, out.cells.shape[-1])[1]
        defects = defect_loss(out.cells, out.kinds, shares, kinds[pairs.chosen].to(logits)).mean()
        return fidelity + alignment + recipe["reader_weight"] * read + parts + defects

    return loss


def measure(models: Any, pictures: Any, seed: int = 0) -> dict[str, float]:
    """AUC of fidelity between spoilt pictures and their twins, for each view and kind of defect; of
    alignment, for each kind of false claim; and how well maps point at defects.

    Args:
        pictures: twins, as `views.with_views` gives them.
    """
    import random

    import numpy as np

    from hoi_assets.tinyworld.weights.dense import map_quality
    from hoi_assets.tinyworld.weights.pairs import OTHER, TwinSampler, roc_area

    sampler = TwinSampler(pictures, lie_share=0.5)
    pairs = sampler.with_texts(list(range(len(pictures))), random.Random(seed))
    logits, cells, named = _answers(models, pictures, pairs.texts)
    whole, rows = ~np.array(pairs.spoilt), pictures.rows
    views = np.array([row["shown_as"] for row in rows])
    kinds = np.repeat([row["defects"][0] for row in rows[::2]], 2)
    found = {}
    for view in dict.fromkeys(views):
        among = views == view
        found[f"fidelity_auc_{view}"] = roc_area(whole[among], logits[among, 0])
    for kind in sorted(set(kinds)):
        among = (kinds == kind) & (views == views[0])
        found[f"{kind}_auc"] = roc_area(whole[among], logits[among, 0])
    spoilt = np.flatnonzero(~whole & (views == views[0]))
    found |= map_quality(cells[spoilt], pictures.dense[spoilt])
    found["kind_accuracy"] = float(
        np.mean([TWIN_DEFECTS[named[i]] == rows[i]["defects"][0] for i in spoilt])
    )
    lies = np.array([lie or "" for lie in pairs.lies])
    found["alignment_auc"] = roc_area(lies == "", logits[:, 1])
    for kind in sorted(set(lies) - {""}):
        among = (lies == "") | (lies == kind)
        name = "other_caption" if kind == OTHER else kind
        found[f"{name}_auc"] = roc_area(lies[among] == "", logits[among, 1])
    return found


def _answers(models: Any, pictures: Any, texts: list[str]) -> tuple[Any, Any, Any]:
    """Logits (N, 2) as an array, those of the maps (N, 1, S, S), and likeliest kinds (N,)."""
    import torch

    from hoi_assets.engines.vilt.forward import pair_outputs
    from hoi_assets.tinyworld.weights.pictures import as_float
    from hoi_assets.tinyworld.weights.tokenizers import token_ids

    ids, mask = token_ids(bert_tokenizer(), texts, device=pictures.pixels.device)
    answers = []
    with torch.inference_mode():
        for start in range(0, len(texts), 64):
            part = slice(start, start + 64)
            pixels = as_float(pictures.pixels[part])
            answers.append(
                pair_outputs(models["vilt"], models["defects"], pixels, ids[part], mask[part])
            )
    logits = torch.cat([out.logits for out in answers]).cpu().numpy()
    kinds = torch.cat([out.kinds for out in answers]).argmax(dim=1).tolist()
    return logits, torch.cat([out.cells for out in answers]), kinds
