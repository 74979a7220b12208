"""Which version of each place is in force, and every publication: in a folder, or in a bucket.

In a bucket all of a place is one object, `pointers/<asset>/<partition or "_">.jsonl`, a line per
publication and `null` where the place was taken out of force. It is written on the condition that
it is still as it was read, so that of several writers none overwrites another's line, and a reader
sees the old version or the new one.
"""

import json
import random
import time
from pathlib import Path
from typing import Any, Protocol

from hoi_assets.errors import HoiError
from hoi_assets.hashing import canonical_json
from hoi_assets.store.bucket_errors import Conflict
from hoi_assets.store.disk import append_line, replace_bytes
from hoi_assets.store.locks import require
from hoi_assets.store.places import (
    NAME,
    UNPARTITIONED,
    check_names,
    folder_name,
    place_folder,
    place_name,
    places,
)
from hoi_assets.store.published import Published
from hoi_assets.store.remote_home import POINTERS, RemoteHome

Place = tuple[str, str | None]  # asset, partition
TRIES = 20


class Pointers(Protocol):
    """What the store asks; every answer is of now."""

    def places(self) -> list[Place]:
        """Every place that was ever published, sorted by the folder's name."""
        ...

    def current(self, asset: str, partition: str | None) -> Published | None:
        """The version in force. Raises HoiError where the pointer cannot be read."""
        ...

    def history(self, asset: str, partition: str | None) -> list[Published]:
        """Every publication, oldest first."""
        ...

    def publish(self, published: Published) -> None:
        """Put a version in force."""
        ...

    def withdraw(self, asset: str, partition: str | None) -> None:
        """Take a place out of force; its publications stay known."""
        ...


class FolderPointers:
    """`current.json` and `publications.jsonl` in the folder of each place.

    Args:
        temporary: the home's folder `staging`.
    """

    def __init__(self, home: Path, temporary: Path) -> None:
        self._home = home
        self._temporary = temporary

    def places(self) -> list[Place]:
        """See `Pointers`."""
        return list(places(self._home))

    def current(self, asset: str, partition: str | None) -> Published | None:
        """See `Pointers`."""
        path = place_folder(self._home, asset, partition) / "current.json"
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        try:
            return Published.from_record(self._home, json.loads(text))
        except (ValueError, KeyError, TypeError) as error:
            raise _unreadable(str(path), asset, partition, error) from error

    def history(self, asset: str, partition: str | None) -> list[Published]:
        """See `Pointers`."""
        path = place_folder(self._home, asset, partition) / "publications.jsonl"
        if not path.exists():
            return []
        # A line without its end was cut short by a kill and never came into force.
        lines = path.read_bytes().split(b"\n")[:-1]
        return [Published.from_record(self._home, json.loads(line)) for line in lines if line]

    def publish(self, published: Published) -> None:
        """See `Pointers`; the caller holds the place's publishing lock."""
        folder = place_folder(self._home, published.asset, published.partition)
        line = canonical_json(published.as_record())
        append_line(folder / "publications.jsonl", line)
        data = f"{line}\n".encode()
        replace_bytes(folder / "current.json", data, self._temporary, durable=True, mode=0o644)

    def withdraw(self, asset: str, partition: str | None) -> None:
        """See `Pointers`; the caller holds the place's publishing lock."""
        (place_folder(self._home, asset, partition) / "current.json").unlink(missing_ok=True)


class BucketPointers:
    """See the module."""

    def __init__(self, remote: RemoteHome) -> None:
        self._remote = remote
        self._folder = remote.mirror / POINTERS

    def places(self) -> list[Place]:
        """See `Pointers`."""
        found = []
        for path in sorted(self._remote.paths_below(self._folder)):
            asset, partition = path.parent.name, path.stem
            if path.suffix == ".jsonl" and NAME.fullmatch(asset) and NAME.fullmatch(partition):
                found.append((asset, None if partition == UNPARTITIONED else partition))
        return found

    def current(self, asset: str, partition: str | None) -> Published | None:
        """See `Pointers`."""
        records = self._records(asset, partition, self._read(asset, partition))
        return None if not records or records[-1] is None else self._published(records[-1])

    def history(self, asset: str, partition: str | None) -> list[Published]:
        """See `Pointers`."""
        records = self._records(asset, partition, self._read(asset, partition))
        return [self._published(one) for one in records if one is not None]

    def publish(self, published: Published) -> None:
        """See `Pointers`.

        Raises:
            HoiError: other writers were first again and again, or a lock was lost.
        """
        self._append(published.asset, published.partition, published.as_record())

    def withdraw(self, asset: str, partition: str | None) -> None:
        """See `Pointers`."""
        records = self._records(asset, partition, self._read(asset, partition))
        if records and records[-1] is not None:
            self._append(asset, partition, None)

    def _append(self, asset: str, partition: str | None, record: dict[str, Any] | None) -> None:
        path = self._path(asset, partition)
        key, line = self._remote.key(path), f"{canonical_json(record)}\n".encode()
        for _ in range(TRIES):
            found = self._remote.bucket.get(key)
            before = b"" if found is None else found.data
            if record is not None and before.endswith(line):
                return  # the write arrived, its answer did not
            etag = None if found is None else found.etag
            # After the read: who loses a lock between the two is refused by the condition.
            require(self._remote, asset, partition)
            try:
                self._remote.bucket.put(key, before + line, etag, absent=found is None)
            except Conflict:
                time.sleep(random.uniform(0, 0.1))
                continue
            return
        raise HoiError(
            f"{place_name(asset, partition)}: other processes published at the same time, "
            f"{TRIES} times in a row",
            "run again; what was computed is kept",
        )

    def _read(self, asset: str, partition: str | None) -> bytes:
        return self._remote.pull(self._path(asset, partition)) or b""

    def _records(
        self, asset: str, partition: str | None, data: bytes
    ) -> list[dict[str, Any] | None]:
        try:
            return [json.loads(line) for line in data.splitlines() if line]
        except ValueError as error:
            address = self._remote.address(self._path(asset, partition))
            raise _unreadable(address, asset, partition, error) from error

    def _published(self, record: dict[str, Any]) -> Published:
        try:
            return Published.from_record(self._remote.mirror, record, self._remote)
        except (KeyError, TypeError) as error:
            folder = f"{self._remote.bucket.url}/pointers"
            raise _unreadable(folder, record.get("asset", "?"), None, error) from error

    def _path(self, asset: str, partition: str | None) -> Path:
        check_names(asset, partition)
        return self._folder / asset / f"{folder_name(partition)}.jsonl"


def _unreadable(where: str, asset: str, partition: str | None, error: Exception) -> HoiError:
    return HoiError(
        f"{where} is not readable as a pointer to a version: {error}",
        f"delete it and materialise {place_name(asset, partition)} again",
    )
