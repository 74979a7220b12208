"""The ledger in an SQLite file: its connection, checksums, and what its errors mean."""

import os
import shutil
import sqlite3
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from filelock import FileLock

from hoi_assets.errors import HoiError
from hoi_assets.store.disk import FULL_CODES, DiskFull, writing

if TYPE_CHECKING:
    import sqlalchemy as sa

Result = TypeVar("Result")

# Of releases before Alembic; set still, so that those open the file.
SCHEMA_VERSION = 2
BUSY_TIMEOUT_S = 60.0
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

    def __init__(self, name: object, why: object) -> None:
        super().__init__(
            f"ledger {name} is damaged: {why}",
            "run `hoi repair`: it keeps what is sound and enters the rows of published tables "
            "anew (a damaged file is moved aside); published versions stay",
        )


class Database(Protocol):
    """Where a ledger is kept. Opened at the first use; safe for threads, processes and forks.

    Attributes:
        name: as messages name it.
    """

    name: str

    def run(self, work: "Callable[[sa.Connection], Result]", write: bool) -> Result:
        """Do some work in one transaction; it may be called again where that one did not end well.

        Args:
            write: whether the work writes.
        """
        ...

    def close(self) -> None:
        """Close the connection; the next use opens it again."""
        ...


class LedgerFile:
    """A `Database` in an SQLite file in WAL mode, whose structure is checked when it is opened.

    Args:
        path: made with its folder where absent.
        read_only: the folder cannot be written: read a copy, as SQLite writes even to read.
    """

    def __init__(self, path: Path, read_only: bool = False) -> None:
        self.path = path
        self.name = str(path)
        self.read_only = read_only
        self._copy: tempfile.TemporaryDirectory[str] | None = None
        self._lock = threading.Lock()
        self._connection: sa.Connection | None = None
        self._pid: int | None = None
        self._inherited: sa.Connection | None = None

    def run(self, work: "Callable[[sa.Connection], Result]", write: bool) -> Result:
        """See `Database`."""
        if write and self.read_only:
            raise HoiError(
                f"cannot write ledger {self.path}: the home is read-only",
                "give this user write permission there, or set HOI_HOME elsewhere",
            )
        with self._lock, errors_named(self.path):
            connection = self._open()
            with connection.begin():
                connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
                return work(connection)

    def close(self) -> None:
        """See `Database`."""
        with self._lock:
            if self._connection is not None and self._pid == os.getpid():
                self._connection.close()
                self._connection = None

    def _open(self) -> "sa.Connection":
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


@contextmanager
def errors_named(path: Path) -> Iterator[None]:
    """Turn SQLite's errors inside the block into a HoiError that names the file and the remedy."""
    try:
        yield
    except Exception as raised:
        # SQLAlchemy wraps it.
        error = getattr(raised, "orig", raised)
        if not isinstance(error, sqlite3.Error):
            raise
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


def connect(path: Path, named: Path) -> "sa.Connection":
    """A connection to a ledger of the current schema, made or brought up to it.

    Args:
        named: the file that errors name, where `path` is a copy of it.

    Raises:
        HoiError: a newer program wrote it.
        DamagedLedger: its structure is not sound.
        sqlite3.Error, sqlalchemy.exc.DBAPIError: see `errors_named`.
    """
    import sqlalchemy as sa

    engine = sa.create_engine(
        "sqlite://", creator=lambda: _connect(path, named), poolclass=sa.NullPool
    )
    connection = engine.connect()
    try:
        _prepare(connection, path, named)
    except BaseException:
        connection.close()
        raise
    return connection


def _connect(path: Path, named: Path) -> sqlite3.Connection:
    # Transactions begin where this module says so, not where Python's driver does.
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
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: "sa.Connection", path: Path, named: Path) -> None:
    """Bring a file to the current schema."""
    from hoi_assets.store import migrations

    found = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
    if found > SCHEMA_VERSION:
        raise migrations.newer(str(named), found, SCHEMA_VERSION)
    current = migrations.is_current(connection, str(named))
    connection.rollback()
    if current:
        return
    # Turning WAL on is not covered by the busy timeout, so one process at a time.
    with FileLock(path.with_suffix(".lock"), timeout=BUSY_TIMEOUT_S):
        connection.exec_driver_sql("PRAGMA journal_mode = WAL")
        connection.commit()
        with connection.begin():
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            names = "SELECT name FROM sqlite_master WHERE type = 'table'"
            tables = set(connection.exec_driver_sql(names).scalars())
            is_earlier = migrations.VERSION_TABLE not in tables and "made" in tables
            if is_earlier:
                _add_checksums(connection)
            migrations.upgrade(connection, stamp=migrations.BASE if is_earlier else None)
            connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _add_checksums(connection: "sa.Connection") -> None:
    """Give the entries of a file of the first release their checksums."""
    for table, columns in CHECKED.items():
        described = connection.exec_driver_sql(f"PRAGMA table_info({table})")
        if "crc" not in [column[1] for column in described]:
            connection.exec_driver_sql(f"ALTER TABLE {table} ADD COLUMN crc INTEGER")
        chosen = f"SELECT {', '.join(columns)} FROM {table} WHERE crc IS NULL"
        found = connection.exec_driver_sql(chosen).fetchall()
        key = PRIMARY_KEY[table]
        where = " AND ".join(f"{name} = ?" for name in columns[:key])
        if found:
            connection.exec_driver_sql(
                f"UPDATE {table} SET crc = ? WHERE {where}",
                [(checksum(*entry), *entry[:key]) for entry in found],
            )


def checksum(*entry: Any) -> int:
    """CRC-32 of an entry's values.

    >>> checksum("image", "ab12", "1") == checksum("image", "ab12", "2")
    False
    """
    return zlib.crc32(repr(entry).encode("utf-8", "surrogateescape"))
