"""Removing versions from a bucket, and what killed processes left there."""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from hoi_assets.store.locks import require
from hoi_assets.store.places import NAME, UNPARTITIONED, manifest_file
from hoi_assets.store.remote_home import RemoteHome
from hoi_assets.store.versions import Store

# An upload of a version takes less; its objects are out of reach until it ends.
GRACE_S = 24 * 3600.0


@dataclass(frozen=True)
class _Version:
    asset: str
    partition: str | None
    path: Path


def prune_bucket(
    store: Store, remote: RemoteHome, kept: Collection[Path], dry_run: bool
) -> list[Path]:
    """Remove versions that are not kept. One that was never published is what a killed process
    left, or an upload that is going on: it is removed once its newest
    object is `GRACE_S` old by the server's clock.

    Args:
        kept: folders of versions in the mirror.

    Returns:
        Folders of the removed versions.
    """
    removed = []
    for version, age_s in sorted(_ages(remote).items(), key=lambda one: str(one[0].path)):
        if version.path in kept:
            continue
        published = {one.path for one in store.history(version.asset, version.partition)}
        if version.path not in published and age_s < GRACE_S:
            continue
        if dry_run or _remove(store, remote, version):
            removed.append(version.path)
    if not dry_run:
        remote.bucket.abort_uploads(GRACE_S)
    return removed


def _ages(remote: RemoteHome) -> dict[_Version, float]:
    """All versions with an object in the bucket, and the age of the newest one."""
    ages: dict[_Version, list[float]] = defaultdict(list)
    for one in remote.bucket.list("assets/"):
        _, asset, folder, kind, *rest = (*one.key.split("/"), "", "", "")
        if not (NAME.fullmatch(asset) and NAME.fullmatch(folder)):
            continue
        name = rest[0] if kind == "versions" else rest[0].removesuffix(".json")
        if kind in ("versions", "manifests") and name:
            partition = None if folder == UNPARTITIONED else folder
            path = remote.mirror / "assets" / asset / folder / "versions" / name
            ages[_Version(asset, partition, path)].append(one.age_s)
    return {version: min(found) for version, found in ages.items()}


def _remove(store: Store, remote: RemoteHome, version: _Version) -> bool:
    """Remove one version, unless it came into force meanwhile."""
    with store.publishing(version.asset, version.partition):
        current = store.current(version.asset, version.partition)
        if current is not None and current.path == version.path:
            return False
        require(remote, version.asset, version.partition)
        remote.remove(version.path, manifest_file(version.path))
        return True
