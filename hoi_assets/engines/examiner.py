"""The examiner: what an image of the tiny world really shows. Used for reports, never to select.

A multi-label ResNet whose labels are `pose:<category>`, `object:<name>`, `colour:<name>`,
`side:<left|right|both>`, `defect:<name>` and `clean`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from hoi_assets.engines.batching import map_fixed
from hoi_assets.engines.model_cache import Source, load_cached, move_to_device
from hoi_assets.engines.pretrained import (
    content_digest,
    processor_facts,
    read_model,
    read_processor,
    require_files,
)
from hoi_assets.errors import HoiError
from hoi_assets.settings import ModelRef

BATCH_SIZE = 32
READ_BY_ARGMAX = ("pose", "object", "colour", "side")
DEFECT = "defect:"
CLEAN = "clean"
PRESENT = 0.5


@dataclass(frozen=True)
class ExaminerModel:
    """A loaded examiner; `labels` in the order of the logits."""

    model: Any
    image_processor: Any
    labels: tuple[str, ...]
    device: str = "cpu"

    @property
    def modules(self) -> tuple[Any, ...]:
        """The weights, as the model cache counts them."""
        return (self.model,)

    @cached_property
    def digest(self) -> str:
        """Hash of weights, labels and preprocessing."""
        facts = {"labels": self.labels, "image": processor_facts(self.image_processor)}
        return content_digest(self.model.state_dict(), facts)


@dataclass(frozen=True)
class Examination:
    """What an image shows. `probabilities`: of every label, 0..1."""

    pose: str
    object: str
    colour: str
    side: str
    defects: tuple[str, ...]
    clean: bool
    probabilities: dict[str, float]


def load_examiner(source: Source, device: str = "cpu") -> ExaminerModel:
    """Load an examiner from a ModelRef or folder; cached by `model_cache`.

    Raises:
        HoiError: missing or misshapen weights, or labels without one of the prefixes.
    """
    return load_cached("examiner", source, device, _load)


def _load(ref: ModelRef, device: str) -> ExaminerModel:
    from transformers import ResNetForImageClassification, ViTImageProcessorPil

    require_files(ref, ("config.json", "model.safetensors"))
    model = read_model(ResNetForImageClassification, ref)
    named = model.config.id2label
    labels = tuple(named[number] for number in range(len(named)))
    for wanted in (*(f"{prefix}:" for prefix in READ_BY_ARGMAX), CLEAN):
        if not any(label.startswith(wanted) for label in labels):
            raise HoiError(
                f"examiner {ref.source}: no label {wanted!r} in config.json's id2label",
                "name the examiner's own folder, or retrain it by its recipe",
            )
    move_to_device([model], device)
    return ExaminerModel(
        model=model,
        image_processor=read_processor(ViTImageProcessorPil, ref),
        labels=labels,
        device=device,
    )


def examine(
    examiner: ExaminerModel,
    images: Sequence[Image.Image],
    slots: Sequence[int] | None = None,
    batch_size: int = BATCH_SIZE,
) -> list[Examination]:
    """Examine images: the likeliest label of each kind; defects and `clean` from 0.5 up.

    Args:
        slots: place of each image in its whole table (see `batching`).
    """
    import torch

    def compute(items: list[int]) -> np.ndarray:
        pictures = [images[item].convert("RGB") for item in items]
        pixels = examiner.image_processor(pictures, return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            logits = examiner.model(pixels.to(examiner.device, examiner.model.dtype)).logits
        return logits.double().sigmoid().cpu().numpy()

    rows = map_fixed(len(images), batch_size, compute, slots)
    return [_truth(dict(zip(examiner.labels, map(float, row), strict=True))) for row in rows]


def _truth(probabilities: dict[str, float]) -> Examination:
    likeliest = {}
    for prefix in READ_BY_ARGMAX:
        own = [label for label in probabilities if label.startswith(f"{prefix}:")]
        likeliest[prefix] = max(own, key=probabilities.__getitem__).removeprefix(f"{prefix}:")
    return Examination(
        **likeliest,
        defects=tuple(
            label.removeprefix(DEFECT)
            for label, p in probabilities.items()
            if label.startswith(DEFECT) and p >= PRESENT
        ),
        clean=probabilities[CLEAN] >= PRESENT,
        probabilities=probabilities,
    )


def agrees(truth: Examination, slots: Mapping[str, Any]) -> dict[str, bool]:
    """Which slots of a prompt its image shows correctly.

    Args:
        slots: the prompt's `category` (or `pose`), `object`, `colour`, `side`; a slot that is
            None or absent is not asked for and not answered.

    Returns:
        By kind (pose, object, colour, side) whether it is as asked; and `defect_free`.
    """
    asked = {**slots, "pose": slots.get("pose") or slots.get("category")}
    right = {
        kind: getattr(truth, kind) == asked[kind] for kind in READ_BY_ARGMAX if asked.get(kind)
    }
    return {**right, "defect_free": truth.clean}
