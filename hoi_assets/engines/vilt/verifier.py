"""The verifier: ViLT with two heads, fidelity and alignment; loading, saving, scoring, verdicts.

Fidelity: the image is free of defects. Alignment: the image agrees with the caption.
Training is in `training`, thresholds and calibration in `calibration`.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from hoi_assets.engines.batching import map_fixed
from hoi_assets.engines.model_cache import Source, load_cached, move_to_device
from hoi_assets.engines.pair_inputs import longer_than, require_pairs, text_inputs
from hoi_assets.engines.pretrained import (
    content_digest,
    load_error,
    processor_facts,
    read_model,
    read_processor,
    require_files,
    tokenizer_facts,
)
from hoi_assets.engines.vilt.defect_map import MAP_HEAD_FILE, load_map_head, save_map_head
from hoi_assets.engines.vilt.forward import pair_logits, verifier_outputs
from hoi_assets.errors import HoiError
from hoi_assets.hashing import digest
from hoi_assets.settings import ModelRef

HEADS = ("fidelity", "alignment")
BATCH_SIZE = 32
VERIFIER_FILE = "verifier.json"

LOW_FIDELITY = "low_fidelity"
LOW_ALIGNMENT = "low_alignment"
BOTH = "low_fidelity_and_alignment"
REASONS = (LOW_FIDELITY, LOW_ALIGNMENT, BOTH)


@dataclass(frozen=True)
class Thresholds:
    """Lowest probabilities at which a pair is accepted, and how they were chosen.

    `precision` is the share of truly good pairs among the accepted ones of the validation split,
    `recall` the share of good pairs accepted there; None where nothing was accepted (or is good).
    `idle_head` did not distinguish good from bad there: its threshold is 0, and only the other
    head's label counts for precision and recall.
    """

    fidelity: float = 0.5
    alignment: float = 0.5
    target_precision: float | None = None
    target_met: bool | None = None
    precision: float | None = None
    recall: float | None = None
    accepted: int = 0
    pairs: int = 0
    idle_head: str | None = None


@dataclass(frozen=True)
class ViltModel:
    """A loaded ViLT with what prepares its texts and images."""

    model: Any
    tokenizer: Any
    image_processor: Any
    device: str = "cpu"

    @property
    def modules(self) -> tuple[Any, ...]:
        """The weights, as the model cache counts them."""
        return (self.model,)

    @property
    def max_text_tokens(self) -> int:
        """Texts are padded to this many tokens and cut beyond."""
        return min(
            int(self.tokenizer.model_max_length), int(self.model.config.max_position_embeddings)
        )

    def facts(self) -> dict[str, Any]:
        """What determines an answer besides the weights (JSON-able)."""
        return {
            "tokenizer": tokenizer_facts(self.tokenizer),
            "image": processor_facts(self.image_processor),
        }

    def weights(self) -> dict[str, Any]:
        """Every tensor by name."""
        return dict(self.model.state_dict())

    def outputs(self, pixel_values: Any, **words: Any) -> tuple[Any, Any]:
        """Logits (B, labels) of prepared pairs, and the defect map's logits (B, 1, S, S) of a
        verifier that has one, else None; differentiable."""
        return pair_logits(self.model, pixel_values, **words), None

    @cached_property
    def digest(self) -> str:
        """Hash of weights, tokenizer, preprocessing and the other facts (64 hex digits)."""
        return content_digest(self.weights(), self.facts())


@dataclass(frozen=True)
class VerifierModel(ViltModel):
    """A loaded verifier.

    Attributes:
        temperature: divides the logits of (fidelity, alignment).
        map_head: reads the defect map from the patches (`defect_map`); None: no map.
    """

    map_head: Any = None
    temperature: tuple[float, float] = (1.0, 1.0)
    thresholds: Thresholds = field(default_factory=Thresholds)

    @property
    def modules(self) -> tuple[Any, ...]:
        """The map's head too."""
        return (self.model,) if self.map_head is None else (self.model, self.map_head)

    def weights(self) -> dict[str, Any]:
        """The map's head too."""
        if self.map_head is None:
            return super().weights()
        head = {f"defect_map.{name}": t for name, t in self.map_head.state_dict().items()}
        return {**super().weights(), **head}

    def outputs(self, pixel_values: Any, **words: Any) -> tuple[Any, Any]:
        """With a map, what it shows counts against fidelity."""
        if self.map_head is None:
            return super().outputs(pixel_values, **words)
        return verifier_outputs(self.model, self.map_head, pixel_values, **words)

    def facts(self) -> dict[str, Any]:
        """Temperature and thresholds too."""
        return {
            **super().facts(),
            "temperature": self.temperature,
            "thresholds": asdict(self.thresholds),
        }


