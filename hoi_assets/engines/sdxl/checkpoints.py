"""Checkpoints of a LoRA training: a folder each, whole or absent, in safetensors and JSON."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hoi_assets.hashing import file_digests
from hoi_assets.progress import Log

MAX_CHECKPOINTS = 2
STATE_FILE = "state.json"
# Of a parameter group: set anew at every step, from the schedule.
RATES = ("lr", "initial_lr")


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
    """Folders `checkpoint-<step>` in a work folder: weights, best weights, optimiser, state.

    Args:
        scaler: the gradient scaler of fp16, where there is one.
    """

    def __init__(
        self,
        work_dir: Path,
        key: str,
        parameters: dict[str, Any],
        optimizer: Any,
        best: dict[str, Any],
        log: Log,
        scaler: Any = None,
    ) -> None:
        self.work_dir, self.key, self.log, self.scaler = work_dir, key, log, scaler
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
        tensors, numbers = _split_state(self.optimizer.state_dict())
        save_file(self.parameters, temporary / "adapter.safetensors")
        save_file(self.best, temporary / "best.safetensors")
        save_file(tensors, temporary / "optimizer.safetensors")
        if self.scaler is not None:
            numbers["scaler"] = self.scaler.state_dict()
        files = file_digests(temporary)
        (temporary / STATE_FILE).write_text(
            json.dumps({"key": self.key, "files": files, "optimizer": numbers, **vars(state)}),
            encoding="utf-8",
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
                files, numbers = raw.pop("files"), raw.pop("optimizer", {})
                state = TrainingState(**raw)
                if files != _weights(folder):
                    raise ValueError("its files are not those that were written")
                weights = load_file(folder / "adapter.safetensors")
                best = load_file(folder / "best.safetensors")
                tensors = load_file(folder / "optimizer.safetensors")
            except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
                self.log(f"{folder} cannot be read ({error}): removed")
                shutil.rmtree(folder)
                continue
            copy_into(self.parameters, weights)
            copy_into(self.best, best)
            whole = _joined_state(self.optimizer.state_dict(), tensors, numbers)
            self.optimizer.load_state_dict(whole)
            if self.scaler is not None and "scaler" in numbers:
                self.scaler.load_state_dict(numbers["scaler"])
            self.log(f"training resumes from {folder.name}")
            return state
        return TrainingState()


def _split_state(state: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tensors of an optimiser's state by "<parameter>.<name>", and its plain numbers: those of
    each parameter, and those of each group, in which Prodigy keeps its step size."""
    import torch

    tensors: dict[str, Any] = {}
    plain: dict[str, dict[str, Any]] = {}
    for place, values in state["state"].items():
        for name, value in _unnested(values):
            if torch.is_tensor(value):
                # Parameters may share one, such as bitsandbytes' code book; a file may not.
                tensors[f"{place}.{name}"] = value.detach().clone()
            else:
                plain.setdefault(str(place), {})[name] = value
    groups = [
        {
            name: value
            for name, value in group.items()
            if isinstance(value, (int, float)) and name not in RATES
        }
        for group in state["param_groups"]
    ]
    return tensors, {"state": plain, "groups": groups}


def _unnested(values: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """A parameter's state; bitsandbytes nests its quantised part, and reads it without too."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from value.items()
        else:
            yield name, value


def _joined_state(
    now: dict[str, Any], tensors: dict[str, Any], numbers: dict[str, Any]
) -> dict[str, Any]:
    """What `_split_state` took apart, with the remaining options of the groups from `now`."""
    state: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        place, name = key.split(".", 1)
        state.setdefault(int(place), {})[name] = value
    for place, values in numbers.get("state", {}).items():
        state.setdefault(int(place), {}).update(values)
    groups = [dict(group) for group in now["param_groups"]]
    for group, kept in zip(groups, numbers.get("groups", groups), strict=True):
        group.update(kept)
    return {**now, "state": state, "param_groups": groups}


def _weights(folder: Path) -> dict[str, str]:
    return {name: found for name, found in file_digests(folder).items() if name != STATE_FILE}


def copy_into(target: dict[str, Any], source: dict[str, Any]) -> None:
    """Overwrite the tensors of `target` with those of the same name."""
    import torch

    with torch.no_grad():
        for name, value in target.items():
            value.copy_(source[name])
