"""Cache of trained weights: a folder per key, complete or absent."""

import shutil
from collections.abc import Callable
from pathlib import Path

from hoi_assets.store.disk import sync, writing
from hoi_assets.store.versions import Store


def trained(store: Store, kind: str, key: str, train: Callable[[Path, Path], None]) -> Path:
    """Folder of the training known by `key`; `train(work, result)` makes it where absent.

    `work` survives a kill and holds the checkpoints from which `train` goes on; `result` takes
    the files to store, and is moved into place in one step when `train` returns.

    Args:
        kind: what is trained, e.g. "lora".
        key: hash of all that determines the result.
    """
    final = store.home / "trained" / kind / key
    if final.is_dir():
        return final
    work = store.home / "training" / kind / key
    result = work / "result"
    with writing(work):
        shutil.rmtree(result, ignore_errors=True)
        result.mkdir(parents=True)
        final.parent.mkdir(parents=True, exist_ok=True)
        train(work, result)
        for path in result.rglob("*"):
            sync(path)
        result.replace(final)
        sync(final.parent)
        shutil.rmtree(work, ignore_errors=True)
    return final