@dataclass(frozen=True)
class PairVerdict:
    """`reason` is None when accepted, else one of REASONS."""

    status: Literal["accepted", "rejected"]
    reason: str | None


def load_verifier(source: Source, device: str = "cpu") -> VerifierModel:
    """Load a verifier from a ModelRef or folder; cached by `model_cache`.

    A hub ViLT without the two heads gets fresh ones, drawn with seed 0. A folder without
    `verifier.json` is uncalibrated: temperature 1, thresholds 0.5.

    Raises:
        HoiError: missing files, weights of another shape, or not two labels.
    """
    return load_cached("verifier", source, device, _load)


def _load(ref: ModelRef, device: str) -> VerifierModel:
    from transformers import AutoTokenizer, ViltForQuestionAnswering, ViltImageProcessorPil

    require_files(ref, ("config.json", "model.safetensors", "tokenizer_config.json"))
    model = read_model(
        ViltForQuestionAnswering,
        ref,
        # A hub model is pretrained without our heads; a folder must have them.
        allow_missing=() if ref.folder else ("classifier.",),
        **({} if ref.folder else {"id2label": dict(enumerate(HEADS)), "num_labels": 2}),
    )
    if model.config.num_labels != len(HEADS):
        raise HoiError(
            f"verifier {ref.source}: {model.config.num_labels} labels, wanted 2 {HEADS}",
            "name a ViLT saved with num_labels=2",
        )
    map_head = _map_head_of(ref)
    move_to_device([model] if map_head is None else [model, map_head], device)
    verifier = VerifierModel(
        model=model,
        map_head=map_head,
        tokenizer=read_processor(AutoTokenizer, ref),
        image_processor=read_processor(ViltImageProcessorPil, ref),
        device=device,
    )
    path = ref.folder / VERIFIER_FILE if ref.folder else None
    if path is None or not path.is_file():
        return verifier
    return _with_facts(verifier, json.loads(path.read_text(encoding="utf-8")))


def _map_head_of(ref: ModelRef) -> Any:
    from safetensors import SafetensorError

    try:
        return load_map_head(ref.folder) if ref.folder else None
    except (SafetensorError, KeyError, RuntimeError) as error:
        raise load_error(MAP_HEAD_FILE, ref, str(error)) from error


def _with_facts(verifier: VerifierModel, facts: dict[str, Any]) -> VerifierModel:
    fidelity, alignment = facts["temperature"]
    return replace(
        verifier,
        temperature=(fidelity, alignment),
        thresholds=Thresholds(**facts["thresholds"]),
    )


def save_verifier(verifier: VerifierModel, folder: Path) -> Path:
    """Write weights (safetensors), config, tokenizer, preprocessing and `verifier.json`.

    `load_verifier(folder)` gives a verifier of the same digest.
    """
    folder.mkdir(parents=True, exist_ok=True)
    verifier.model.save_pretrained(folder)
    verifier.tokenizer.save_pretrained(folder)
    verifier.image_processor.save_pretrained(folder)
    if verifier.map_head is not None:
        save_map_head(verifier.map_head, folder)
    facts = {"temperature": verifier.temperature, "thresholds": asdict(verifier.thresholds)}
    text = json.dumps(facts, indent=2, sort_keys=True) + "\n"
    (folder / VERIFIER_FILE).write_text(text, encoding="utf-8")
    return folder


