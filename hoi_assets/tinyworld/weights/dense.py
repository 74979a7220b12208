"""Dense truth of twins: which part each pixel shows, and where the picture is spoilt. Judges that
learn where learn sooner than from one bit a picture."""

from typing import Any

from hoi_assets.tinyworld.scenes.vocabulary import PARTS


def cell_targets(dense: Any, cells: int) -> tuple[Any, Any]:
    """Truth of a grid of cells from that of pixels.

    Args:
        dense: uint8 (B, 2, H, W) of `Pictures.dense`.
        cells: cells a side, a divisor of H and W.

    Returns:
        Share of each part in each cell, float (B, parts, S, S); share of defective pixels, float
        (B, 1, S, S).
    """
    from torch.nn import functional

    size = dense.shape[-1] // cells
    parts = functional.one_hot(dense[:, 0].long(), len(PARTS)).permute(0, 3, 1, 2).float()
    return functional.avg_pool2d(parts, size), functional.avg_pool2d(dense[:, 1:].float(), size)


def part_loss(parts: Any, dense: Any) -> Any:
    """Cross-entropy of part logits (B, parts, S, S) against the cells of uint8 (B, 2, H, W)."""
    from torch.nn.functional import cross_entropy

    return cross_entropy(parts.float(), cell_targets(dense, parts.shape[-1])[0])


def map_quality(defects: Any, dense: Any) -> dict[str, float]:
    """How well maps of spoilt pictures point at the defect.

    Args:
        defects: logits (N, 1, S, S); dense: uint8 (N, 2, H, W), spoilt pictures only.

    Returns:
        Share of pictures whose strongest cell lies in the defect; mean overlap (intersection over
        union, threshold 0).
    """
    spoilt = cell_targets(dense, defects.shape[-1])[1].flatten(1)
    found = defects.flatten(1)
    strongest = spoilt.gather(1, found.argmax(dim=1, keepdim=True))
    said, true = found > 0, spoilt >= 0.5
    union = (said | true).sum(dim=1).clamp_min(1)
    return {
        "map_points_right": float((strongest > 0).float().mean()),
        "map_overlap": float(((said & true).sum(dim=1) / union).mean()),
    }
