"""Limits that a process puts on itself, and small file systems."""

import os
import resource
import subprocess
from pathlib import Path


def limit_files(size: int) -> None:
    """No file of this process grows beyond `size` bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def limit_memory(mib: int) -> None:
    """Leave so many MiB of address space beyond what this process has."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * os.sysconf("SC_PAGE_SIZE") + (mib << 20)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def mount_tmpfs(folder: Path, size_kib: int) -> bool:
    """Mount a file system of that size; False where this user may not."""
    return _mount(folder, "-t", "tmpfs", "-o", f"size={size_kib}k", "tmpfs")


def grow_tmpfs(folder: Path, size_kib: int) -> None:
    """Give a mounted one another size."""
    if not _mount(folder, "-o", f"remount,size={size_kib}k"):
        raise RuntimeError(f"cannot mount {folder} anew")


def unmount(folder: Path) -> None:
    """Take it away, with all that it holds."""
    subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=True)


def _mount(folder: Path, *options: str) -> bool:
    if os.geteuid() != 0:
        return False
    done = subprocess.run(["mount", *options, str(folder)], capture_output=True, check=False)
    return done.returncode == 0
