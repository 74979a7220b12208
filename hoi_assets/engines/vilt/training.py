"""Training the verifier on labelled pairs: both heads at once, resumable to the same bits."""

import copy
import io
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
from PIL import Image

from hoi_assets.engines.out_of_memory import naming_out_of_memory
from hoi_assets.engines.pair_inputs import text_inputs
from hoi_assets.engines.vilt.defect_truths import DefectTruths
from hoi_assets.engines.vilt.verifier import (
    HEADS,
    Thresholds,
    VerifierModel,
    forward_pairs,
    pixel_values,
)
from hoi_assets.errors import HoiError
from hoi_assets.hashing import digest
from hoi_assets.progress import Log, track
from hoi_assets.settings import Verifier, digested
from hoi_assets.statistics import auc
from hoi_assets.store.disk import replace_bytes

CHECKPOINT = "checkpoint.pt"
# The learning rate rises over this share of the steps, then falls linearly to zero.
WARMUP_SHARE = 0.1
MAX_GRAD_NORM = 1.0
# Validations per training, evenly spaced, besides that of the untrained model.
VALIDATIONS = 6
MAX_CACHED_PIXEL_BYTES = 1 << 30


@dataclass(frozen=True)
class LabelledPair:
    """An image, a text and their labels.

    Attributes:
        pair_id: identifies the image too.
        open: returns the image; called when it is needed.
        defects: known to be in the image.
        open_map: returns a picture that is white where the image is defective; None: not known.
        lies: what the text gets wrong.
        groups: further slices to report, e.g. {"shown_as": "vae"}.
    """

    pair_id: str
    open: Callable[[], Image.Image]
    text: str
    fidelity: bool
    alignment: bool
    category: str | None = None
    defects: tuple[str, ...] = ()
    lies: tuple[str, ...] = ()
    groups: Mapping[str, str] = field(default_factory=dict)
    open_map: Callable[[], Image.Image] | None = None


Pairs = Sequence[LabelledPair]


@dataclass(frozen=True)
class TrainedVerifier:
    """A trained verifier, not yet calibrated.

    Attributes:
        log: rows of step, loss (of both labels), loss_fidelity, loss_alignment, loss_defects (of
            what is known of defects), learning_rate, validation_loss,
            validation_auc_fidelity, validation_auc_alignment; None where not measured. Row 0 is
            the model before training.
        best_step: the step whose weights were chosen; 0: training did not help.
        seconds_per_step: of the steps made in this process; None when there were none.
    """

    verifier: VerifierModel
    log: list[dict[str, Any]]
    best_step: int
    seconds_per_step: float | None


def labels_of(pairs: Pairs) -> np.ndarray:
    """Bool array (N, 2): fidelity, alignment."""
    labels = [(pair.fidelity, pair.alignment) for pair in pairs]
    return np.array(labels, dtype=bool).reshape(-1, len(HEADS))


def logits_of(verifier: VerifierModel, pairs: Pairs) -> np.ndarray:
    """Raw logits (N, 2) of labelled pairs; see `forward_pairs`."""
    return forward_pairs(verifier, _LazyImages(pairs), [pair.text for pair in pairs])


class _LazyImages(Sequence[Any]):
    """The images of pairs, opened on access."""

    def __init__(self, pairs: Pairs) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, item: Any) -> Any:
        return self.pairs[item].open()


def train_verifier(
    verifier: VerifierModel,
    train: Pairs,
    validation: Pairs,
    config: Verifier,
    work_dir: Path,
    log: Log = print,
) -> TrainedVerifier:
    """Train both heads with binary cross-entropy; keep the weights of the best validation loss.

    AdamW, warm-up and linear decay, gradients cut at norm 1. A step draws its rows and its dropout
    from (seed, step) alone, so that a training that was killed, called again with the same
    arguments, resumes from `work_dir` and ends bit-identical.

    Args:
        verifier: where to start from; not changed.
        work_dir: holds the checkpoint; one of another training is not used.

    Returns:
        A verifier of temperature 1 and thresholds 0.5: see `calibration`.

    Raises:
        HoiError: a split in which one head has only good or only bad pairs.
    """
    _require_both_classes(train, "training")
    _require_both_classes(validation, "validation")
    run = _Run(verifier, train, validation, config, work_dir)
    if run.resume():
        log(f"verifier training: resuming after step {run.step} of {config.train_steps}")
    else:
        run.validate({"step": 0})
    steps = range(run.step + 1, config.train_steps + 1)
    started = monotonic()
    remedy = "lower verifier.batch_size; finished steps are kept"
    for step in track(steps, "verifier training", log=log):
        with naming_out_of_memory(f"step {step} of the verifier's training", remedy):
            run.advance(step)
    return run.finish((monotonic() - started) / len(steps) if len(steps) else None)


