"""Checkpoints of a LoRA training: a folder each, whole or absent, in safetensors and JSON."""

import json
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hoi_assets.hashing import file_digests
from hoi_assets.progress import Log

MAX_CHECKPOINTS = 2
STATE_FILE = "state.json"


@dataclass
class TrainingState:
    """The state of a training, besides weights and optimiser.

    Attributes:
        step: steps done.
        log: one row per step.
        best_step: step with the lowest validation loss; without validation, the last.
        best_loss: its validation loss.
        misses: validations since then.
        stopped: whether early stopping ended the training.
    """

    step: int = 0
    log: list[dict[str, Any]] = field(default_factory=list)
    best_step: int = 0
    best_loss: float | None = None
    misses: int = 0
    stopped: bool = False


class Checkpoints:
    """Folders `checkpoint-<step>` in a work folder: weights, best weights, optimiser, state."""

    def __init__(
        self,
        work_dir: Path,
        key: str,
        parameters: dict[str, Any],
        optimizer: Any,
        best: dict[str, Any],
        log: Log,
    ) -> None:
        self.work_dir, self.key, self.log = work_dir, key, log
        self.parameters, self.optimizer, self.best = parameters, optimizer, best

    def folders(self) -> list[Path]:
        """Finished checkpoints, latest first."""
        found = [p for p in self.work_dir.glob("checkpoint-*") if p.name[11:].isdigit()]
        return sorted(found, key=lambda p: int(p.name[11:]), reverse=True)

    def save(self, state: TrainingState) -> None:
        from safetensors.torch import save_file

        self.work_dir.mkdir(parents=True, exist_ok=True)
        target = self.work_dir / f"checkpoint-{state.step}"
        temporary = Path(tempfile.mkdtemp(prefix="unfinished-", dir=self.work_dir))
        moments = self.optimizer.state_dict()["state"]
        save_file(self.parameters, temporary / "adapter.safetensors")
        save_file(self.best, temporary / "best.safetensors")
        save_file(
            {f"{i}.{name}": v for i, one in moments.items() for name, v in one.items()},
            temporary / "optimizer.safetensors",
        )
        files = file_digests(temporary)
        (temporary / STATE_FILE).write_text(
            json.dumps({"key": self.key, "files": files, **vars(state)}), encoding="utf-8"
        )
        if target.exists():
            shutil.rmtree(target)
        temporary.replace(target)
        for old in self.folders()[MAX_CHECKPOINTS:]:
            shutil.rmtree(old)

    def load(self) -> TrainingState:
        """Resume from the latest readable checkpoint of the same training, else start anew."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        for leftover in self.work_dir.glob("unfinished-*"):
            shutil.rmtree(leftover)
        for folder in self.folders():
            try:
                raw = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
                if raw.pop("key") != self.key:
                    self.log(f"{folder} belongs to other inputs: removed")
                    shutil.rmtree(folder)
                    continue
                files = raw.pop("files")
                state = TrainingState(**raw)
                if files != _weights(folder):
                    raise ValueError("its files are not those that were written")
                weights = load_file(folder / "adapter.safetensors")
                best = load_file(folder / "best.safetensors")
                moments = load_file(folder / "optimizer.safetensors")
            except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
                self.log(f"{folder} cannot be read ({error}): removed")
                shutil.rmtree(folder)
                continue
            copy_into(self.parameters, weights)
            copy_into(self.best, best)
            by_place: dict[int, dict[str, Any]] = {}
            for name, value in moments.items():
                place, moment = name.split(".", 1)
                by_place.setdefault(int(place), {})[moment] = value
            self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": by_place})
            self.log(f"training resumes from {folder.name}")
            return state
        return TrainingState()


def _weights(folder: Path) -> dict[str, str]:
    return {name: found for name, found in file_digests(folder).items() if name != STATE_FILE}


def copy_into(target: dict[str, Any], source: dict[str, Any]) -> None:
    """Overwrite the tensors of `target` with those of the same name."""
    import torch

    with torch.no_grad():
        for name, value in target.items():
            value.copy_(source[name])
