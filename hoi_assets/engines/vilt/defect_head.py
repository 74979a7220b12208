"""Where the verifier sees a defect, and of which kind: linear layers on ViLT's features.

They stand beside the classifier, in a file of their own, so that the ViLT's folder stays as
transformers writes it. The fidelity logit counts what the map shows.
"""

import json
from pathlib import Path
from typing import Any

DEFECT_HEAD_FILE = "defects.safetensors"
# Each patch is read as 2 x 2 cells.
CELLS_PER_SIDE = 2
# Defects cover at least this share of a picture (150 px of 128 x 128).
EVIDENCE_SHARE = 0.01
MAP_WEIGHT, KIND_WEIGHT = 2.0, 4.0
# Few cells are defective.
DEFECTIVE_WEIGHT = 3.0


def build_defect_head(width: int, kinds: tuple[str, ...]) -> Any:
    """A fresh head for features of `width`: no defect anywhere yet.

    Returns:
        A ModuleDict of `map` and `kinds`; `kind_names` is an attribute.
    """
    import torch
    from torch import nn

    # A head that is built to be filled leaves the random state as it was.
    layers = {"map": CELLS_PER_SIDE**2, "kinds": len(kinds)}
    head = nn.ModuleDict(
        {name: nn.utils.skip_init(nn.Linear, width, size) for name, size in layers.items()}
    )
    head.kind_names = kinds
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.zero_()
    return head


def cell_logits(layer: Any, patches: Any) -> Any:
    """Logits of the cells.

    Args:
        layer: linear, of C * `CELLS_PER_SIDE`**2 outputs.
        patches: features (B, P, width) of a square of P patches, in reading order.

    Returns:
        (B, C, S, S), S = `CELLS_PER_SIDE` * sqrt(P).
    """
    from torch.nn.functional import pixel_shuffle

    side = round(patches.shape[1] ** 0.5)
    grid = layer(patches).transpose(1, 2).unflatten(2, (side, side))
    return pixel_shuffle(grid, CELLS_PER_SIDE)


def evidence(cells: Any) -> Any:
    """How strongly the map speaks of a defect: the mean of the highest 1% of its logits.

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


def defect_loss(cells: Any, kinds: Any, shares: Any, true_kinds: Any) -> Any:
    """The loss (B,) of what the head says of pairs whose defects are known.

    Args:
        cells: logits (B, 1, S, S); shares: true share (B, 1, S, S) of each cell that is defective.
        kinds: logits (B, K); true_kinds: 1 for each kind that is there, else 0, (B, K).
    """
    from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

    weights = 1 + (DEFECTIVE_WEIGHT - 1) * shares
    where = cross_entropy(cells.float(), shares, weight=weights, reduction="none").mean((1, 2, 3))
    which = cross_entropy(kinds.float(), true_kinds, reduction="none").mean(dim=1)
    return MAP_WEIGHT * where + KIND_WEIGHT * which


def head_weights(head: Any) -> dict[str, Any]:
    """The head's tensors by name; the names of the kinds are part of the names."""
    kinds = "|".join(head.kind_names)
    return {f"defects({kinds}).{name}": tensor for name, tensor in head.state_dict().items()}


def save_defect_head(head: Any, folder: Path) -> None:
    """Write the head beside a saved ViLT."""
    from safetensors.torch import save_file

    state = {name: tensor.contiguous() for name, tensor in head.state_dict().items()}
    save_file(state, folder / DEFECT_HEAD_FILE, {"kinds": json.dumps(head.kind_names)})


def load_defect_head(folder: Path) -> Any:
    """The head in `folder`; None where there is none.

    Raises:
        SafetensorError, KeyError, ValueError, RuntimeError: damaged, or of another shape.
    """
    from safetensors import safe_open

    path = folder / DEFECT_HEAD_FILE
    if not path.is_file():
        return None
    with safe_open(path, "pt") as file:
        kinds = tuple(json.loads((file.metadata() or {})["kinds"]))
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    head = build_defect_head(state["map.weight"].shape[1], kinds)
    head.load_state_dict(state)
    return head.eval()
