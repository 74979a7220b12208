"""The size of a mirror: copies of what is in the bucket, the least recently used removed first."""

import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from hoi_assets.errors import HoiError

DEFAULT_GB = 50.0
BYTES_PER_GB = 10**9
KEPT_SHARE = 0.9  # of the limit, after a removal
# What a process has been given a path of is not taken away from under it.
RECENT_S = 600.0
SWEPT_EVERY_S = 600.0
SWEPT_EVERY_SHARE = 0.05  # of the limit, in bytes fetched by this process
# Folders that are removed as a whole, as one file of them is of no use.
WHOLE = ("assets/*/*/versions/*", "trained/*/*", "quarantine/*/*/*")
IMAGES = "images/*/*.*"


def limit_bytes() -> int:
    """The size that a mirror may have: the environment variable `HOI_CACHE_GB`, else 50 GB.

    Raises:
        HoiError: not a number above 0.
    """
    given = os.environ.get("HOI_CACHE_GB")
    try:
        found = DEFAULT_GB if not given else float(given)
    except ValueError:
        found = 0.0
    if not found > 0:
        raise HoiError(f"HOI_CACHE_GB is {given!r}", "give a number of gigabytes above 0, e.g. 50")
    return int(found * BYTES_PER_GB)


@dataclass(frozen=True)
class _Copy:
    path: Path
    used: float
    size: int


class MirrorCache:
    """See the module. Safe for several processes.

    Args:
        mirror: its folder.
        recent_s: what was used so lately stays.
    """

    def __init__(self, mirror: Path, recent_s: float = RECENT_S) -> None:
        self.mirror = mirror
        self.recent_s = recent_s
        self._lock = threading.Lock()
        self._grown = 0

    def grew(self, size: int) -> None:
        """Count bytes that were added; removes copies where it is time to."""
        with self._lock:
            self._grown += size
            due = self._grown > SWEPT_EVERY_SHARE * limit_bytes() or self._last_sweep_is_old()
            if due:
                self._grown = 0
        if due:
            self.sweep()

    def sweep(self) -> int:
        """Remove the least recently used copies until the rest fits; returns how many bytes."""
        swept = self.mirror / "locks" / "swept"
        swept.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(swept.with_suffix(".lock"), timeout=0, thread_local=False):
                swept.touch()
                return self._sweep(limit_bytes())
        except Timeout:
            return 0  # another process does it

    def _sweep(self, limit: int) -> int:
        copies = sorted(self._copies(), key=lambda one: one.used)
        total = sum(one.size for one in copies)
        if total <= limit:
            return 0
        removed, newest = 0, time.time() - self.recent_s
        for one in copies:
            if total - removed <= KEPT_SHARE * limit or one.used > newest:
                break
            self.drop(one.path)
            removed += one.size
        return removed

    def drop(self, path: Path) -> None:
        """Remove a copy in one step, so that no reader sees half of it."""
        doomed = self.mirror / "staging" / f"{uuid.uuid4().hex}.pruned"
        try:
            path.replace(doomed)
        except FileNotFoundError:
            return
        if doomed.is_dir():
            shutil.rmtree(doomed, ignore_errors=True)
        else:
            doomed.unlink(missing_ok=True)

    def _copies(self) -> Iterator[_Copy]:
        for pattern in WHOLE:
            for folder in self.mirror.glob(pattern):
                if folder.is_dir():
                    size = sum(
                        _size(Path(f) / name) for f, _, names in os.walk(folder) for name in names
                    )
                    yield _Copy(folder, _used(folder), size)
        for path in self.mirror.glob(IMAGES):
            yield _Copy(path, _used(path), _size(path))

    def _last_sweep_is_old(self) -> bool:
        return time.time() - _used(self.mirror / "locks" / "swept") > SWEPT_EVERY_S


def _used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
