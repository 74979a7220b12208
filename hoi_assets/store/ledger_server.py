"""The ledger in a database of a Postgres server.

Every transaction that writes enters an id of its own first. Where a connection is lost before the
end was heard, the id tells whether the transaction came to pass, so that nothing is entered twice.
"""

import logging
import os
import random
import threading
import time
import uuid
from collections.abc import Callable
from typing import Generic, Protocol

import sqlalchemy as sa

from hoi_assets.errors import HoiError
from hoi_assets.store import migrations
from hoi_assets.store.ledger_address import LedgerAddress
from hoi_assets.store.ledger_file import BUSY_TIMEOUT_S, Result
from hoi_assets.store.ledger_tables import insert, writes

# How long a server that does not answer is waited for, and how long between two tries.
AWAY_S = 120.0
PAUSES_S = (0.1, 5.0)
# A client that died amid a transaction gives up its locks after so long.
IDLE_TIMEOUT_S = 300.0
# Of Postgres's advisory locks: one process at a time changes the schema or claims the database.
OPENING_LOCK = 0x686F695F6C656467
KEPT_WRITES = "DELETE FROM writes WHERE written_at < now() - interval '1 day'"
FINISHED = "finished work is not done twice"

logger = logging.getLogger(__name__)


class Owner(Protocol):
    """The home that a ledger belongs to."""

    def check(self, connection: sa.Connection, name: str) -> None:
        """Make the database the home's where it is nobody's.

        Raises:
            HoiError: it belongs to another home.
        """
        ...

    def claimed(self, name: str) -> None:
        """Called once that is stored."""
        ...


class LedgerServer:
    """A `Database` on a server.

    Args:
        owner: checked whenever the database is opened.
        away_s: seconds that a server which does not answer is waited for.
    """

    def __init__(self, address: LedgerAddress, owner: Owner, away_s: float = AWAY_S) -> None:
        self.name = address.shown
        self._address = address
        self._owner = owner
        self._away_s = away_s
        self._lock = threading.Lock()
        self._connection: sa.Connection | None = None
        self._pid: int | None = None
        self._inherited: sa.Connection | None = None

    def run(self, work: Callable[[sa.Connection], Result], write: bool) -> Result:
        """See `Database`.

        Raises:
            HoiError: the server refuses, or does not answer for long.
        """
        transaction = _Transaction(work, write)
        with self._lock:
            deadline = None
            pause = PAUSES_S[0]
            while True:
                try:
                    return transaction.run(self._open())
                except sa.exc.DBAPIError as error:
                    is_connected = self._connection is not None
                    named = self._address.named(error, is_connected)
                    passes = self._address.passes(error, is_connected)
                except BaseException:
                    self._drop()
                    raise
                self._drop()
                # Not from the driver's error, whose text is not masked.
                if not passes:
                    raise named from None
                now = time.monotonic()
                if deadline is None:
                    deadline = now + self._away_s
                    logger.warning("%s; trying again for %.0f s", named.what, self._away_s)
                if now >= deadline:
                    remedy = "start it or correct its address, then run again: " + FINISHED
                    raise HoiError(f"{named.what} (for {self._away_s:.0f} s)", remedy) from None
                time.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(2 * pause, PAUSES_S[1])

    def close(self) -> None:
        """See `Database`."""
        with self._lock:
            if self._pid == os.getpid():
                self._drop()

    def _open(self) -> sa.Connection:
        # A connection must not cross a fork, nor be closed there: the server would end the session.
        if self._connection is not None and self._pid != os.getpid():
            self._inherited, self._connection = self._connection, None
        if self._connection is None:
            connection = self._engine().connect()
            self._connection, self._pid = connection, os.getpid()
            with connection.begin():
                connection.exec_driver_sql(f"SET lock_timeout = '{BUSY_TIMEOUT_S:.0f}s'")
                idle = "SET idle_in_transaction_session_timeout"
                connection.exec_driver_sql(f"{idle} = '{IDLE_TIMEOUT_S:.0f}s'")
            self._prepare(connection)
        return self._connection

    def _engine(self) -> sa.Engine:
        try:
            return sa.create_engine(
                self._address.url,
                poolclass=sa.NullPool,
                isolation_level="READ COMMITTED",
                hide_parameters=True,
            )
        except ImportError as error:
            raise HoiError(
                f"the driver for ledger {self.name} is not installed: {error}",
                "pip install 'hoi-assets[postgres]'",
            ) from error

    def _prepare(self, connection: sa.Connection) -> None:
        """Bring the database to the current schema, and check whose it is."""
        with connection.begin():
            current = migrations.is_current(connection, self.name)
            if current:
                self._owner.check(connection, self.name)
                connection.exec_driver_sql(KEPT_WRITES)
        if not current:
            self._make(connection)
        self._owner.claimed(self.name)

    def _make(self, connection: sa.Connection) -> None:
        with connection.begin():
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(OPENING_LOCK)))
            encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
            if encoding != "UTF8":
                raise HoiError(
                    f"ledger {self.name}: the database is encoded in {encoding}",
                    "make one with `createdb -E UTF8 -T template0 NAME`",
                )
            if not migrations.is_current(connection, self.name):
                migrations.upgrade(connection)
            self._owner.check(connection, self.name)

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class _Transaction(Generic[Result]):
    """Some work, done once however often it is tried."""

    def __init__(self, work: Callable[[sa.Connection], Result], write: bool) -> None:
        self._work = work
        self._id = uuid.uuid4().hex if write else None
        self._results: list[Result] = []

    def run(self, connection: sa.Connection) -> Result:
        """Do the work, unless an earlier try has come to pass."""
        with connection.begin():
            if self._id is not None:
                enter = insert(connection, writes).values(id=self._id).on_conflict_do_nothing()
                # Waits for the earlier try where the server is still at it.
                if connection.execute(enter.returning(writes.c.id)).first() is None:
                    return self._results[-1]
            self._results.append(self._work(connection))
        return self._results[-1]
