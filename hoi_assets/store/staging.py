"""Putting a version together in a folder of its own, before it is published or quarantined."""

import io
import json
import os
import shutil
import uuid
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from hoi_assets.errors import HoiError
from hoi_assets.hashing import files_below
from hoi_assets.store.disk import is_abandoned, replace_bytes, sync, writing
from hoi_assets.store.places import check_names, folder_name
from hoi_assets.store.published import content_version

if TYPE_CHECKING:
    import polars as pl

LOCK_TIMEOUT_S = 60.0
ROW_GROUP_ROWS = 65_536


class Staging:
    """A folder in which a version is put together. Made by `Store.stage`; a context manager.

    On exit the folder is removed, unless it was published or quarantined.

    Args:
        temporary: the home's folder `staging`.
    """

    def __init__(self, temporary: Path, asset: str, partition: str | None) -> None:
        check_names(asset, partition)
        self.asset = asset
        self.partition = partition
        name = f"{asset}-{folder_name(partition)}-{uuid.uuid4().hex[:12]}"
        self.path = temporary / name
        self._temporary = temporary
        # Held while the folder is in use; the system releases it when the process dies.
        self._lock = FileLock(self.path.with_name(f"{name}.lock"), thread_local=False)
        with writing(self.path):
            self._lock.acquire(timeout=LOCK_TIMEOUT_S)
            self.path.mkdir()

    def write_table(self, name: str, table: "pl.DataFrame") -> Path:
        """Write `<name>.parquet`; equal tables give equal bytes.

        Example:
            >>> staging.write_table("rows", pl.DataFrame({"row_id": ["a"]}))  # doctest: +SKIP
        """
        return self._write(f"{name}.parquet", parquet_bytes(table))

    def write_json(self, name: str, value: Any) -> Path:
        """Write `<name>.json`: keys sorted, UTF-8, two spaces of indent; no NaN.

        Example:
            >>> staging.write_json("thresholds", {"fidelity": 0.7})  # doctest: +SKIP
        """
        text = json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
        return self._write(f"{name}.json", f"{text}\n".encode())

    def write_text(self, name: str, text: str) -> Path:
        """Write a text file under its full name, e.g. "README.md", as UTF-8.

        Example:
            >>> staging.write_text("README.md", "# Card")  # doctest: +SKIP
        """
        return self._write(name, text.encode())

    def write_bytes(self, name: str, data: bytes) -> Path:
        """Write a binary file under its full name, e.g. "loss.png".

        Example:
            >>> staging.write_bytes("loss.png", png)  # doctest: +SKIP
        """
        return self._write(name, data)

    def add_folder(self, name: str, source: Path) -> Path:
        """Copy the files below `source` to the sub-folder `name` (links become files).

        Example:
            >>> staging.add_folder("lora", Path("/scratch/lora"))  # doctest: +SKIP
        """
        if not source.is_dir():
            raise HoiError(f"{source} is not a folder", f"make it before adding it as {name!r}")
        target = self._inside(name)
        with writing(target):
            for relative, path in files_below(source):
                (target / relative).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target / relative)
        return target

    def table(self, name: str) -> "pl.DataFrame":
        """Read a staged table back, as the gate does.

        Example:
            >>> staging.table("rows").height  # doctest: +SKIP
            48
        """
        import polars as pl

        return pl.read_parquet(self._inside(f"{name}.parquet"), glob=False)

    def version(self) -> str:
        """Hash of the staged content: 16 hex digits.

        Example:
            >>> staging.version()  # doctest: +SKIP
            '5d41402abc4b2a76'
        """
        return content_version(self.path)

    def seal(self) -> None:
        """Make the files read-only and flush them and their folders to disk."""
        for _, path in files_below(self.path):
            path.chmod(0o444)
            sync(path)
        for root, _, _ in os.walk(self.path):
            sync(Path(root))

    def _inside(self, name: str) -> Path:
        path = self.path / name
        if not path.resolve().is_relative_to(self.path.resolve()) or path == self.path:
            raise HoiError(f"file name {name!r} leaves the version's folder", "use a plain name")
        return path

    def _write(self, name: str, data: bytes) -> Path:
        path = self._inside(name)
        replace_bytes(path, data, self._temporary, durable=False, mode=0o644)
        return path

    def close(self) -> None:
        """Remove what is left of the folder and release its lock."""
        shutil.rmtree(self.path, ignore_errors=True)
        Path(self._lock.lock_file).unlink(missing_ok=True)
        self._lock.release(force=True)

    def __enter__(self) -> "Staging":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def parquet_bytes(table: "pl.DataFrame") -> bytes:
    """A table as Parquet: equal tables give equal bytes, in any process (same polars version).

    Example:
        >>> import polars as pl
        >>> parquet_bytes(pl.DataFrame({"a": [1]}))[:4]
        b'PAR1'
    """
    data = io.BytesIO()
    # One chunk and fixed row groups: how the table was put together must not show.
    table.rechunk().write_parquet(
        data,
        compression="zstd",
        compression_level=3,
        statistics=True,
        row_group_size=ROW_GROUP_ROWS,
        data_page_size=1024 * 1024,
    )
    return data.getvalue()


# Where folders are made that end beside it, not below `assets`.
NESTED_STAGING = ".staging"


def remove_abandoned(temporary: Path) -> None:
    """Remove what no living process holds: staging, and half-written files with what stands beside
    them (DuckDB's write-ahead log and its folder for large sorts).

    Args:
        temporary: the home's folder `staging`, or one named `NESTED_STAGING`.
    """
    for path in sorted(temporary.iterdir()):
        if path.suffix == ".lock":
            lock = FileLock(path, thread_local=False)
            try:
                lock.acquire(blocking=False)
            except (Timeout, OSError):
                continue
            shutil.rmtree(path.with_suffix(""), ignore_errors=True)
            path.unlink(missing_ok=True)
            lock.release(force=True)
        elif ".tmp" in path.suffixes:
            if is_abandoned(path):
                _remove(path)
        elif path.is_dir() and not path.with_name(f"{path.name}.lock").exists():
            shutil.rmtree(path, ignore_errors=True)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
