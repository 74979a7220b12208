"""Trackers of a training (`report_to`), through accelerate: TensorBoard, Weights & Biases."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hoi_assets.settings import LoraTraining, digested

PROJECT = "hoi-assets"  # of Weights & Biases


def tracker_options(config: LoraTraining, logs: Path) -> dict[str, Any]:
    """Arguments of an `accelerate.Accelerator`.

    Args:
        logs: folder of this training's logs.
    """
    if config.report_to is None:
        return {}
    return {"log_with": config.report_to, "project_dir": str(logs.parent)}


@contextmanager
def tracked(accelerator: Any, config: LoraTraining, logs: Path) -> Iterator[None]:
    """Open the tracker, if there is one, and close it however the training ends.

    `accelerator.log` sends to it. Keys come from the tracker's own environment variables.
    """
    if config.report_to is None:
        yield
        return
    logs.parent.mkdir(parents=True, exist_ok=True)
    options = {name: str(value) for name, value in digested(config).items()}
    if config.report_to == "wandb":
        own = {"wandb": {"name": logs.name, "dir": str(logs.parent)}}
        accelerator.init_trackers(PROJECT, options, own)
    else:
        accelerator.init_trackers(logs.name, options)
    try:
        yield
    finally:
        if accelerator.is_main_process:
            for tracker in accelerator.trackers:
                tracker.finish()


def track_step(accelerator: Any, row: dict[str, Any]) -> None:
    """Send what was measured of a row of the training's log."""
    values = {name: value for name, value in row.items() if value is not None and name != "step"}
    accelerator.log(values, step=row["step"])
