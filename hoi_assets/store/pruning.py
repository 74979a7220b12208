"""Removing versions that nothing in force was made from."""

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hoi_assets.errors import HoiError
from hoi_assets.store.disk import writing

if TYPE_CHECKING:
    from hoi_assets.store.versions import Published, Store


def prune(store: "Store", keep: int, dry_run: bool) -> list[Path]:
    """See `Store.prune`.

    Example:
        >>> prune(store, keep=1, dry_run=True)  # doctest: +SKIP
        []
    """
    if keep < 1:
        raise HoiError(f"prune: keep is {keep}", "keep at least 1: the version in force")
    publications: dict[Path, list[Published]] = {}
    bearing: dict[str, set[Path]] = {}
    pending: list[Path] = []
    for place in sorted((store.home / "assets").glob("*/*")):
        partition = None if place.name == "_" else place.name
        history = store.history(place.parent.name, partition)
        for published in history:
            publications.setdefault(published.path, []).append(published)
            bearing.setdefault(published.version, set()).add(published.path)
        pending += list(dict.fromkeys(published.path for published in history[::-1]))[:keep]
        current = store.current(place.parent.name, partition)
        if current is not None:
            pending.append(current.path)
    kept: set[Path] = set()
    while pending:
        path = pending.pop()
        if path in kept:
            continue
        kept.add(path)
        # By value alone: a version string anywhere in inputs or parents protects what bears it.
        for published in publications.get(path, []):
            for text in _strings([published.inputs, published.parents]):
                pending += bearing.get(text, ())

    removed = []
    for path in sorted((store.home / "assets").glob("*/*/versions/*")):
        if path in kept:
            continue
        if dry_run:
            removed.append(path)
            continue
        place = path.parent.parent
        partition = None if place.name == "_" else place.name
        with store.publishing(place.parent.name, partition), writing(path):
            current = store.current(place.parent.name, partition)
            if current is not None and current.path == path:
                continue
            # Out of the way at one stroke, so that no reader meets half a version.
            doomed = store.staging / f"{uuid.uuid4().hex}.pruned"
            path.replace(doomed)
            shutil.rmtree(doomed, ignore_errors=True)
            removed.append(path)
    return removed


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
