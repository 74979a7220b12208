"""For processes that a test starts: a free port, and limits (`preexec_fn` of `subprocess`)."""

import ctypes
import os
import resource
import socket
from collections.abc import Callable
from pathlib import Path

PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 24, 1


def free_port() -> int:
    """A port of loopback where nothing listens now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def obey_permissions() -> None:
    """Even root may write only where the mode says so."""
    if os.geteuid() == 0:
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0)


def full_disk(limit: int) -> Callable[[], None]:
    """No file grows beyond `limit` bytes: a full disk for any user."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def set_writable(folder: Path, writable: bool) -> None:
    """Give or take the permission to write a folder and everything below."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | 0o200 if writable else mode & ~0o222)
