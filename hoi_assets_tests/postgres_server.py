"""A Postgres server on a free loopback port, of the programs that Debian's package installs."""

import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from hoi_assets_tests.processes import free_port

PASSWORD = "s3cret/p@ss word%"
PR_SET_PDEATHSIG = 1
INSTALLED = "usr/lib/postgresql/*/bin/initdb"


def programs() -> Path | None:
    """The folder of the server's programs; None where it is not installed."""
    found = shutil.which("initdb")
    paths = [Path(found).resolve()] if found else sorted(Path("/").glob(INSTALLED))
    return paths[-1].parent if paths else None


class PostgresServer:
    """Started when made. Needs a user `postgres` where the tests run as root."""

    def __init__(self, bin_folder: Path) -> None:
        self._bin = bin_folder
        self._user = "postgres" if os.geteuid() == 0 else None
        self._folder = Path(tempfile.mkdtemp(prefix="hoi-postgres-"))
        self._databases = 0
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        (self._folder / "password").write_text(PASSWORD, encoding="utf-8")
        if self._user:
            for path in (self._folder, self._folder / "password"):
                shutil.chown(path, self._user, self._user)
        options = ["--username=owner", "--auth=scram-sha-256", "--encoding=UTF8", "--no-sync"]
        options += ["--locale=C.UTF-8", f"--pwfile={self._folder / 'password'}"]
        subprocess.run(
            [self._bin / "initdb", "-D", self._folder / "data", *options],
            check=True,
            capture_output=True,
            user=self._user,
            cwd=self._folder,
        )
        self.start()

    def start(self) -> None:
        """Start, and wait until it answers. It ends with the thread that called."""
        settings = {
            "fsync": "off",
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": "40",
        }
        self._process = subprocess.Popen(
            [
                *(self._bin / "postgres", "-D", self._folder / "data"),
                *(word for name, value in settings.items() for word in ("-c", f"{name}={value}")),
            ],
            user=self._user,
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
            stderr=(self._folder / "log").open("ab"),
            preexec_fn=_die_with_parent,
        )
        deadline = time.monotonic() + 60
        while subprocess.run(
            [self._bin / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        ).returncode:
            log = (self._folder / "log").read_text(encoding="utf-8", errors="replace")
            assert self._process.poll() is None and time.monotonic() < deadline, log
            time.sleep(0.1)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop: SIGINT ends sessions in order, SIGQUIT as a crash does."""
        assert self._process is not None
        self._process.send_signal(how)
        self._process.wait(60)

    @contextmanager
    def away(self) -> Iterator[None]:
        """Inside, the server is gone as after a crash."""
        self.stop(signal.SIGQUIT)
        try:
            yield
        finally:
            self.start()

    def url(self, database: str, user: str = "owner", password: str = PASSWORD) -> str:
        """A SQLAlchemy URL."""
        login = f"{user}:{quote(password, safe='')}"
        return f"postgresql+psycopg://{login}@127.0.0.1:{self.port}/{database}"

    def new_database(self, *options: str) -> str:
        """Name of a database of its own.

        Args:
            options: of CREATE DATABASE.
        """
        self._databases += 1
        name = f"ledger_{self._databases}"
        self.execute("postgres", f"CREATE DATABASE {name} {' '.join(options)}")
        return name

    def execute(self, database: str, *statements: str) -> list[tuple[object, ...]]:
        """Run statements as the owner; returns the rows of the last one."""
        import psycopg

        given = {"user": "owner", "password": PASSWORD, "dbname": database}
        with psycopg.connect(
            host="127.0.0.1", port=self.port, autocommit=True, **given
        ) as connection:
            for statement in statements:
                cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def close(self) -> None:
        """Stop, and remove everything."""
        if self._process is not None and self._process.poll() is None:
            self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A server for all tests of the session; skips where there is none, or no driver."""
    found = programs()
    if found is None:
        pytest.skip("no Postgres server is installed: apt-get install postgresql")
    try:
        import psycopg  # noqa: F401
    except ImportError:
        pytest.skip("no driver of Postgres is installed: pip install 'hoi-assets[postgres]'")
    server = PostgresServer(found)
    yield server
    server.close()


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)
