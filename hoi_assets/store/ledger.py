"""The ledger: generated values by key, so that nothing is made twice, and how every row ended.

Kept in an SQLite file of the home, or on a Postgres server (see `ledger_home`); either is safe for
several processes and threads at once. Each entry is checked against its checksum when it is read.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from hoi_assets.errors import HoiError
from hoi_assets.hashing import canonical_json
from hoi_assets.store.ledger_file import (
    CHECKED,
    DamagedLedger,
    Database,
    LedgerFile,
    Result,
    checksum,
)

if TYPE_CHECKING:
    import polars as pl
    import sqlalchemy as sa

STATUSES = ("accepted", "rejected", "failed")


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
        place: the SQLite file, made with its folder where absent; or a database.
        read_only: the file's folder cannot be written: see `LedgerFile`.
    """

    def __init__(self, place: Path | Database, read_only: bool = False) -> None:
        self.database: Database = LedgerFile(place, read_only) if isinstance(place, Path) else place

    @property
    def path(self) -> Path:
        """The SQLite file.

        Raises:
            HoiError: the ledger is on a server.
        """
        if isinstance(self.database, LedgerFile):
            return self.database.path
        raise HoiError(f"ledger {self.database.name} is no file", "query it on its server")

    def get(self, kind: str, keys: Iterable[str]) -> dict[str, Any]:
        """Stored values by key; keys without one are absent from the answer.

        Args:
            kind: what sort of thing, e.g. "image" or "llm_reply"; each kind has its own keys.
            keys: hashes of all that determines each thing (`hashing.digest`).

        Example:
            >>> known = store.ledger.get("image", [key])  # doctest: +SKIP
        """
        wanted = list(keys)
        return self._run(lambda connection: self._select(connection, kind, wanted), write=False)

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
        from hoi_assets.store import ledger_tables as tables

        now = _now()
        texts = {key: canonical_json(value) for key, value in values.items()}
        entries = [
            {
                "kind": kind,
                "key": key,
                "value": text,
                "made_at": now,
                "crc": checksum(kind, key, text),
            }
            for key, text in texts.items()
        ]

        def store(connection: "sa.Connection") -> dict[str, Any]:
            tables.add_values(connection, entries)
            return self._select(connection, kind, list(texts))

        return self._run(store, write=True)

    def delete(self, kind: str, keys: Iterable[str]) -> int:
        """Delete values, so that they are made anew. Returns how many were deleted.

        Example:
            >>> store.ledger.delete("image", [key])  # doctest: +SKIP
            1
        """
        from hoi_assets.store.ledger_tables import delete_values

        chosen = list(keys)
        return self._run(lambda connection: delete_values(connection, kind, chosen), write=True)

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
        from hoi_assets.store.ledger_tables import record_rows

        now = _now()
        entries = [{**_checked(row), "updated_at": now} for row in rows]
        if entries:
            self._run(lambda connection: record_rows(connection, entries), write=True)

    def forget(self, stage: str, partition: str | None) -> int:
        """Remove how the rows of a place ended; generated values stay. Returns how many rows.

        Example:
            >>> store.ledger.forget("verified_pairs", "hook")  # doctest: +SKIP
            48
        """
        from hoi_assets.store.ledger_tables import forget_rows

        place = partition or ""
        return self._run(lambda connection: forget_rows(connection, stage, place), write=True)

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
        return self.read_rows(lambda parts: pl.concat([*parts]), given)

    def read_rows(
        self,
        use: "Callable[[Iterator[pl.DataFrame]], Result]",
        filters: Mapping[str, str] | None = None,
    ) -> "Result":
        """What `use` makes of the rows, which come as `rows` gives them, in portions.

        Args:
            use: is called anew where the database went away in between.
            filters: value by column.
        """
        import polars as pl

        from hoi_assets.store.ledger_tables import found_rows

        text = ("stage", "partition", "row_id", "status", "reason", "version")
        schema = {
            **dict.fromkeys(text, pl.String),
            "attempts": pl.Int64,
            "updated_at": pl.String,
        }

        def parts(connection: "sa.Connection") -> Iterator[pl.DataFrame]:
            yield pl.DataFrame(schema=schema)
            for portion in found_rows(connection, filters or {}):
                for *entry, _, crc in portion:
                    self._check("rows", entry, crc)
                table = [(stage, place or None, *more) for stage, place, *more, _ in portion]
                yield pl.DataFrame(table, schema=schema, orient="row")

        return self._run(lambda connection: use(parts(connection)), write=False)

    def changes(self) -> int:
        """How often rows were recorded: grows with every `record`, so that caches notice."""
        from hoi_assets.store.ledger_tables import changes_of

        found = self._run(changes_of, write=False)
        if not isinstance(found, int):
            raise DamagedLedger(self.database.name, "its counter of changes is lost")
        return found

    def verify(self) -> dict[str, int]:
        """Check every entry; returns how many there are, by table.

        Raises:
            DamagedLedger: an entry was altered.
        """
        from hoi_assets.store.ledger_tables import entries_of

        def count(connection: "sa.Connection") -> dict[str, int]:
            counts = dict.fromkeys(CHECKED, 0)
            for table, columns in CHECKED.items():
                for portion in entries_of(connection, table, (*columns, "crc")):
                    for *entry, crc in portion:
                        self._check(table, entry, crc)
                    counts[table] += len(portion)
            return counts

        return self._run(count, write=False)

    def close(self) -> None:
        """Close the connection; the next use opens it again."""
        self.database.close()

    def _run(self, work: "Callable[[sa.Connection], Result]", write: bool) -> Result:
        return self.database.run(work, write)

    def _select(
        self, connection: "sa.Connection", kind: str, wanted: Sequence[str]
    ) -> dict[str, Any]:
        from hoi_assets.store.ledger_tables import values_of

        found = values_of(connection, kind, wanted)
        for key, (value, crc) in found.items():
            self._check("made", (kind, key, value), crc)
        return {key: json.loads(found[key][0]) for key in wanted if key in found}

    def _check(self, table: str, entry: Iterable[Any], crc: Any) -> None:
        values = tuple(entry)
        if checksum(*values) != crc:
            why = f"an entry of `{table}` was altered: {values[:2]}"
            raise DamagedLedger(self.database.name, why)


def _checked(row: Mapping[str, Any]) -> dict[str, str | None]:
    status, reason = row["status"], row.get("reason")
    place = f"ledger row {row['row_id']!r} of {row['stage']}"
    if status not in STATUSES:
        raise HoiError(f"{place} has status {status!r}", f"use one of {', '.join(STATUSES)}")
    if status != "accepted" and not reason:
        raise HoiError(f"{place} is {status} without a reason", "give the reason")
    return {
        "stage": row["stage"],
        "partition": row.get("partition") or "",
        "row_id": row["row_id"],
        "status": status,
        "reason": reason,
        "version": row.get("version"),
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
