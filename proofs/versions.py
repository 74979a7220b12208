"""Versions of a home: which are in force, and putting them back."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from hoi_assets.store.versions import Store


def in_force(store: Store) -> dict[str, str]:
    """Versions by place."""
    return {one.name: one.version for one in store.all_current()}


def restore(store: Store, before: Mapping[str, str]) -> None:
    """Put the versions before in force again where another one came into force."""
    for one in store.all_current():
        if before.get(one.name) != one.version:
            good = store.version(one.asset, one.partition, before[one.name])
            with store.stage(one.asset, one.partition) as staging:
                copy_version(good.path, staging.path)
                store.publish(staging, good.inputs, None, dict(good.parents))


def copy_version(version: Path, target: Path) -> None:
    """A version's files again, writable."""
    shutil.copytree(version, target, dirs_exist_ok=True)
    for path in [target, *target.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
