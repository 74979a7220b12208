"""Removing versions that nothing in force was made from, and what belongs to no partition."""

import shutil
import uuid
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from hoi_assets.errors import HoiError
from hoi_assets.store.disk import writing
from hoi_assets.store.lineage import lineage
from hoi_assets.store.places import folder_name, is_orphan, manifest_file
from hoi_assets.store.pruning_bucket import prune_bucket
from hoi_assets.store.published import Published
from hoi_assets.store.versions import Store

Place = tuple[str, str | None]  # asset, partition


def prune(
    store: Store, keep: int = 1, dry_run: bool = False, known: Collection[str] | None = None
) -> list[Path]:
    """Remove old versions, and what belongs to partitions that are gone.

    It keeps, per asset and partition, the version in force, the latest `keep` distinct ones, and
    every version that the inputs or parents of a kept one refer to, through any number of steps.

    Args:
        keep: at least 1.
        dry_run: only list what would be removed.
        known: partitions that there are. Of others no version stays in force; theirs are removed
            unless a kept version of another place was made from them, with their evidence and their
            rows in the ledger. None: all are known.

    Returns:
        Folders of the removed versions; of a home in a bucket those of their copies.

    Raises:
        HoiError: `keep` is under 1.

    Example:
        >>> prune(store, keep=2, dry_run=True)  # doctest: +SKIP
        [PosixPath('.../versions/5d41402abc4b2a76')]
    """
    if keep < 1:
        raise HoiError(f"prune: keep is {keep}", "keep at least 1: the version in force")
    if not dry_run:
        store.require_writable()
    gone = {place for place in store.places() if is_orphan(place[1], known)}
    kept = _kept(store, keep, gone)
    if not dry_run:
        for asset, partition in sorted(gone, key=str):
            _take_out_of_force(store, asset, partition)
    if store.remote is not None:
        return prune_bucket(store, store.remote, kept, dry_run)
    removed = []
    for asset, partition in store.places():
        for path in sorted((store.place(asset, partition) / "versions").glob("*")):
            if path not in kept and (dry_run or _remove(store, asset, partition, path)):
                removed.append(path)
        if not dry_run:
            _remove_stray_manifests(store, asset, partition)
    return removed


def _remove_stray_manifests(store: Store, asset: str, partition: str | None) -> None:
    """Manifests are written before their versions and removed after: a kill between leaves one."""
    folder = store.place(asset, partition)
    stray = [
        path
        for path in (folder / "manifests").glob("*.json")
        if not (folder / "versions" / path.stem).exists()
    ]
    if stray:
        with store.publishing(asset, partition), writing(folder):
            for path in stray:
                if not (folder / "versions" / path.stem).exists():
                    path.unlink(missing_ok=True)


def _take_out_of_force(store: Store, asset: str, partition: str | None) -> None:
    """Remove a place's pointer, evidence and rows; its log of publications stays for lineages."""
    evidence = store.home / "gates" / asset / folder_name(partition)
    with store.publishing(asset, partition), writing(evidence):
        store.pointers.withdraw(asset, partition)
        shutil.rmtree(evidence, ignore_errors=True)
        if store.remote is not None:
            found = list(store.remote.bucket.list(f"{store.remote.key(evidence)}/"))
            store.remote.bucket.delete(one.key for one in found)
    store.ledger.forget(asset, partition)


def _kept(store: Store, keep: int, gone: Collection[Place]) -> set[Path]:
    """Folders of the versions in force, of the latest ones, and of all that these refer to; of the
    places in `gone` only the last."""
    publications: dict[Path, list[Published]] = {}
    bearing: dict[str, set[Path]] = {}
    pending: list[Path] = []
    for asset, partition in store.places():
        if (asset, partition) in gone:
            continue
        history = store.history(asset, partition)
        for published in history:
            publications.setdefault(published.path, []).append(published)
            bearing.setdefault(published.version, set()).add(published.path)
        pending += list(dict.fromkeys(published.path for published in history[::-1]))[:keep]
        current = store.current(asset, partition)
        if current is not None:
            pending.append(current.path)
    roots = [publications[path][-1] for path in pending if path in publications]
    kept = _of_gone(store, roots, gone) if gone else set()
    while pending:
        path = pending.pop()
        if path in kept:
            continue
        kept.add(path)
        # By value alone: a version string anywhere in inputs or parents protects what bears it.
        for published in publications.get(path, []):
            for text in _strings([published.inputs, published.parents]):
                pending += bearing.get(text, ())
    return kept


def _of_gone(store: Store, roots: Sequence[Published], gone: Collection[Place]) -> set[Path]:
    """Versions of places that are gone from which the roots were made."""
    return {
        ancestor.path
        for root in roots
        for ancestor in lineage(store, root.asset, root.partition, root.version)
        if (ancestor.asset, ancestor.partition) in gone
    }


def _remove(store: Store, asset: str, partition: str | None, path: Path) -> bool:
    """Remove one version, unless it came into force meanwhile."""
    with store.publishing(asset, partition), writing(path):
        current = store.current(asset, partition)
        if current is not None and current.path == path:
            return False
        # Moved away in one step, so that no reader sees half a version.
        doomed = store.staging / f"{uuid.uuid4().hex}.pruned"
        path.replace(doomed)
        shutil.rmtree(doomed, ignore_errors=True)
        manifest_file(path).unlink(missing_ok=True)
        return True


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
