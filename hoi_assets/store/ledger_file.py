"""The ledger's SQLite file: its schema, checksums, and what its errors mean."""

import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from hoi_assets.errors import HoiError
from hoi_assets.store.disk import FULL_CODES, DiskFull

SCHEMA_VERSION = 2
BUSY_TIMEOUT_S = 60.0
SCHEMA = (Path(__file__).parent / "ledger.sql").read_text(encoding="utf-8")
# SQLite's codes for a file that is not what it wrote; ERROR where a name of the schema is lost.
DAMAGE = frozenset(
    {
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_ERROR,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_MISMATCH,
    }
)
# What an entry's checksum covers, by table.
CHECKED = {
    "made": ("kind", "key", "value"),
    "rows": ("stage", "partition", "row_id", "status", "reason", "version", "attempts"),
}
# So many columns, the first ones, are the primary key.
PRIMARY_KEY = {"made": 2, "rows": 3}


class DamagedLedger(HoiError):
    """The ledger is not what this program wrote."""

    def __init__(self, path: Path, why: object) -> None:
        super().__init__(
            f"ledger {path} is damaged: {why}",
            "run `hoi repair`: it keeps what is sound, enters the rows of published tables anew, "
            "and moves the damaged file aside; published versions stay",
        )


@contextmanager
def errors_named(path: Path) -> Iterator[None]:
    """Turn SQLite's errors inside the block into a HoiError that names the file and the remedy."""
    try:
        yield
    except sqlite3.Error as error:
        extended = getattr(error, "sqlite_errorcode", 0)
        code = extended & 0xFF  # the primary result code
        if extended in FULL_CODES:
            raise DiskFull(path) from error
        if code == sqlite3.SQLITE_BUSY:
            raise HoiError(
                f"ledger {path} stayed locked for {BUSY_TIMEOUT_S:.0f} s",
                "another process holds it; let it end, then run again",
            ) from error
        if code in DAMAGE:
            raise DamagedLedger(path, error) from error
        if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
            raise HoiError(
                f"cannot write ledger {path}: {error}",
                "give this user write permission there, or set HOI_HOME elsewhere",
            ) from error
        raise


def connect(path: Path, named: Path) -> sqlite3.Connection:
    """A connection to a ledger of the current schema, made or brought up to it.

    Args:
        named: the file that errors name, where `path` is a copy of it.

    Raises:
        HoiError: a newer program wrote it.
        DamagedLedger: its structure is not sound.
        sqlite3.Error: see `errors_named`.
    """
    connection = sqlite3.connect(
        path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )
    # A damaged text is found by its checksum.
    connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
    try:
        problem = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
        if problem != "ok":
            raise DamagedLedger(named, " ".join(problem.split()))
        connection.execute("PRAGMA synchronous = NORMAL")
        found = connection.execute("PRAGMA user_version").fetchone()[0]
        if found > SCHEMA_VERSION:
            raise HoiError(
                f"ledger {named} has schema {found}, this program knows {SCHEMA_VERSION}",
                "update hoi-assets, or set HOI_HOME to another folder",
            )
        if found < SCHEMA_VERSION:
            # Turning WAL on is not covered by the busy timeout, so one process at a time.
            with FileLock(path.with_suffix(".lock"), timeout=BUSY_TIMEOUT_S):
                connection.execute("PRAGMA journal_mode = WAL")
                connection.executescript(SCHEMA)
                _add_checksums(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _add_checksums(connection: sqlite3.Connection) -> None:
    """Bring a ledger of schema 1, or one begun, to the current schema."""
    connection.execute("BEGIN IMMEDIATE")
    for table, columns in CHECKED.items():
        names = [column[1] for column in connection.execute(f"PRAGMA table_info({table})")]
        if "crc" not in names:
            connection.execute(f"ALTER TABLE {table} ADD COLUMN crc INTEGER")
        chosen = ", ".join(columns)
        found = connection.execute(f"SELECT {chosen} FROM {table} WHERE crc IS NULL").fetchall()
        key = PRIMARY_KEY[table]
        where = " AND ".join(f"{name} = ?" for name in columns[:key])
        connection.executemany(
            f"UPDATE {table} SET crc = ? WHERE {where}",
            [(checksum(*entry), *entry[:key]) for entry in found],
        )
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("COMMIT")


def checksum(*entry: Any) -> int:
    """CRC-32 of an entry's values.

    >>> checksum("image", "ab12", "1") == checksum("image", "ab12", "2")
    False
    """
    return zlib.crc32(repr(entry).encode("utf-8", "surrogateescape"))