def _require_both_classes(pairs: Pairs, split: str) -> None:
    good = labels_of(pairs).sum(axis=0)
    for head, count in zip(HEADS, good, strict=True):
        if not 0 < count < len(pairs):
            raise HoiError(
                f"verifier {split} pairs: {count} of {len(pairs)} have {head}; both kinds are "
                "needed",
                "raise verifier.training_pairs, or label both good and bad pairs",
            )


class _Run:
    """A training between two steps; `_save` writes all of its state."""

    def __init__(
        self,
        verifier: VerifierModel,
        train: Pairs,
        validation: Pairs,
        config: Verifier,
        work_dir: Path,
    ) -> None:
        import torch

        self.verifier = replace(
            verifier,
            model=copy.deepcopy(verifier.model).float(),
            defect_head=verifier.defect_head and copy.deepcopy(verifier.defect_head).float(),
            temperature=(1.0, 1.0),
            thresholds=Thresholds(),
        )
        self.models = torch.nn.ModuleList(self.verifier.modules)
        self.optimizer = torch.optim.AdamW(self.models.parameters(), lr=config.learning_rate)
        self.train, self.validation = train, validation
        self.labels = torch.from_numpy(labels_of(train)).float().to(verifier.device)
        self.config = config
        self.work_dir = work_dir
        self.every = max(1, config.train_steps // VALIDATIONS)
        self.pixels: dict[int, Any] = {}
        self.truths = DefectTruths(train, self.verifier)
        self.fingerprint = digest(
            {
                "start": verifier.digest,
                "config": digested(config),
                "train": [_identity(pair) for pair in train],
                "validation": [_identity(pair) for pair in validation],
            }
        )
        self.step = 0
        self.log: list[dict[str, Any]] = []
        self.best_step = 0
        self.best_loss = float("inf")
        self.best_weights: dict[str, Any] = {}

    def advance(self, step: int) -> None:
        """One optimiser step; every `self.every` steps a validation and a checkpoint."""
        import torch
        from torch.nn.functional import binary_cross_entropy_with_logits

        rows = self._rows(step)
        words = text_inputs(self.verifier, [self.train[row].text for row in rows])
        pixels = torch.stack([self._pixels(row) for row in rows])
        device = self.verifier.device
        rate = self._learning_rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.models.train()
        with torch.random.fork_rng():
            torch.manual_seed(int(digest([self.config.seed, step])[:15], 16))
            out = self.verifier.outputs(pixels.to(device), **words)
        losses = binary_cross_entropy_with_logits(out.logits, self.labels[rows], reduction="none")
        losses = losses.mean(dim=0)
        fidelity, alignment = losses.tolist()
        defects = self.truths.loss(out, rows)
        known = 0.0 if defects is None else float(defects.detach())
        self._require_finite(np.array([fidelity, alignment, known]), step)
        (losses.mean() if defects is None else losses.mean() + defects).backward()
        torch.nn.utils.clip_grad_norm_(self.models.parameters(), MAX_GRAD_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.models.eval()
        self.step = step
        row = {
            "step": step,
            "loss": (fidelity + alignment) / 2,
            "loss_fidelity": fidelity,
            "loss_alignment": alignment,
            "loss_defects": None if defects is None else known,
            "learning_rate": rate,
        }
        if step % self.every == 0 or step == self.config.train_steps:
            self.validate(row)
        else:
            self.log.append(_log_row(row))

    def validate(self, row: dict[str, Any]) -> None:
        """Measure the validation loss, remember the best weights, log `row`, save a checkpoint."""
        from scipy.special import expit

        logits, labels = logits_of(self.verifier, self.validation), labels_of(self.validation)
        self._require_finite(logits, self.step)
        # log(1 + exp(-z)) for a good pair, log(1 + exp(z)) for a bad one.
        loss = float(np.logaddexp(0, np.where(labels, -logits, logits)).mean())
        areas = {
            f"validation_auc_{head}": auc(labels[:, n], expit(logits[:, n])).value
            for n, head in enumerate(HEADS)
        }
        if loss < self.best_loss:
            self.best_step, self.best_loss = self.step, loss
            self.best_weights = {k: v.clone() for k, v in self.models.state_dict().items()}
        self.log.append(_log_row({**row, "validation_loss": loss, **areas}))
        self._save()

    def _require_finite(self, values: np.ndarray, step: int) -> None:
        if not np.isfinite(values).all():
            raise HoiError(
                f"verifier training diverged: not a number at step {step}",
                f"lower verifier.learning_rate, now {self.config.learning_rate}",
            )

    def finish(self, seconds_per_step: float | None) -> TrainedVerifier:
        """The best weights, as a verifier."""
        self.models.load_state_dict(self.best_weights)
        # A new object: the old one may have cached its digest.
        self.models.eval()
        verifier = replace(self.verifier)
        return TrainedVerifier(verifier, self.log, self.best_step, seconds_per_step)

    def resume(self) -> bool:
        """Load the checkpoint, if there is one of the same training."""
        import torch

        path = self.work_dir / CHECKPOINT
        if not path.is_file() or not _is_whole(path):
            return False
        state = torch.load(path, map_location=self.verifier.device, weights_only=True)
        if state["fingerprint"] != self.fingerprint:
            return False
        self.models.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for name in ("step", "log", "best_step", "best_loss", "best_weights"):
            setattr(self, name, state[name])
        return True

    def _save(self) -> None:
        import torch

        names = ("fingerprint", "step", "log", "best_step", "best_loss", "best_weights")
        state = {name: getattr(self, name) for name in names}
        state |= {"model": self.models.state_dict(), "optimizer": self.optimizer.state_dict()}
        buffer = io.BytesIO()
        torch.save(state, buffer)
        self.work_dir.mkdir(parents=True, exist_ok=True)
        path = self.work_dir / CHECKPOINT
        replace_bytes(path, buffer.getvalue(), self.work_dir, durable=False, mode=0o644)

    def _rows(self, step: int) -> list[int]:
        """Rows of a step, from an endless stream of shuffled epochs."""
        size = self.config.batch_size
        wanted = range((step - 1) * size, step * size)
        epochs = {
            epoch: np.random.default_rng([self.config.seed, epoch]).permutation(len(self.train))
            for epoch in {place // len(self.train) for place in wanted}
        }
        return [int(epochs[p // len(self.train)][p % len(self.train)]) for p in wanted]

    def _learning_rate(self, step: int) -> float:
        warm = max(1, round(WARMUP_SHARE * self.config.train_steps))
        left = (self.config.train_steps - step + 1) / max(1, self.config.train_steps - warm + 1)
        return self.config.learning_rate * min(step / warm, left, 1.0)

    def _pixels(self, row: int) -> Any:
        if row in self.pixels:
            return self.pixels[row]
        pixels = pixel_values(self.verifier, [self.train[row].open()])[0]
        if len(self.pixels) * pixels.nbytes < MAX_CACHED_PIXEL_BYTES:
            self.pixels[row] = pixels
        return pixels


def _is_whole(checkpoint: Path) -> bool:
    """Whether the checksums in the file hold; `torch.load` does not look at them."""
    try:
        with zipfile.ZipFile(checkpoint) as file:
            return file.testzip() is None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError):
        return False


def _identity(pair: LabelledPair) -> list[Any]:
    """What a training knows of a pair; the map goes with the image."""
    labels = [pair.fidelity, pair.alignment, *pair.defects, pair.open_map is not None]
    return [pair.pair_id, pair.text, *labels]


def _log_row(row: dict[str, Any]) -> dict[str, Any]:
    names = ("loss", "loss_fidelity", "loss_alignment", "loss_defects", "learning_rate")
    areas = [f"validation_auc_{head}" for head in HEADS]
    return {
        "step": row["step"],
        **{name: row.get(name) for name in (*names, "validation_loss", *areas)},
    }
