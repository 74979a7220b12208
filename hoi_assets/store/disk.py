"""Writes that are whole or absent, with errors that name the place and the remedy."""

import errno
import hashlib
import os
import re
import shutil
import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hoi_assets.errors import HoiError

ABANDONED_AFTER_S = 3600.0
_TEMPORARY = re.compile(r"([0-9a-f]{8})-(\d+)-[0-9a-f]{32}\.tmp")
# EFBIG is what a file-size limit of the process gives, EDQUOT a user's quota.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# Where a quota or a file-size limit stops a write, SQLite reports an I/O error.
FULL_CODES = frozenset(
    {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE}
)
# How libraries that are not written in Python say so: polars, safetensors, DuckDB.
FULL_IN_WORDS = re.compile(
    "|".join(
        (
            *(rf"os error {code}\b" for code in sorted(FULL)),
            *(re.escape(os.strerror(code)) for code in (errno.ENOSPC, errno.EDQUOT)),
        )
    )
)
REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST})


class DiskFull(HoiError):
    """No room left where the store writes. What was published before is unharmed."""

    def __init__(self, place: Path) -> None:
        super().__init__(
            f"disk full while writing {place}: {_room(place)}",
            "free some space (`hoi prune` removes old versions) or set HOI_HOME to a larger disk, "
            "then run again: finished work is not done twice",
        )


def _room(place: Path) -> str:
    """How many bytes are free where a path is, in words."""
    folder = next(path for path in (place, *place.absolute().parents) if path.is_dir())
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        return "how much is free is not known"
    return f"{free} bytes free in {folder}, or a quota or file-size limit is reached"


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Turn the system's write errors inside the block into a HoiError that names `place`.

    Raises:
        DiskFull: no space, quota or file-size limit reached.
        HoiError: permission denied, a read-only file system, or a file where a folder is needed.

    Example:
        >>> with writing(Path("/dev/null")):
        ...     _ = Path("/dev/null").write_text("1", encoding="utf-8")
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise DiskFull(place) from error
        if error.errno in REFUSED:
            raise HoiError(
                f"cannot write {place}: {error.strerror}",
                "give this user write permission there, or set HOI_HOME to a folder of your own",
            ) from error
        raise


def is_full(error: BaseException) -> bool:
    """Whether an error, or one that it came from, says that a disk is full.

    Example:
        >>> is_full(OSError(errno.ENOSPC, "No space left on device"))
        True
    """
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, DiskFull):
            return True
        if isinstance(found, OSError) and found.errno in FULL:
            return True
        if isinstance(found, sqlite3.Error) and getattr(found, "sqlite_errorcode", 0) in FULL_CODES:
            return True
        if FULL_IN_WORDS.search(str(found)):
            return True
        found = found.__cause__ or found.__context__
    return False


def sync(path: Path) -> None:
    """Flush a file or folder to disk (fsync)."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def temporary_path(folder: Path) -> Path:
    """A new name in `folder` for a file being written. It says which process writes it, so that
    `is_abandoned` knows when that one is gone."""
    return folder / f"{_host()}-{os.getpid()}-{uuid.uuid4().hex}.tmp"


def is_abandoned(path: Path) -> bool:
    """Whether the process that wrote `path`, or a file beside it, to the name that
    `temporary_path` gave it is dead; of another machine's, whether it is old."""
    found = _TEMPORARY.match(path.name)
    if found is not None and found[1] == _host():
        return not is_alive(int(found[2]))
    try:
        # Where the clock was set back meanwhile, its time lies ahead.
        return abs(time.time() - path.stat().st_mtime) > ABANDONED_AFTER_S
    except FileNotFoundError:
        return False


def _host() -> str:
    return hashlib.sha256(os.uname().nodename.encode()).hexdigest()[:8]


def is_alive(pid: int) -> bool:
    """Whether there is a process of that id on this machine."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True  # of another user
    return True


def replace_bytes(path: Path, data: bytes, temporary: Path, durable: bool, mode: int) -> None:
    """Write `path` whole or not at all, by way of a file in `temporary` (same file system).

    Args:
        durable: fsync file and folder, so that it also survives a power cut.
        mode: permission bits of the file.
    """
    partial = temporary_path(temporary)
    with writing(path):
        try:
            with partial.open("xb") as file:
                file.write(data)
                file.flush()
                os.fchmod(file.fileno(), mode)
                if durable:
                    os.fsync(file.fileno())
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        if durable:
            sync(path.parent)


def append_line(path: Path, line: str) -> None:
    """Append one line durably; a line that a kill or a full disk cut short before is dropped."""
    whole = 0
    if path.exists():
        whole = path.read_bytes().rfind(b"\n") + 1
        os.truncate(path, whole)
    data = memoryview(f"{line}\n".encode())
    try:
        # Unbuffered, so that nothing is left to be written when the block ends by an error.
        with path.open("ab", buffering=0) as file:
            while data:
                data = data[file.write(data) :]
            os.fsync(file.fileno())
    except OSError:
        os.truncate(path, whole)
        raise
    sync(path.parent)
