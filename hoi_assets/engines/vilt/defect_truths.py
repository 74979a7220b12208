"""What is known of the defects of labelled pairs, as the defect head learns it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hoi_assets.engines.vilt.defect_head import CELLS_PER_SIDE, defect_loss
from hoi_assets.engines.vilt.forward import PairOutputs

if TYPE_CHECKING:
    from hoi_assets.engines.vilt.training import LabelledPair
    from hoi_assets.engines.vilt.verifier import VerifierModel


class DefectTruths:
    """Truth of the pairs whose defects are known: those free of defects, and those with a map."""

    def __init__(self, pairs: "Sequence[LabelledPair]", verifier: "VerifierModel") -> None:
        self.pairs, self.verifier = pairs, verifier
        self._shares: dict[int, Any] = {}

    def loss(self, out: PairOutputs, rows: Sequence[int]) -> Any:
        """Mean loss of the head over the pairs at `rows`; None where there is no head, or nothing
        is known of any of them."""
        import torch

        pairs = [self.pairs[row] for row in rows]
        known = [place for place, pair in enumerate(pairs) if pair.fidelity or pair.open_map]
        if self.verifier.defect_head is None or not known:
            return None
        device = self.verifier.device
        names = self.verifier.defect_head.kind_names
        shares = torch.stack([self._share(rows[place]) for place in known]).to(device)
        kinds = [[float(name in pairs[place].defects) for name in names] for place in known]
        truth = torch.tensor(kinds, device=device)
        return defect_loss(out.cells[known], out.kinds[known], shares, truth).mean()

    def _share(self, row: int) -> Any:
        """Share (1, S, S) of each cell that is defective."""
        import numpy as np
        import torch
        from PIL import Image

        if row in self._shares:
            return self._shares[row]
        config = self.verifier.model.config
        side = CELLS_PER_SIDE * int(config.image_size) // int(config.patch_size)
        shares: Any = np.zeros((side, side), np.float32)
        pair = self.pairs[row]
        if not pair.fidelity and pair.open_map is not None:
            drawn = pair.open_map().convert("L").resize((side, side), Image.Resampling.BOX)
            shares = np.asarray(drawn, dtype=np.float32) / 255
        self._shares[row] = torch.from_numpy(shares)[None]
        return self._shares[row]
