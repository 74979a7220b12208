"""Where a VQA model looked when it answered no: gradient times input, patch by patch.

It says what the answer rests on (arXiv 1312.6034), not where a thing is missing: read it as a hint.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from hoi_assets.engines.batching import map_fixed
from hoi_assets.engines.pair_inputs import text_inputs
from hoi_assets.engines.vilt.verifier import BATCH_SIZE, pixel_values
from hoi_assets.engines.vilt.vqa import VqaModel

RELEVANCE_VERSION = "1"  # part of every map's key: raise it when the numbers change


def relevance_of_no(
    vqa: VqaModel, images: Sequence[Image.Image], questions: Sequence[str]
) -> np.ndarray:
    """How much each patch speaks for no rather than yes.

    Args:
        images: one per question.

    Returns:
        (N, S, S) in 0..1, 1 at the strongest patch; all 0 where no patch speaks for no. S is the
        number of patches on a side.
    """
    import torch

    yes, no = vqa.yes_no_indices
    side = int(vqa.model.config.patch_size)

    def compute(items: list[int]) -> np.ndarray:
        pixels = pixel_values(vqa, [images[item] for item in items]).to(vqa.device)
        pixels.requires_grad_(True)
        with torch.enable_grad():
            words = text_inputs(vqa, [questions[item] for item in items])
            logits = vqa.outputs(pixels, **words).logits
            (slope,) = torch.autograd.grad((logits[:, no] - logits[:, yes]).sum(), pixels)
        share = (slope * pixels).detach().float().sum(dim=1, keepdim=True)
        cells = torch.nn.functional.avg_pool2d(share, side)[:, 0].clamp(min=0)
        top = cells.flatten(1).amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny)
        return (cells / top[:, None, None]).cpu().numpy()

    return map_fixed(len(questions), BATCH_SIZE, compute)