def pixel_values(vilt: ViltModel, images: Sequence[Image.Image]) -> Any:
    """Images as the model sees them.

    Args:
        images: of any size; resized to the model's square, aspect ratio not preserved.

    Returns:
        float32 tensor (N, 3, S, S) on the CPU, S = `config.image_size`.
    """
    side = int(vilt.model.config.image_size)
    squares = [_square(image, side) for image in images]
    return vilt.image_processor(
        squares,
        size={"shortest_edge": side},
        size_divisor=int(vilt.model.config.patch_size),
        return_tensors="pt",
    )["pixel_values"]


def _square(image: Image.Image, side: int) -> Image.Image:
    image = image.convert("RGB")
    if image.width == image.height:
        return image
    return image.resize((side, side), Image.Resampling.BICUBIC)


def truncated(vilt: ViltModel, texts: Sequence[str]) -> list[int]:
    """Indices of the texts that are longer than the model reads."""
    return longer_than(vilt.tokenizer, texts, vilt.max_text_tokens)


def forward_pairs(
    vilt: ViltModel,
    images: Sequence[Image.Image],
    texts: Sequence[str],
    slots: Sequence[int] | None = None,
    batch_size: int = BATCH_SIZE,
) -> np.ndarray:
    """Raw logits of pairs, independent of what else is scored and of any random generator.

    Args:
        images: a sequence; read one batch at a time.
        slots: place of each pair in its whole table (see `batching`); None: 0, 1, 2, ...

    Returns:
        float64 array (N, labels); of a verifier fidelity, alignment, before temperature.
    """
    import torch

    def compute(items: list[int]) -> np.ndarray:
        words = text_inputs(vilt, [texts[item] for item in items])
        with torch.inference_mode():
            pixels = pixel_values(vilt, [images[item] for item in items])
            logits, _ = vilt.outputs(pixels.to(vilt.device), **words)
        return logits.double().cpu().numpy()

    require_pairs(images, texts)
    return map_fixed(len(texts), batch_size, compute, slots).reshape(
        -1, vilt.model.config.num_labels
    )


def probabilities(logits: np.ndarray, temperature: tuple[float, float] = (1.0, 1.0)) -> np.ndarray:
    """Calibrated probabilities (N, 2) in 0..1 of logits (N, 2)."""
    from scipy.special import expit

    return expit(logits / np.asarray(temperature))


def score_pairs(
    verifier: VerifierModel,
    images: Sequence[Image.Image],
    texts: Sequence[str],
    slots: Sequence[int] | None = None,
) -> np.ndarray:
    """Calibrated probabilities (N, 2): fidelity, alignment. See `forward_pairs`."""
    return probabilities(forward_pairs(verifier, images, texts, slots), verifier.temperature)


def decide(p_fidelity: float, p_alignment: float, thresholds: Thresholds) -> PairVerdict:
    """Accept a pair when both probabilities reach their thresholds.

    >>> decide(0.9, 0.2, Thresholds(0.5, 0.5))
    PairVerdict(status='rejected', reason='low_alignment')
    """
    faithful = p_fidelity >= thresholds.fidelity
    aligned = p_alignment >= thresholds.alignment
    if faithful and aligned:
        return PairVerdict("accepted", None)
    return PairVerdict("rejected", LOW_ALIGNMENT if faithful else LOW_FIDELITY if aligned else BOTH)


def score_key(pixel_digest: str, prompt: str, verifier_digest: str) -> str:
    """Ledger key of a pair's scores: all that determines them, except the kind of machine."""
    return digest({"pixels": pixel_digest, "prompt": prompt, "verifier": verifier_digest})
