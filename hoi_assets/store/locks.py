"""Locks of a place: a long one while it is computed, a short one while it is published."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from hoi_assets.errors import HoiError
from hoi_assets.store.disk import replace_bytes, writing
from hoi_assets.store.places import check_names, folder_name, place_name
from hoi_assets.store.remote_home import RemoteHome

PUBLISH_TIMEOUT_S = 60.0
PUBLISH_POLL_S = 0.005


@contextmanager
def computing(
    locks: Path, temporary: Path, asset: str, partition: str | None, timeout_s: float
) -> Iterator[None]:
    """See `Store.lock`.

    Args:
        locks: the home's folder `locks`.
        temporary: the home's folder `staging`.
    """
    check_names(asset, partition)
    folder = locks / "computing" / asset
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    stem = folder_name(partition)
    lock = FileLock(folder / f"{stem}.lock", thread_local=False)
    holder = folder / f"{stem}.holder"
    try:
        with writing(folder):
            lock.acquire(timeout=timeout_s)
    except Timeout as error:
        try:
            who = holder.read_text(encoding="utf-8")
        except FileNotFoundError:
            who = "another process"
        raise HoiError(
            f"{place_name(asset, partition)} is being made by {who} since more than "
            f"{timeout_s:g} s",
            "wait until it ends, or stop that process, then run again",
        ) from error
    try:
        since = datetime.now(UTC).isoformat(timespec="seconds")
        text = f"process {os.getpid()} on {os.uname().nodename} (started holding {since})"
        replace_bytes(holder, text.encode(), temporary, durable=False, mode=0o644)
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release(force=True)


@contextmanager
def publishing(locks: Path, asset: str, partition: str | None) -> Iterator[None]:
    """See `Store.publishing`."""
    folder = locks / "publishing" / asset
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{folder_name(partition)}.lock"
    lock = FileLock(folder / name, timeout=PUBLISH_TIMEOUT_S, thread_local=False)
    with lock.acquire(poll_interval=PUBLISH_POLL_S):
        yield


def computing_remotely(
    remote: RemoteHome, asset: str, partition: str | None, timeout_s: float
) -> AbstractContextManager[None]:
    """See `Store.lock`; of a home in a bucket."""
    key = _remote_key("computing", asset, partition)
    return remote.locks.holding(key, place_name(asset, partition), timeout_s)


def publishing_remotely(
    remote: RemoteHome, asset: str, partition: str | None
) -> AbstractContextManager[None]:
    """See `Store.publishing`; of a home in a bucket."""
    key = _remote_key("publishing", asset, partition)
    # A dead publisher's lock expires while this one waits.
    timeout_s = PUBLISH_TIMEOUT_S + remote.locks.ttl_s
    return remote.locks.holding(key, place_name(asset, partition), timeout_s)


def require(remote: RemoteHome, asset: str, partition: str | None) -> None:
    """Check that this process still has the locks that it took on a place.

    Raises:
        HoiError: one was lost.
    """
    for kind in ("computing", "publishing"):
        remote.locks.require(_remote_key(kind, asset, partition), place_name(asset, partition))


def _remote_key(kind: str, asset: str, partition: str | None) -> str:
    check_names(asset, partition)
    return f"locks/{kind}/{asset}/{folder_name(partition)}.json"
