"""Makes a sound ledger of a damaged one: what can still be read and is as it was written."""

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hoi_assets.store.disk import writing
from hoi_assets.store.ledger import Ledger, LedgerRow
from hoi_assets.store.ledger_file import CHECKED, PRIMARY_KEY, checksum

SUFFIXES = ("", "-wal", "-shm")
# A column that is not covered by the checksum.
TIME = {"made": "made_at", "rows": "updated_at"}


@dataclass(frozen=True)
class Repaired:
    """What was saved.

    Attributes:
        aside: the damaged file.
        kept: entries that were sound, by table.
        entered: rows of published tables that were lost.
    """

    aside: Path
    kept: dict[str, int]
    entered: int


def repair(ledger: Ledger, published: Iterable[LedgerRow]) -> Repaired:
    """Move the ledger's file aside and make it anew of its sound entries and of published rows.

    No other process may use the home meanwhile.

    Args:
        published: rows as published tables hold them; those that the ledger still has are kept.

    Raises:
        HoiError: the folder cannot be written.
    """
    ledger.close()
    number = 1
    while (aside := ledger.path.with_name(f"{ledger.path.name}.damaged-{number}")).exists():
        number += 1
    with writing(aside):
        for suffix in SUFFIXES:
            part = ledger.path.with_name(f"{ledger.path.name}{suffix}")
            if part.exists():
                part.replace(aside.with_name(f"{aside.name}{suffix}"))
    kept = {}
    with ledger.opened() as connection:
        for table, columns in CHECKED.items():
            names = (*columns, TIME[table], "crc")
            found = {entry[: PRIMARY_KEY[table]]: entry for entry in _sound(aside, table)}
            connection.executemany(
                f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})",
                list(found.values()),
            )
            kept[table] = len(found)
        connection.execute("UPDATE counter SET changes = ?", (sum(kept.values()),))
    return Repaired(aside, kept, enter_missing(ledger, published))


def enter_missing(ledger: Ledger, published: Iterable[LedgerRow]) -> int:
    """Record the rows that the ledger lacks; returns how many."""
    known = {row[:3] for row in ledger.rows().iter_rows()}

    def is_known(row: LedgerRow) -> bool:
        return (row["stage"], row.get("partition"), row["row_id"]) in known

    lost = [row for row in published if not is_known(row)]
    ledger.record(lost)
    return len(lost)


def _sound(path: Path, table: str) -> Iterator[tuple[object, ...]]:
    """Entries of a damaged file whose checksum holds, from both ends up to what cannot be read."""
    columns = CHECKED[table]
    key = columns[: PRIMARY_KEY[table]]
    for order in ("ASC", "DESC"):
        connection = sqlite3.connect(path, isolation_level=None)
        connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
        try:
            # A file that was cut short is read as far as it goes.
            connection.execute("PRAGMA writable_schema = ON")
            for *entry, time, crc in connection.execute(
                f"SELECT {', '.join(columns)}, {TIME[table]}, crc FROM {table}"
                f" ORDER BY {', '.join(f'{name} {order}' for name in key)}"
            ):
                if checksum(*entry) == crc and isinstance(time, str) and time.isascii():
                    yield (*entry, time, crc)
        except sqlite3.Error:
            continue
        finally:
            connection.close()
