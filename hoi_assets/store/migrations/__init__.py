"""The ledger's schema, as Alembic migrations that run when a ledger is opened.

A new revision is a module in `versions` that follows the last one; `HEAD` names it. A migration
runs in one transaction, under a lock that the caller holds, on SQLite and on Postgres.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from hoi_assets.errors import HoiError

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

FOLDER = Path(__file__).parent
# Not Alembic's own name: the database may hold Dagster's tables as well.
VERSION_TABLE = "ledger_version"
BASE = "0001"
HEAD = "0001"


def is_current(connection: sa.Connection, name: str) -> bool:
    """Whether a ledger has the latest schema.

    Args:
        name: of the ledger, in messages.

    Raises:
        HoiError: a newer program made it.
    """
    found = revision(connection)
    if found == HEAD:
        return True
    known = {script.revision for script in _scripts().walk_revisions()}
    if found is not None and found not in known:
        raise newer(name, found, HEAD)
    return False


def newer(name: str, found: object, known: object) -> HoiError:
    """The error about a ledger of a newer program."""
    return HoiError(
        f"ledger {name} has schema {found}, this program knows {known}",
        "update hoi-assets, or set HOI_HOME to another folder",
    )


def revision(connection: sa.Connection) -> str | None:
    """The revision of the schema; None where there is none yet."""
    if not sa.inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.execute(sa.text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()


def upgrade(connection: sa.Connection, stamp: str | None = None) -> None:
    """Bring the schema to the latest revision, in the transaction that is open.

    Args:
        stamp: the revision of a schema that was made without Alembic.
    """
    from alembic.migration import MigrationContext
    from alembic.operations import Operations

    scripts = _scripts()
    options = {"version_table": VERSION_TABLE, "script": scripts}
    if stamp is not None:
        MigrationContext.configure(connection, opts=options).stamp(scripts, stamp)
    steps = {"fn": lambda current, _: scripts._upgrade_revs(HEAD, current)}
    context = MigrationContext.configure(connection, opts=options | steps)
    with Operations.context(context):
        context.run_migrations()


def _scripts() -> "ScriptDirectory":
    from alembic.script import ScriptDirectory

    return ScriptDirectory(FOLDER)
