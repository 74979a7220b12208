"""Where the verifier sees a defect: logits of a grid of cells, read from ViLT's patch tokens.

The head is a linear layer beside the classifier, kept in a file of its own, so that the ViLT's
folder stays as transformers writes it. The fidelity logit counts what the grid shows.
"""

from pathlib import Path
from typing import Any

MAP_HEAD_FILE = "defect_map.safetensors"
# Each patch is read as 2 x 2 cells.
CELLS_PER_SIDE = 2
# Defects cover at least this share of a picture (150 px of 128 x 128).
EVIDENCE_SHARE = 0.01


def build_map_head(width: int) -> Any:
    """A fresh head for tokens of `width`: nothing is defective yet."""
    import torch
    from torch import nn

    head = nn.Linear(width, CELLS_PER_SIDE**2)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.zero_()
    return head


def cell_logits(head: Any, tokens: Any) -> Any:
    """Logits of the cells.

    Args:
        head: a linear layer of C * `CELLS_PER_SIDE`**2 outputs.
        tokens: (B, P, width) of a square of P patches, in reading order.

    Returns:
        (B, C, S, S), S = `CELLS_PER_SIDE` * sqrt(P).
    """
    from torch.nn.functional import pixel_shuffle

    side = round(tokens.shape[1] ** 0.5)
    grid = head(tokens).transpose(1, 2).unflatten(2, (side, side))
    return pixel_shuffle(grid, CELLS_PER_SIDE)


def evidence(cells: Any) -> Any:
    """How strongly the grid speaks of a defect: the mean of the highest 1% of its logits.

    Args:
        cells: (B, 1, S, S).

    Returns:
        (B,).
    """
    flat = cells.flatten(1)
    count = max(1, round(EVIDENCE_SHARE * flat.shape[1]))
    return flat.topk(count, dim=1).values.mean(dim=1)


def against_fidelity(logits: Any, cells: Any) -> Any:
    """Logits (B, 2) of fidelity and alignment, the `evidence` of the map taken from fidelity's."""
    import torch

    fidelity, alignment = logits.unbind(dim=1)
    return torch.stack([fidelity - evidence(cells), alignment], dim=1)


def save_map_head(head: Any, folder: Path) -> None:
    """Write the head beside a saved ViLT."""
    from safetensors.torch import save_file

    state = {name: tensor.contiguous() for name, tensor in head.state_dict().items()}
    save_file(state, folder / MAP_HEAD_FILE)


def load_map_head(folder: Path) -> Any:
    """The head in `folder`, in float32; None where there is none.

    Raises:
        SafetensorError, KeyError, RuntimeError: the file is damaged or of another shape.
    """
    from safetensors.torch import load_file

    path = folder / MAP_HEAD_FILE
    if not path.is_file():
        return None
    state = load_file(path)
    head = build_map_head(state["weight"].shape[1])
    head.load_state_dict(state)
    return head.eval()
