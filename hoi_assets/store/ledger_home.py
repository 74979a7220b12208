"""Which ledger a home has: a file of its own, or a database on a server that belongs to it alone.

`ledger.json` of the home says so: {"home": id, "server": its address without login, or null until
the database is the home's}. The database holds the same id. So a home that is opened without its
server, or with another home's, is refused; it would make everything again, or take what it lacks.
"""

import json
import os
import uuid
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hoi_assets.errors import HoiError
from hoi_assets.settings.locations import ledger_url
from hoi_assets.store.bucket_errors import Conflict
from hoi_assets.store.disk import replace_bytes, temporary_path, writing
from hoi_assets.store.ledger import Ledger

if TYPE_CHECKING:
    import sqlalchemy as sa

    from hoi_assets.store.remote_home import RemoteHome

FILE = "ledger.sqlite"
MARK = "ledger.json"
MOVED = ".moved"


def open_ledger(
    home: Path, temporary: Path, read_only: bool, remote: "RemoteHome | None" = None
) -> Ledger:
    """The ledger of a home: on the server that the environment names, else in the home.

    Args:
        temporary: a folder on the same file system.
        read_only: whether the home cannot be written.
        remote: the home in a bucket whose mirror `home` is; it holds the mark.

    Raises:
        HoiError: the home's ledger is on a server, and the environment names none; or no URL.
    """
    owner = HomeOwner(home, temporary, read_only, remote=remote)
    url = ledger_url()
    if url is not None:
        return _on_server(url, owner)
    mark = owner.mark()
    if mark is not None and mark["server"]:
        raise HoiError(
            f"the ledger of home {home} is on a server, {mark['server']}, and HOI_LEDGER_URL "
            "is not set",
            f"set it to the URL of the database; or, to begin anew, delete {owner.address}",
        )
    return Ledger(home / FILE, read_only)


def move_to_server(
    home: Path, temporary: Path, remote: "RemoteHome | None" = None
) -> dict[str, int]:
    """Copy the file's entries to the server that the environment names, in one transaction, and
    rename the file. Returns how many entries it had, by table. No run may be going on.

    Raises:
        HoiError: no server is named, no file to move, or the server's ledger is another home's.
        DamagedLedger: the file is damaged.
    """
    url = ledger_url()
    if url is None:
        raise HoiError("HOI_LEDGER_URL is not set", "set it to the URL of the new database")
    path = home / FILE
    if not path.exists():
        raise HoiError(f"{path} does not exist", "there is nothing to move; just run")
    from hoi_assets.store.ledger_tables import add_entries, count_change, entries_to_copy

    source = Ledger(path)
    counts = source.verify()
    # So that a catalogue of before is stale.
    changes = source.changes() + 1
    target = _on_server(url, HomeOwner(home, temporary, False, moving=True, remote=remote))

    def read(into: "sa.Connection", from_file: "sa.Connection") -> None:
        for table in counts:
            for entries in entries_to_copy(from_file, table):
                add_entries(into, table, entries)

    def copy(into: "sa.Connection") -> None:
        count_change(into, changes)
        source.database.run(partial(read, into), write=False)

    target.database.run(copy, write=True)
    target.close()
    source.close()
    with writing(path):
        for suffix in ("-wal", "-shm", ""):
            part = path.with_name(f"{path.name}{suffix}")
            if part.exists():
                part.replace(path.with_name(f"{path.name}{MOVED}{suffix}"))
    return counts


def _on_server(url: str, owner: "HomeOwner") -> Ledger:
    from hoi_assets.store.ledger_address import LedgerAddress
    from hoi_assets.store.ledger_server import LedgerServer

    return Ledger(LedgerServer(LedgerAddress.parse(url), owner))


class HomeOwner:
    """A home as the owner of a database, see `ledger_server.Owner`.

    Args:
        moving: whether the home's file is about to be moved to the server.
    """

    def __init__(
        self,
        home: Path,
        temporary: Path,
        read_only: bool,
        moving: bool = False,
        remote: "RemoteHome | None" = None,
    ) -> None:
        self._remote = remote
        self._home = home
        self._path = home / MARK
        self._temporary = temporary
        self._read_only = read_only
        self._moving = moving

    @property
    def address(self) -> str:
        """Where the mark is, for messages."""
        return str(self._path) if self._remote is None else self._remote.address(self._path)

    def mark(self) -> dict[str, str | None] | None:
        """What the home's `ledger.json` says; None without one."""
        if self._remote is not None:
            self._remote.pull(self._path)
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
            return {"home": str(found["home"]), "server": found["server"]}
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise HoiError(
                f"{self.address} does not say where the ledger of the home is: {error}",
                "restore it; or delete it where the ledger was lost or is in the home",
            ) from error

    def check(self, connection: "sa.Connection", name: str) -> None:
        """See `Owner`."""
        from hoi_assets.store.ledger_tables import claim, owner_of

        mark, owner = self.mark(), owner_of(connection)
        if owner is not None and (mark is None or mark["home"] != owner):
            raise HoiError(
                f"ledger {name} belongs to another home than {self._home}",
                "give each home a database of its own, in HOI_LEDGER_URL; if it is this home's, "
                f"restore the home's {MARK}",
            )
        if owner is None:
            if mark is not None and mark["server"]:
                raise HoiError(
                    f"ledger {name} is empty, but the home {self._home} has one in "
                    f"{mark['server']}",
                    "correct HOI_LEDGER_URL, or restore the database; to begin an empty ledger "
                    f"delete {self.address}: everything is made again then",
                )
            if not self._moving and (self._home / FILE).exists():
                raise HoiError(
                    f"the home {self._home} has a ledger in {FILE}, and {name} is empty",
                    f"run `hoi ledger move`; or rename {FILE} to begin an empty ledger: "
                    "everything is made again then",
                )
            claim(connection, self._identity())

    def claimed(self, name: str) -> None:
        """See `Owner`."""
        mark = self.mark()
        if mark is not None and not mark["server"] and not self._read_only:
            text = json.dumps({**mark, "server": name}) + "\n"
            if self._remote is not None:
                self._remote.push(self._path, text.encode())
                return
            replace_bytes(self._path, text.encode(), self._temporary, durable=True, mode=0o644)

    def _identity(self) -> str:
        """The home's id, which the mark keeps; made where there is none."""
        if self.mark() is None and self._remote is not None:
            data = json.dumps({"home": uuid.uuid4().hex, "server": None}).encode()
            with suppress(Conflict):  # another process was first
                self._remote.bucket.put(self._remote.key(self._path), data, absent=True)
        elif self.mark() is None:
            partial_path = temporary_path(self._temporary)
            with writing(self._path):
                self._temporary.mkdir(parents=True, exist_ok=True)
                text = json.dumps({"home": uuid.uuid4().hex, "server": None}) + "\n"
                partial_path.write_text(text, encoding="utf-8")
                try:
                    os.link(partial_path, self._path)  # fails where another process was first
                except FileExistsError:
                    pass
                finally:
                    partial_path.unlink(missing_ok=True)
        mark = self.mark()
        assert mark is not None
        return str(mark["home"])
