"""ViLT's forward pass, differentiable and without its random patch order."""

from typing import Any

from hoi_assets.engines.vilt.defect_map import against_fidelity, cell_logits


def pair_logits(model: Any, pixel_values: Any, input_ids: Any, attention_mask: Any) -> Any:
    """Differentiable logits of pairs; see `pair_features`.

    Returns:
        Logits (B, labels).
    """
    return model.classifier(pair_features(model, pixel_values, input_ids, attention_mask)[0])


def verifier_outputs(
    model: Any, map_head: Any, pixel_values: Any, input_ids: Any, attention_mask: Any
) -> tuple[Any, Any]:
    """Logits (B, 2) of fidelity and alignment, and of the defect map (B, 1, S, S); differentiable.

    The evidence of the map is taken from the fidelity logit.
    """
    pooled, patches = pair_features(model, pixel_values, input_ids, attention_mask)
    cells = cell_logits(map_head, patches)
    return against_fidelity(model.classifier(pooled), cells), cells


def pair_features(
    model: Any, pixel_values: Any, input_ids: Any, attention_mask: Any
) -> tuple[Any, Any]:
    """Differentiable forward of ViLT without its random patch order.

    transformers' ViLT shuffles the patches by the global generator, in eval mode too. The patch
    embeddings are therefore made here, in reading order, and handed over as `image_embeds`.

    Args:
        model: ViltForQuestionAnswering.
        pixel_values: (B, 3, S, S) with S = `config.image_size`.

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
