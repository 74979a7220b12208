"""Makes a sound ledger of a damaged one: what can still be read and is as it was written."""

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hoi_assets.store.disk import writing
from hoi_assets.store.ledger import Ledger, LedgerRow
from hoi_assets.store.ledger_file import CHECKED, PRIMARY_KEY, LedgerFile, checksum

if TYPE_CHECKING:
    import sqlalchemy as sa

SUFFIXES = ("", "-wal", "-shm")
# A column that is not covered by the checksum.
TIME = {"made": "made_at", "rows": "updated_at"}


@dataclass(frozen=True)
class Repaired:
    """What was saved.

    Attributes:
        aside: the damaged file; None on a server.
        kept: entries that were sound, by table.
        entered: rows of published tables that were lost.
    """

    aside: Path | None
    kept: dict[str, int]
    entered: int


def repair(ledger: Ledger, published: Iterable[LedgerRow]) -> Repaired:
    """Make the ledger anew of its sound entries and of published rows.

    A file is moved aside first; on a server, altered entries are deleted. No other process may use
    the home meanwhile.

    Args:
        published: rows as published tables hold them; those that the ledger still has are kept.

    Raises:
        HoiError: the folder cannot be written.
    """
    from hoi_assets.store.ledger_tables import delete_altered

    if not isinstance(ledger.database, LedgerFile):
        kept = ledger.database.run(delete_altered, write=True)
        return Repaired(None, kept, enter_missing(ledger, published))
    ledger.close()
    aside = _move_aside(ledger.path)
    kept = ledger.database.run(lambda connection: _refill(connection, aside), write=True)
    return Repaired(aside, kept, enter_missing(ledger, published))


def _move_aside(path: Path) -> Path:
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    with writing(aside):
        for suffix in SUFFIXES:
            part = path.with_name(f"{path.name}{suffix}")
            if part.exists():
                part.replace(aside.with_name(f"{aside.name}{suffix}"))
    return aside


def _refill(connection: "sa.Connection", aside: Path) -> dict[str, int]:
    """Enter what is sound in a damaged file; returns how many entries, by table."""
    from hoi_assets.store.ledger_tables import TABLES, count_change

    kept = {}
    for name, columns in CHECKED.items():
        names = (*columns, TIME[name], "crc")
        found = {entry[: PRIMARY_KEY[name]]: entry for entry in _sound(aside, name)}
        entries = [dict(zip(names, entry, strict=True)) for entry in found.values()]
        if entries:
            connection.execute(TABLES[name].insert(), entries)
        kept[name] = len(found)
    count_change(connection, sum(kept.values()))
    return kept


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
