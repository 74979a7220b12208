"""A ledger on Postgres: what goes wrong there is named, waited for, and nothing is done twice."""

import logging
import multiprocessing
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from hoi_assets.errors import HoiError
from hoi_assets.settings import ROOT
from hoi_assets.store import ledger_server
from hoi_assets.store.ledger import Ledger
from hoi_assets.store.ledger_file import DamagedLedger
from hoi_assets.store.ledger_home import open_ledger
from hoi_assets.store.ledger_repair import repair
from hoi_assets_tests.postgres_server import PASSWORD, PostgresServer

FORK = multiprocessing.get_context("fork")
ROW = {"stage": "candidate_images", "partition": "hook", "row_id": "a"}
FAILED = {**ROW, "status": "failed", "reason": "no reply"}
SECRETS = (PASSWORD, quote(PASSWORD, safe=""), "wrong-secret")


@pytest.fixture
def database(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new database, which is where ledgers are kept."""
    name = postgres.new_database()
    monkeypatch.setenv("HOI_LEDGER_URL", postgres.url(name))
    return name


@pytest.fixture
def open_one(tmp_path: Path) -> Callable[[], Ledger]:
    return lambda: open_ledger(tmp_path / "home", tmp_path / "home" / "staging", read_only=False)


@contextmanager
def refused(what: str, remedy: str) -> Iterator[None]:
    """Expects an error, which nowhere holds a password."""
    with pytest.raises(HoiError) as caught:
        yield
    assert what in caught.value.what and remedy in caught.value.remedy, caught.value
    shown = "".join(traceback.format_exception(caught.value)) + repr(vars(caught.value))
    assert not [secret for secret in SECRETS if secret in shown]


# --- away ----------------------------------------------------------------------------------------


def _work(open_one: Callable[[], Ledger], process: int, results: Any) -> None:
    ledger = open_one()
    for batch in range(60):
        keys = [f"{batch}-{number}" for number in range(10)]
        ledger.put("image", dict.fromkeys(keys, process))
        ledger.record([{**FAILED, "row_id": key, "reason": f"{process}"} for key in keys])
        results.put(batch)
        time.sleep(0.02)


def test_server_that_crashes_and_comes_back_costs_nothing(
    postgres: PostgresServer, database: str, open_one: Callable[[], Ledger]
) -> None:
    results = FORK.Queue()
    workers = [FORK.Process(target=_work, args=(open_one, n, results)) for n in range(3)]
    for worker in workers:
        worker.start()
    done = 0
    for goal in (30, 80):
        while done < goal:
            results.get(timeout=60)
            done += 1
        with postgres.away():
            time.sleep(2)
    while done < 180:
        results.get(timeout=60)
        done += 1
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    ledger = open_one()
    keys = [f"{batch}-{number}" for batch in range(60) for number in range(10)]
    assert len(ledger.get("image", keys)) == 600
    assert ledger.rows()["attempts"].to_list() == [3] * 600
    assert ledger.changes() == 180
    assert ledger.verify() == {"made": 600, "rows": 600}


class _CommitEater:
    """Passes everything on to a server, but for the answer to the first COMMIT that follows
    `hungry`: it waits until that has come, and hangs up."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.hungry = False
        self.eaten = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            client, _ = self._socket.accept()
            server = socket.create_connection(("127.0.0.1", self._port))
            ends = threading.Event()
            for one, other, is_client in ((client, server, True), (server, client, False)):
                arguments = (one, other, ends, is_client)
                threading.Thread(target=self._pass_on, args=arguments, daemon=True).start()

    def _pass_on(
        self, one: socket.socket, other: socket.socket, ends: threading.Event, is_client: bool
    ) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                if is_client and self.hungry and b"COMMIT\0" in data:
                    self.hungry = False
                    ends.set()
                elif not is_client and ends.is_set():
                    self.eaten += 1
                    break
                other.sendall(data)
        for end in (one, other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def test_transaction_whose_end_was_not_heard_is_not_done_twice(
    postgres: PostgresServer,
    database: str,
    open_one: Callable[[], Ledger],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proxy = _CommitEater(postgres.port)
    url = postgres.url(database).replace(f":{postgres.port}/", f":{proxy.port}/")
    monkeypatch.setenv("HOI_LEDGER_URL", f"{url}?sslmode=disable&gssencmode=disable")
    ledger = open_one()
    ledger.put("image", {"old": 1})
    works: list[Callable[[], Any]] = [
        lambda: ledger.record([FAILED]),
        lambda: ledger.put("image", {"k": 1}),
        lambda: ledger.delete("image", ["old", "absent"]),
        lambda: ledger.forget("candidate_images", "hook"),
    ]
    said = []
    for number, work in enumerate(works):
        proxy.hungry = True
        said.append(work())
        assert proxy.eaten == number + 1
        if number == 0:
            assert ledger.rows()["attempts"].to_list() == [1] and ledger.changes() == 1
    assert said == [None, {"k": 1}, 1, 1]
    assert ledger.changes() == 2


def test_server_that_stays_away_is_named_after_a_while(
    postgres: PostgresServer,
    database: str,
    open_one: Callable[[], Ledger],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(ledger_server.LedgerServer.__init__, "__defaults__", (1.0,))
    ledger = open_one()
    ledger.put("image", {"k": 1})
    with postgres.away(), caplog.at_level(logging.DEBUG):
        with refused("127.0.0.1", "finished work is not done twice"):
            ledger.put("image", {"n": 2})
        with refused("(for 1 s)", "start it or correct its address"):
            open_one().changes()
    assert "trying again for 1 s" in caplog.text
    assert not [secret for secret in SECRETS if secret in caplog.text]
    assert ledger.put("image", {"n": 3}) == {"n": 3}
    assert ledger.get("image", ["k"]) == {"k": 1}


# --- refusals ------------------------------------------------------------------------------------


def test_wrong_login_or_database_is_named_at_once(
    postgres: PostgresServer,
    database: str,
    open_one: Callable[[], Ledger],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    wrong = {
        postgres.url(database, password="wrong-secret"): (
            "user 'owner'",
            "check user and password",
        ),
        postgres.url(database, user="nobody"): ("user 'nobody'", "check user and password"),
        postgres.url("absent"): ('database "absent" does not exist', "createdb"),
        f"{postgres.url(database)}?sslmode=often": ("sslmode", "after `?`"),
        f"{postgres.url(database)}?colour=red": ("colour", "after `?`"),
    }
    with caplog.at_level(logging.DEBUG):
        for url, (what, remedy) in wrong.items():
            monkeypatch.setenv("HOI_LEDGER_URL", url)
            before = time.monotonic()
            with refused(what, remedy):
                open_one().changes()
            assert time.monotonic() - before < 60  # what may pass is tried again for 120 s
    assert not [secret for secret in SECRETS if secret in caplog.text]


@pytest.mark.parametrize(
    "url",
    [
        "wrong-secret",
        "mysql://u:wrong-secret@127.0.0.1/x",
        "postgresql://u:wrong-secret@127.0.0.1",
        "postgresql://u:p@wrong-secret@127.0.0.1/x",
        "postgresql://u:wrong-secret@127.0.0.1:port/x",
        "sqlite:///wrong-secret",
    ],
)
def test_what_is_no_url_of_a_database_is_refused_unread(
    url: str, open_one: Callable[[], Ledger], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOI_LEDGER_URL", url)
    with refused("HOI_LEDGER_URL is not the URL of a Postgres database", "postgresql://USER"):
        open_one().changes()


def test_user_without_rights_is_told_which(
    postgres: PostgresServer,
    database: str,
    open_one: Callable[[], Ledger],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    guest = f"guest_{database}"
    postgres.execute(database, f"CREATE ROLE {guest} LOGIN PASSWORD 'wrong-secret'")
    url = postgres.url(database, guest, "wrong-secret")
    monkeypatch.setenv("HOI_LEDGER_URL", url)
    with refused("permission denied for schema public", "GRANT CREATE, USAGE ON SCHEMA"):
        open_one().changes()
    # Nothing was left half done: with the permission it works. A read-only user gets an error.
    postgres.execute(database, f"GRANT CREATE ON SCHEMA public TO {guest}")
    assert open_one().changes() == 0
    postgres.execute(database, f"ALTER ROLE {guest} SET default_transaction_read_only = on")
    with refused("read-only transaction", "name the primary server"):
        open_one().put("image", {"k": 1})


def test_database_of_another_encoding_is_refused(
    postgres: PostgresServer, open_one: Callable[[], Ledger], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = postgres.new_database("ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    monkeypatch.setenv("HOI_LEDGER_URL", postgres.url(name))
    with refused("encoded in LATIN1", "createdb -E UTF8"):
        open_one().changes()


def test_database_of_a_newer_program_is_left_alone(
    postgres: PostgresServer, database: str, open_one: Callable[[], Ledger]
) -> None:
    open_one().put("image", {"k": 1})
    postgres.execute(database, "UPDATE ledger_version SET version_num = '9999'")
    with refused("has schema 9999, this program knows 0001", "update hoi-assets"):
        open_one().get("image", ["k"])


def test_locks_of_a_writer_that_hangs_are_named(
    postgres: PostgresServer,
    database: str,
    open_one: Callable[[], Ledger],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import psycopg

    monkeypatch.setattr(ledger_server, "BUSY_TIMEOUT_S", 1)
    ledger = open_one()
    ledger.record([FAILED])
    with psycopg.connect(postgres.url(database).replace("+psycopg", "")) as other:
        other.execute("SELECT * FROM rows FOR UPDATE")
        with refused("lock timeout", "another process holds it"):
            ledger.record([FAILED])
    ledger.record([FAILED])
    assert ledger.rows()["attempts"].item() == 2


def test_without_the_driver_it_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from pathlib import Path; from hoi_assets.store.versions import Store\n"
        f"Store(Path({str(tmp_path / 'home')!r})).ledger.changes()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"HOI_LEDGER_URL": "postgresql://u:wrong-secret@127.0.0.1/x", "PATH": ""},
        text=True,
        capture_output=True,
    )
    assert "the driver for ledger postgresql://127.0.0.1/x is not installed" in done.stderr
    assert "pip install 'hoi-assets[postgres]'" in done.stderr
    assert "wrong-secret" not in done.stderr


# --- damage --------------------------------------------------------------------------------------


def test_altered_entry_is_named_and_repair_drops_it_alone(
    postgres: PostgresServer, database: str, open_one: Callable[[], Ledger]
) -> None:
    ledger = open_one()
    ledger.put("image", {"k": 1, "n": 2})
    ledger.record([FAILED, {**FAILED, "row_id": "b"}])
    postgres.execute(
        database,
        "UPDATE made SET value = '7' WHERE key = 'k'",
        "UPDATE rows SET status = 'rejected' WHERE row_id = 'b'",
    )
    with pytest.raises(DamagedLedger, match=r"postgresql://127.*altered: \('image', 'k'\)"):
        ledger.get("image", ["k"])
    published = {**ROW, "row_id": "b", "status": "accepted"}
    done = repair(ledger, [published])  # type: ignore[list-item]
    assert done.aside is None and done.kept == {"made": 1, "rows": 1} and done.entered == 1
    assert ledger.get("image", ["k", "n"]) == {"n": 2}
    assert ledger.rows()["status"].to_list() == ["failed", "accepted"]
    assert ledger.verify() == {"made": 1, "rows": 2}
