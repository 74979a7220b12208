"""What runs in a worker's process. It knows no Ray: `workers.py` makes an actor of it."""

import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hoi_assets.engines.batch_map import BatchTask
from hoi_assets.errors import HoiError
from hoi_assets.hashing import files_below

# Folders that a node keeps of those that were sent to it.
KEPT_FOLDERS = 32
LIBRARIES = ("torch", "diffusers", "transformers", "peft")
Files = Mapping[str, bytes]  # by path below the folder


class Worker:
    """Computes batches, one at a time; models stay loaded in its process.

    Args:
        budget_bytes: see `model_cache.configure`.
    """

    def __init__(self, budget_bytes: int | None) -> None:
        from hoi_assets.engines.model_cache import configure

        configure(budget_bytes)

    def kind(self, device: str) -> dict[str, Any]:
        """What an image's bits depend on besides its row: the kind of machine, and libraries.

        Raises:
            HoiError: no such device.
        """
        import torch

        from hoi_assets.engines.device import resolve_device

        on_gpu = resolve_device(device).startswith("cuda")
        return {
            "device": torch.cuda.get_device_name() if on_gpu else platform.machine(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            **{name: version(name) for name in LIBRARIES},
        }

    def process(self) -> tuple[str, int]:
        """Host and process id."""
        return platform.node(), os.getpid()

    def run(
        self,
        task: BatchTask[Any, Any],
        batch: Sequence[Any],
        fetch: Mapping[str, Callable[[], Files]],
    ) -> list[Any]:
        """Results of a batch.

        Args:
            fetch: by digest, gives the content of each of the task's folders.

        Raises:
            HoiError: as the task, or no room on this machine's disk.
        """
        folders = {digest: str(_local_folder(digest, fetch[digest])) for digest in task.folders}
        return list(replace(task, folders=folders).run(batch))


def files_of(folder: str) -> Files:
    """The content of a folder, to be sent."""
    return {name: path.read_bytes() for name, path in files_below(Path(folder))}


def _local_folder(digest: str, fetch: Callable[[], Files]) -> Path:
    """The folder on this machine, written when it is first asked for."""
    root = Path(tempfile.gettempdir()) / f"hoi-assets-{os.getuid()}"
    folder = root / digest
    try:
        root.mkdir(mode=0o700, exist_ok=True)
        if folder.is_dir():
            os.utime(folder)  # used now: not the one to be removed
        else:
            _write(folder, fetch())
            _remove_oldest(root)
    except OSError as error:
        raise HoiError(
            f"{platform.node()} cannot write {folder}: {error.strerror or error}",
            "make room there, or set TMPDIR for `ray start` to a folder with room",
        ) from error
    return folder


def _write(folder: Path, files: Files) -> None:
    """Write the folder as a whole or not at all; another worker may do the same."""
    with tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as work:
        whole = Path(work) / folder.name
        for name, data in files.items():
            path = whole / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        try:
            whole.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise


def _remove_oldest(root: Path) -> None:
    used = []
    for folder in root.iterdir():
        with suppress(FileNotFoundError):  # removed by another worker
            used.append((folder.stat().st_mtime, folder))
    for _, folder in sorted(used, reverse=True)[KEPT_FOLDERS:]:
        shutil.rmtree(folder, ignore_errors=True)
