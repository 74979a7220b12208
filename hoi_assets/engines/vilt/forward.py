"""ViLT's forward pass, differentiable and without its random patch order."""

from dataclasses import dataclass
from typing import Any

from hoi_assets.engines.vilt.defect_head import against_fidelity, cell_logits


@dataclass(frozen=True)
class PairOutputs:
    """What a ViLT says of pairs, as tensors.

    Attributes:
        logits: (B, labels); of a verifier fidelity, alignment.
        cells: logits (B, 1, S, S) of the defect map; None without a defect head.
        kinds: logits (B, K) of the kinds of defect; None without a defect head.
    """

    logits: Any
    cells: Any = None
    kinds: Any = None


def pair_outputs(
    model: Any, defect_head: Any, pixel_values: Any, input_ids: Any, attention_mask: Any
) -> PairOutputs:
    """What the model says of prepared pairs; the evidence of the map is taken from fidelity.

    Args:
        model: ViltForQuestionAnswering.
        defect_head: see `defect_head`; None: no map.
        pixel_values: (B, 3, S, S) with S = `config.image_size`.
    """
    pooled, patches = pair_features(model, pixel_values, input_ids, attention_mask)
    return read_features(model, defect_head, pooled, patches)


def read_features(model: Any, defect_head: Any, pooled: Any, patches: Any) -> PairOutputs:
    """What the heads read from the features of `pair_features`."""
    logits = model.classifier(pooled)
    if defect_head is None:
        return PairOutputs(logits)
    cells = cell_logits(defect_head["map"], patches)
    return PairOutputs(against_fidelity(logits, cells), cells, defect_head["kinds"](pooled))


def pair_logits(model: Any, pixel_values: Any, input_ids: Any, attention_mask: Any) -> Any:
    """Logits (B, labels) of prepared pairs by a ViLT without a defect head."""
    return pair_outputs(model, None, pixel_values, input_ids, attention_mask).logits


def pair_features(
    model: Any, pixel_values: Any, input_ids: Any, attention_mask: Any
) -> tuple[Any, Any]:
    """Features of prepared pairs.

    transformers' ViLT shuffles the patches by the global generator, in eval mode too. The patch
    embeddings are therefore made here, in reading order, and handed over as `image_embeds`.

    Returns:
        Pooled features (B, width), and those of the patches (B, P, width) in reading order.
    """
    import torch

    embeddings = model.vilt.embeddings
    patches = embeddings.patch_embeddings(pixel_values).flatten(2).transpose(1, 2)
    start = embeddings.cls_token.expand(len(patches), -1, -1)
    image_embeds = torch.cat([start, patches], dim=1) + embeddings.position_embeddings
    image_embeds = embeddings.dropout(image_embeds)
    everywhere = torch.ones(image_embeds.shape[:2], dtype=torch.long, device=image_embeds.device)
    out = model.vilt(
        input_ids=input_ids,
        attention_mask=attention_mask,
        image_embeds=image_embeds,
        pixel_mask=everywhere,
    )
    return out.pooler_output, out.last_hidden_state[:, -patches.shape[1] :]
