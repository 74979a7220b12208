"""The ledger: generated values by key, so that nothing is made twice, and how every row ended.

One SQLite file in WAL mode, safe for several processes and threads at once. The file's structure is
checked when a process opens it, and each entry against its checksum when it is read.
"""

import json
import os
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from hoi_assets.errors import HoiError
from hoi_assets.hashing import canonical_json
from hoi_assets.store.disk import writing
from hoi_assets.store.ledger_file import CHECKED, DamagedLedger, checksum, connect, errors_named

if TYPE_CHECKING:
    import polars as pl

ROWS_AT_ONCE = 50_000
STATUSES = ("accepted", "rejected", "failed")
ROW = ", ".join(CHECKED["rows"])
PLACE = "stage = ? AND partition = ? AND row_id = ?"


class _RequiredRow(TypedDict):
    stage: str
    row_id: str
    status: Literal["accepted", "rejected", "failed"]


class LedgerRow(_RequiredRow, total=False):
    """How one row ended. `partition` None where the stage has none; `version` once published."""

    partition: str | None
    reason: str | None
    version: str | None


class Ledger:
    """See the module. Opened at the first use; every call is one transaction.

    Args:
        path: the SQLite file; made with its folder where absent.
        read_only: the folder cannot be written: read a copy, as SQLite writes even to read.
    """

    def __init__(self, path: Path, read_only: bool = False) -> None:
        self.path = path
        self.read_only = read_only
        self._copy: tempfile.TemporaryDirectory[str] | None = None
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._pid: int | None = None
        self._inherited: sqlite3.Connection | None = None

    def get(self, kind: str, keys: Iterable[str]) -> dict[str, Any]:
        """Stored values by key; keys without one are absent from the answer.

        Args:
            kind: what sort of thing, e.g. "image" or "llm_reply"; each kind has its own keys.
            keys: hashes of all that determines each thing (`hashing.digest`).

        Example:
            >>> known = store.ledger.get("image", [key])  # doctest: +SKIP
        """
        with self._transaction(write=False) as connection:
            return self._select(connection, kind, keys)

    def put(self, kind: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """Store values by key; the first write wins. Returns the winning value of every key.

        Values come back as JSON reads them (tuples as lists), now and at any later time alike.

        Raises:
            TypeError, ValueError: a value that is not JSON (NaN included).
            DiskFull: no space left; nothing of this call is stored.

        Example:
            >>> store.ledger.put("image", {key: {"image": digest}})  # doctest: +SKIP
            {'3f...': {'image': '9c...'}}
        """
        now = _now()
        texts = {key: canonical_json(value) for key, value in values.items()}
        rows = [(kind, key, text, now, checksum(kind, key, text)) for key, text in texts.items()]
        with self._transaction(write=True) as connection:
            connection.executemany(
                "INSERT INTO made (kind, key, value, made_at, crc) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT (kind, key) DO NOTHING",
                rows,
            )
            return self._select(connection, kind, values)

    def delete(self, kind: str, keys: Iterable[str]) -> int:
        """Delete values, so that they are made anew. Returns how many were deleted.

        Example:
            >>> store.ledger.delete("image", [key])  # doctest: +SKIP
            1
        """
        with self._transaction(write=True) as connection:
            return connection.execute(
                "DELETE FROM made WHERE kind = ? AND key IN (SELECT value FROM json_each(?))",
                (kind, json.dumps(list(keys))),
            ).rowcount

    def record(self, rows: Iterable[LedgerRow | Mapping[str, Any]]) -> None:
        """Record how rows ended; the latest status per (stage, partition, row_id) stands.

        `attempts` counts a row's tries: it grows when a row fails again or its outcome changes,
        not when the same success or rejection is recorded once more.

        Raises:
            HoiError: an unknown status, or a rejected or failed row without a reason.
            DiskFull: no space left; nothing of this call is stored.

        Example:
            >>> store.ledger.record([{"stage": "candidate_images", "partition": "hook",
            ...     "row_id": "ab12", "status": "failed", "reason": "no reply"}])  # doctest: +SKIP
        """
        now = _now()
        checked = [(*_checked(row), now) for row in rows]
        if not checked:
            return
        with self._transaction(write=True) as connection:
            connection.executemany(
                """
                INSERT INTO rows
                    (stage, partition, row_id, status, reason, version, attempts, updated_at)
                VALUES (?, ?, ?, ?, ?, ?, 1, ?)
                ON CONFLICT (stage, partition, row_id) DO UPDATE SET
                    attempts = attempts + (
                        excluded.status = 'failed' OR excluded.status <> rows.status
                        OR excluded.reason IS NOT rows.reason
                    ),
                    status = excluded.status,
                    reason = excluded.reason,
                    version = coalesce(excluded.version, rows.version),
                    updated_at = excluded.updated_at
                """,
                checked,
            )
            for stage, partition, row_id, *_ in checked:
                place = (stage, partition, row_id)
                one = connection.execute(f"SELECT {ROW} FROM rows WHERE {PLACE}", place).fetchone()
                connection.execute(
                    f"UPDATE rows SET crc = ? WHERE {PLACE}", (checksum(*one), *place)
                )
            connection.execute("UPDATE counter SET changes = changes + 1")

    def forget(self, stage: str, partition: str | None) -> int:
        """Remove how the rows of a place ended; generated values stay. Returns how many rows.

        Example:
            >>> store.ledger.forget("verified_pairs", "hook")  # doctest: +SKIP
            48
        """
        with self._transaction(write=True) as connection:
            removed = connection.execute(
                "DELETE FROM rows WHERE stage = ? AND partition = ?", (stage, partition or "")
            ).rowcount
            connection.execute("UPDATE counter SET changes = changes + 1")
        return removed

    def rows(
        self,
        stage: str | None = None,
        partition: str | None = None,
        status: str | None = None,
        row_id: str | None = None,
    ) -> "pl.DataFrame":
        """Rows that match all filters given, sorted by stage, partition, row_id.

        Columns: stage, partition (null where the stage has none), row_id, status, reason,
        version, attempts (int), updated_at (ISO 8601, UTC).

        Example:
            >>> store.ledger.rows(stage="verified_pairs", status="rejected")  # doctest: +SKIP
        """
        import polars as pl

        filters = {"stage": stage, "partition": partition, "status": status, "row_id": row_id}
        given = {name: value for name, value in filters.items() if value is not None}
        where = " AND ".join(f"{name} = ?" for name in given) or "1"
        with self._transaction(write=False) as connection:
            found = connection.execute(
                f"SELECT {ROW}, updated_at, crc FROM rows WHERE {where}"
                " ORDER BY stage, partition, row_id",
                tuple(given.values()),
            )
            text = ("stage", "partition", "row_id", "status", "reason", "version")
            schema = {
                **dict.fromkeys(text, pl.String),
                "attempts": pl.Int64,
                "updated_at": pl.String,
            }
            parts = [pl.DataFrame(schema=schema)]
            # As Python's objects, rows take many times their size: never all at once.
            while rows := found.fetchmany(ROWS_AT_ONCE):
                for *entry, _, crc in rows:
                    self._check("rows", entry, crc)
                table = [(stage, place or None, *more) for stage, place, *more, _ in rows]
                parts.append(pl.DataFrame(table, schema=schema, orient="row"))
        return pl.concat(parts)

    def changes(self) -> int:
        """How often rows were recorded: grows with every `record`, so that caches notice."""
        with self._transaction(write=False) as connection:
            found = connection.execute("SELECT changes FROM counter").fetchone()
        if found is None or not isinstance(found[0], int):
            raise DamagedLedger(self.path, "its counter of changes is lost")
        return found[0]

    def verify(self) -> dict[str, int]:
        """Check every entry; returns how many there are, by table.

        Raises:
            DamagedLedger: an entry was altered.
        """
        counts = dict.fromkeys(CHECKED, 0)
        with self._transaction(write=False) as connection:
            for table, columns in CHECKED.items():
                for *entry, crc in connection.execute(
                    f"SELECT {', '.join(columns)}, crc FROM {table}"
                ):
                    self._check(table, entry, crc)
                    counts[table] += 1
        return counts

    @contextmanager
    def opened(self) -> Iterator[sqlite3.Connection]:
        """A transaction that writes, for what repairs the file."""
        with self._transaction(write=True) as connection:
            yield connection

    def close(self) -> None:
        """Close the connection; the next use opens it again."""
        with self._lock:
            if self._connection is not None and self._pid == os.getpid():
                self._connection.close()
                self._connection = None

    def _select(
        self, connection: sqlite3.Connection, kind: str, keys: Iterable[str]
    ) -> dict[str, Any]:
        wanted = list(keys)
        found = {
            key: (value, crc)
            for key, value, crc in connection.execute(
                "SELECT key, value, crc FROM made WHERE kind = ?"
                " AND key IN (SELECT value FROM json_each(?))",
                (kind, json.dumps(wanted)),
            )
        }
        for key, (value, crc) in found.items():
            self._check("made", (kind, key, value), crc)
        return {key: json.loads(found[key][0]) for key in wanted if key in found}

    def _check(self, table: str, entry: Iterable[Any], crc: Any) -> None:
        values = tuple(entry)
        if checksum(*values) != crc:
            raise DamagedLedger(self.path, f"an entry of `{table}` was altered: {values[:2]}")

    @contextmanager
    def _transaction(self, write: bool) -> Iterator[sqlite3.Connection]:
        if write and self.read_only:
            raise HoiError(
                f"cannot write ledger {self.path}: the home is read-only",
                "give this user write permission there, or set HOI_HOME elsewhere",
            )
        with self._lock, errors_named(self.path):
            connection = self._open()
            connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def _open(self) -> sqlite3.Connection:
        # A connection must not cross a fork, nor be closed there: SQLite's locks are a process's.
        if self._connection is not None and self._pid != os.getpid():
            self._inherited, self._connection = self._connection, None
        if self._connection is None:
            with writing(self.path):
                path = self._copied() if self.read_only else self.path
                path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = connect(path, self.path)
            self._pid = os.getpid()
        return self._connection

    def _copied(self) -> Path:
        """A copy of the file with its write-ahead log, removed with this process."""
        self._copy = tempfile.TemporaryDirectory(prefix="hoi-ledger-")
        for path in (self.path, self.path.with_name(f"{self.path.name}-wal")):
            if path.exists():
                shutil.copyfile(path, Path(self._copy.name) / path.name)
        return Path(self._copy.name) / self.path.name


def _checked(row: Mapping[str, Any]) -> tuple[str, str, str, str, str | None, str | None]:
    status, reason = row["status"], row.get("reason")
    place = f"ledger row {row['row_id']!r} of {row['stage']}"
    if status not in STATUSES:
        raise HoiError(f"{place} has status {status!r}", f"use one of {', '.join(STATUSES)}")
    if status != "accepted" and not reason:
        raise HoiError(f"{place} is {status} without a reason", "give the reason")
    partition = row.get("partition") or ""
    return row["stage"], partition, row["row_id"], status, reason, row.get("version")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
