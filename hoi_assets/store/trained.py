"""Cache of trained weights: a folder per key, complete or absent."""

import shutil
from collections.abc import Callable
from pathlib import Path

from hoi_assets.hashing import file_digests
from hoi_assets.store.disk import sync, writing
from hoi_assets.store.integrity import Damaged, first_difference, read_manifest, write_manifest
from hoi_assets.store.remote_home import RemoteHome
from hoi_assets.store.versions import Store

TRACKED = "training/logs"  # of a home: what trackers write, which outlives the trainings


def trained(store: Store, kind: str, key: str, train: Callable[[Path, Path], None]) -> Path:
    """Folder of the training known by `key`; `train(work, result)` makes it where absent.

    `work` survives a kill and holds the checkpoints from which `train` goes on; `result` takes
    the files to store, and is moved into place in one step when `train` returns.

    Args:
        kind: what is trained, e.g. "lora".
        key: hash of all that determines the result.

    Raises:
        Damaged: the files are not those that the training wrote.
    """
    final = store.home / "trained" / kind / key
    manifest = final.with_name(f"{key}.json")
    work = store.home / "training" / kind / key
    if store.remote is not None:
        _fetch(store.remote, final, manifest)
    if final.is_dir():
        _check(store, final, manifest)
        # Left over where a kill came between the last two steps below.
        shutil.rmtree(work, ignore_errors=True)
        return final
    result = work / "result"
    with writing(work):
        shutil.rmtree(result, ignore_errors=True)
        result.mkdir(parents=True)
        final.parent.mkdir(parents=True, exist_ok=True)
        train(work, result)
        for path in result.rglob("*"):
            sync(path)
        digests = file_digests(result)
        if store.remote is not None:
            store.remote.upload(final, result, digests, manifest)
        write_manifest(manifest, digests, store.staging)
        result.replace(final)
        sync(final.parent)
        shutil.rmtree(work, ignore_errors=True)
    return final


def _fetch(remote: RemoteHome, final: Path, manifest: Path) -> None:
    """Copy what another machine trained, where there is such a training."""
    try:
        remote.fetch(final, manifest, None)
    except Damaged as error:
        remedy = f"delete {remote.address(manifest)} and run again: the training is repeated"
        raise Damaged(error.what, remedy) from error


def _check(store: Store, final: Path, manifest: Path) -> None:
    if not manifest.exists():
        # Trained by an earlier release, which wrote none: from now on these files are the ones.
        write_manifest(manifest, file_digests(final), store.staging)
        return
    digests = read_manifest(manifest)
    why = "its manifest is damaged" if digests is None else first_difference(final, digests)
    if why is not None:
        raise Damaged(
            f"trained weights {final} were altered: {why}",
            "restore that file from a copy, or delete that folder and run again: the training is "
            "repeated",
        )
