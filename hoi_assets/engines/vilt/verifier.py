"""The verifier: ViLT with two heads, fidelity and alignment; loading, saving, scoring.

Fidelity: the image is free of defects. Alignment: the image agrees with the caption.
Training is in `training`, thresholds and calibration in `calibration`, verdicts in `decision`.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hoi_assets.engines.batching import map_fixed
from hoi_assets.engines.model_cache import Source, load_cached, move_to_device
from hoi_assets.engines.pair_inputs import require_pairs, text_inputs, text_limit
from hoi_assets.engines.pretrained import (
    WEIGHTS,
    content_digest,
    load_error,
    processor_facts,
    read_model,
    read_processor,
    require_files,
    tokenizer_facts,
    torch_dtype,
)
from hoi_assets.engines.text_tokens import TextEncoder, TextReader
from hoi_assets.engines.vilt.defect_head import (
    DEFECT_HEAD_FILE,
    head_weights,
    load_defect_head,
    save_defect_head,
)
from hoi_assets.engines.vilt.forward import PairOutputs, pair_outputs
from hoi_assets.errors import HoiError
from hoi_assets.hashing import digest
from hoi_assets.settings import ModelRef

HEADS = ("fidelity", "alignment")
BATCH_SIZE = 32
VERIFIER_FILE = "verifier.json"


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
        return text_limit(self.tokenizer, self.model.config)

    def facts(self) -> dict[str, Any]:
        """What determines an answer besides the weights (JSON-able)."""
        return {
            "tokenizer": tokenizer_facts(self.tokenizer),
            "image": processor_facts(self.image_processor),
        }

    def weights(self) -> dict[str, Any]:
        """Every tensor by name."""
        return dict(self.model.state_dict())

    def outputs(self, pixel_values: Any, **words: Any) -> PairOutputs:
        """What the model says of prepared pairs; differentiable."""
        return pair_outputs(self.model, None, pixel_values, **words)

    @cached_property
    def digest(self) -> str:
        """Hash of weights, tokenizer, preprocessing and the other facts (64 hex digits)."""
        return content_digest(self.weights(), self.facts())


@dataclass(frozen=True)
class VerifierModel(ViltModel):
    """A loaded verifier.

    Attributes:
        temperature: divides the logits of (fidelity, alignment).
        defect_head: says where the defect is and of which kind (`defect_head`); None: it cannot.
        fresh_heads: the ViLT came without fidelity and alignment heads; they were drawn anew.
    """

    defect_head: Any = None
    fresh_heads: bool = False
    temperature: tuple[float, float] = (1.0, 1.0)
    thresholds: Thresholds = field(default_factory=Thresholds)

    @property
    def modules(self) -> tuple[Any, ...]:
        """The defect head too."""
        return (self.model,) if self.defect_head is None else (self.model, self.defect_head)

    def weights(self) -> dict[str, Any]:
        """The defect head too."""
        head = {} if self.defect_head is None else head_weights(self.defect_head)
        return {**super().weights(), **head}

    def outputs(self, pixel_values: Any, **words: Any) -> PairOutputs:
        """With map and kinds of defects where there is a defect head."""
        return pair_outputs(self.model, self.defect_head, pixel_values, **words)

    def facts(self) -> dict[str, Any]:
        """Temperature and thresholds too."""
        return {
            **super().facts(),
            "temperature": self.temperature,
            "thresholds": asdict(self.thresholds),
        }


def load_verifier(source: Source, device: str = "cpu", head_seed: int = 0) -> VerifierModel:
    """Load a verifier from a ModelRef or folder; cached by `model_cache`.

    A ViLT without the two heads (`has_heads`) gets fresh ones. A folder without `verifier.json` is
    uncalibrated: temperature 1, thresholds 0.5.

    Args:
        head_seed: of fresh heads.

    Raises:
        HoiError: missing files, weights of another shape, or a head besides the two.
    """

    def load(ref: ModelRef, device: str) -> VerifierModel:
        return _load(ref, device, head_seed)

    kind = f"verifier, heads of seed {head_seed}" if head_seed else "verifier"
    return load_cached(kind, source, device, load)


def has_heads(ref: ModelRef) -> bool:
    """Whether a ViLT was saved with the two heads, by its config.json; any other is only
    pretrained, for masked words or answers.

    Raises:
        HoiError: it cannot be read, or it has one of the two heads or more than the two.
    """
    from transformers import ViltConfig

    labels = tuple(read_processor(ViltConfig, ref).id2label.values())
    if labels != HEADS and set(HEADS) & set(labels):
        raise HoiError(
            f"verifier {ref.source}: {len(labels)} labels, wanted 2 {HEADS}",
            "name a verifier that hoi-assets saved, or a pretrained ViLT",
        )
    return labels == HEADS


def _load(ref: ModelRef, device: str, head_seed: int) -> VerifierModel:
    from transformers import AutoTokenizer, ViltForQuestionAnswering, ViltImageProcessorPil

    require_files(ref, ("config.json", WEIGHTS, "tokenizer_config.json"))
    fresh_heads = not has_heads(ref)
    wanted = {"id2label": dict(enumerate(HEADS)), "num_labels": len(HEADS)}
    model = read_model(
        ViltForQuestionAnswering,
        ref,
        allow_missing=("classifier.",) if fresh_heads else (),
        seed=head_seed,
        **(wanted if fresh_heads else {}),
    )
    defect_head = _defect_head_of(ref)
    move_to_device([model] if defect_head is None else [model, defect_head], device)
    verifier = VerifierModel(
        model=model,
        defect_head=defect_head,
        fresh_heads=fresh_heads,
        tokenizer=read_processor(AutoTokenizer, ref),
        image_processor=read_processor(ViltImageProcessorPil, ref),
        device=device,
    )
    path = ref.folder / VERIFIER_FILE if ref.folder else None
    if path is None or not path.is_file():
        return verifier
    return _with_facts(verifier, json.loads(path.read_text(encoding="utf-8")))


def _defect_head_of(ref: ModelRef) -> Any:
    from safetensors import SafetensorError

    try:
        head = load_defect_head(ref.folder) if ref.folder else None
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise load_error(DEFECT_HEAD_FILE, ref, str(error)) from error
    return None if head is None else head.to(torch_dtype(ref.dtype))


def _with_facts(verifier: VerifierModel, facts: dict[str, Any]) -> VerifierModel:
    fidelity, alignment = facts["temperature"]
    return replace(
        verifier,
        temperature=(fidelity, alignment),
        thresholds=Thresholds(**facts["thresholds"]),
    )


def read_thresholds(folder: Path) -> Thresholds:
    """The thresholds of `load_verifier(folder)`."""
    path = folder / VERIFIER_FILE
    if not path.is_file():
        return Thresholds()
    return Thresholds(**json.loads(path.read_text(encoding="utf-8"))["thresholds"])


def save_verifier(verifier: VerifierModel, folder: Path) -> Path:
    """Write weights (safetensors), config, tokenizer, preprocessing and `verifier.json`.

    `load_verifier(folder)` gives a verifier of the same digest.
    """
    folder.mkdir(parents=True, exist_ok=True)
    verifier.model.save_pretrained(folder)
    verifier.tokenizer.save_pretrained(folder)
    verifier.image_processor.save_pretrained(folder)
    if verifier.defect_head is not None:
        save_defect_head(verifier.defect_head, folder)
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


def vilt_text_reader(ref: ModelRef, model: str) -> TextReader:
    """What a ViLT reads of the texts that it judges.

    Args:
        model: hash of the model, or the version of a published one.
    """

    def load() -> tuple[TextEncoder]:
        from transformers import AutoTokenizer, ViltConfig

        tokenizer = read_processor(AutoTokenizer, ref)
        limit = text_limit(tokenizer, read_processor(ViltConfig, ref))
        return (TextEncoder("vilt", tokenizer, limit),)

    return TextReader("vilt", model, load)


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
    labels = vilt.model.config.num_labels
    return _outputs(vilt, images, texts, slots, batch_size)[:, :labels]


def _outputs(
    vilt: ViltModel,
    images: Sequence[Image.Image],
    texts: Sequence[str],
    slots: Sequence[int] | None,
    batch_size: int,
) -> np.ndarray:
    """Rows (N, …) of all logits: labels, then cells and kinds of a verifier with a defect head."""
    import torch

    def compute(items: list[int]) -> np.ndarray:
        words = text_inputs(vilt, [texts[item] for item in items])
        with torch.inference_mode():
            pixels = pixel_values(vilt, [images[item] for item in items])
            out = vilt.outputs(pixels.to(vilt.device), **words)
            said = [part for part in (out.logits, out.cells, out.kinds) if part is not None]
            rows = torch.cat([part.flatten(1) for part in said], dim=1)
        return rows.double().cpu().numpy()

    require_pairs(images, texts)
    if not texts:
        return np.zeros((0, vilt.model.config.num_labels))
    return map_fixed(len(texts), batch_size, compute, slots)


def probabilities(logits: np.ndarray, temperature: tuple[float, float] = (1.0, 1.0)) -> np.ndarray:
    """Calibrated probabilities (N, 2) in 0..1 of logits (N, 2)."""
    from scipy.special import expit

    return expit(logits / np.asarray(temperature))


@dataclass(frozen=True)
class VerifierScores:
    """What a verifier says of N pairs.

    Attributes:
        probabilities: calibrated, (N, 2): fidelity, alignment.
        maps: probability (N, S, S) that a cell is defective; None without a defect head.
        kinds: likeliest kind of defect of each, whatever its fidelity; None without a defect head.
    """

    probabilities: np.ndarray
    maps: np.ndarray | None = None
    kinds: tuple[str, ...] | None = None


def score_pairs(
    verifier: VerifierModel,
    images: Sequence[Image.Image],
    texts: Sequence[str],
    slots: Sequence[int] | None = None,
) -> VerifierScores:
    """Calibrated probabilities, defect maps and kinds of pairs; see `forward_pairs`."""
    from scipy.special import expit

    rows = _outputs(verifier, images, texts, slots, BATCH_SIZE)
    found = probabilities(rows[:, : len(HEADS)], verifier.temperature)
    if verifier.defect_head is None or not texts:
        return VerifierScores(found)
    names = verifier.defect_head.kind_names
    cells, kinds = np.split(rows[:, len(HEADS) :], [-len(names)], axis=1)
    side = round(cells.shape[1] ** 0.5)
    likeliest = tuple(names[place] for place in kinds.argmax(axis=1))
    return VerifierScores(found, expit(cells).reshape(-1, side, side), likeliest)


def score_key(pixel_digest: str, prompt: str, verifier_digest: str) -> str:
    """Ledger key of a pair's scores: all that determines them, except the kind of machine."""
    return digest({"pixels": pixel_digest, "prompt": prompt, "verifier": verifier_digest})
