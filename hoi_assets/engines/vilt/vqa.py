"""Yes or no to a question about an image: ViLT for visual question answering.

The tiny one has the labels `yes` and `no` alone; of a public one, whose labels are thousands of
answers, only these two are compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from hoi_assets.engines.model_cache import Source, load_cached, move_to_device
from hoi_assets.engines.pretrained import (
    read_model,
    read_processor,
    require_files,
)
from hoi_assets.engines.vilt.verifier import BATCH_SIZE, ViltModel, forward_pairs
from hoi_assets.errors import HoiError
from hoi_assets.settings import ModelRef

YES, NO = "yes", "no"


@dataclass(frozen=True)
class VqaModel(ViltModel):
    """A loaded ViLT with the labels `yes` and `no` among its own."""

    @property
    def yes_no_indices(self) -> tuple[int, int]:
        """Indices of the logits of yes and no."""
        named = self.model.config.label2id
        return int(named[YES]), int(named[NO])


def load_vqa(source: Source, device: str = "cpu") -> VqaModel:
    """Load a ViLT for question answering from a ModelRef or folder; cached by `model_cache`.

    Raises:
        HoiError: missing or misshapen weights, or no label `yes` or `no`.
    """
    return load_cached("vqa", source, device, _load)


def _load(ref: ModelRef, device: str) -> VqaModel:
    from transformers import AutoTokenizer, ViltForQuestionAnswering, ViltImageProcessorPil

    require_files(ref, ("config.json", "model.safetensors", "tokenizer_config.json"))
    model = read_model(ViltForQuestionAnswering, ref)
    for label in (YES, NO):
        if label not in model.config.label2id:
            raise HoiError(
                f"VQA model {ref.source}: no label {label!r} in config.json's label2id",
                "name a ViLT trained for visual question answering, or retrain the tiny one by "
                "its recipe",
            )
    move_to_device([model], device)
    return VqaModel(
        model=model,
        tokenizer=read_processor(AutoTokenizer, ref),
        image_processor=read_processor(ViltImageProcessorPil, ref),
        device=device,
    )


def answers(
    vqa: VqaModel,
    images: Sequence[Image.Image],
    questions: Sequence[str],
    slots: Sequence[int] | None = None,
    batch_size: int = BATCH_SIZE,
) -> list[float]:
    """Probability (0..1) of yes against no to each question about its image.

    A question longer than the model reads is cut; `count_question_tokens` says which.

    Args:
        images: one per question; an image with two questions is given twice.
        slots: place of each question in its whole table (see `batching`); None: 0, 1, 2, ...
    """
    from scipy.special import expit

    logits = forward_pairs(vqa, images, questions, slots, batch_size)
    yes, no = vqa.yes_no_indices
    return [float(p) for p in expit(logits[:, yes] - logits[:, no])]
