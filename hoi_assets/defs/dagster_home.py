"""DAGSTER_HOME: below the home, with Dagster's own databases there or on Postgres."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from filelock import FileLock

from hoi_assets.errors import HoiError
from hoi_assets.hashing import digest
from hoi_assets.settings import ROOT
from hoi_assets.store.disk import replace_bytes, writing
from hoi_assets.store.home import check_path
from hoi_assets.store.ledger_address import LedgerAddress

# Of Dagster's own runs, events and schedules.
DATABASE_URL = "HOI_DAGSTER_URL"
# dagster-postgres 0.29 speaks to psycopg2 only, which is no longer SQLAlchemy's default.
SCHEME, PLAIN_SCHEME = "postgresql+psycopg2://", "postgresql://"
# Dagster reads the variable itself, so that the file holds no password.
ON_POSTGRES = f"""
storage:
  postgres:
    postgres_url:
      env: {DATABASE_URL}
"""
# Beside Dagster's databases, once their tables are there; holds the digest of the URL.
DATABASES_CREATED = "databases_created"


def prepare_dagster_home(home: Path) -> Path:
    """`<home>/dagster`, holding a copy of our `dagster.yaml`; to be used as DAGSTER_HOME.

    Dagster writes its databases and logs beside that file, so that all of it stays below `home`.
    Runs, events and schedules go to the Postgres database that `HOI_DAGSTER_URL` names, if set.

    Raises:
        HoiError: a path that cannot be a home, no permission, or no such database.
        DiskFull: no space left.
    """
    check_path(home)
    folder = home / "dagster"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        config = (ROOT / "dagster.yaml").read_bytes()
        if os.environ.get(DATABASE_URL):
            config += ON_POSTGRES.encode()
        copy = folder / "dagster.yaml"
        if not copy.is_file() or copy.read_bytes() != config:
            temporary = home / "staging"
            temporary.mkdir(exist_ok=True)
            replace_bytes(copy, config, temporary, durable=False, mode=0o644)
        _create_databases(folder)
    return folder


def _create_databases(folder: Path) -> None:
    """Create Dagster's databases, one process at a time.

    Where several processes begin in an empty home, Dagster's own creation fails in all but one.
    """
    url, created = os.environ.get(DATABASE_URL), folder / DATABASES_CREATED
    place = digest(url) if url else ""

    def are_there() -> bool:
        return created.is_file() and created.read_text(encoding="ascii") == place

    if are_there():
        return
    with FileLock(folder / f"{DATABASES_CREATED}.lock"), _named(url):
        if not are_there():
            with dg.DagsterInstance.from_config(str(folder)) as instance:
                _ = instance.run_storage, instance.event_log_storage, instance.schedule_storage
            created.write_text(place, encoding="ascii")


@contextmanager
def _named(url: str | None) -> Iterator[None]:
    """Inside, errors of the database say what is wrong with it, without its password."""
    if not url:
        yield
        return
    if not url.startswith(SCHEME):
        raise HoiError(
            f"{DATABASE_URL} does not begin with {SCHEME}",
            f"give a URL such as {SCHEME}USER:PASSWORD@HOST:5432/DATABASE",
        )
    address = LedgerAddress.parse(url.replace(SCHEME, PLAIN_SCHEME, 1), DATABASE_URL)
    try:
        import dagster_postgres  # noqa: F401
    except ImportError:
        raise HoiError(
            f"{DATABASE_URL} is set, and dagster-postgres is not installed",
            "pip install 'hoi-assets[postgres]'",
        ) from None
    try:
        yield
    except Exception as error:
        # Without the cause, which holds the URL.
        raise HoiError(
            f"Dagster's database {address}: {address.masked(_innermost(error))}",
            f"see that the server runs, that the database is there (`createdb NAME`), and that "
            f"{DATABASE_URL} is right",
        ) from None


def _innermost(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error)
