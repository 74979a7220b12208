"""Ledgers of earlier releases open as they are; those of a later one are left alone."""

import multiprocessing
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from hoi_assets.errors import HoiError
from hoi_assets.store.ledger import Ledger
from hoi_assets.store.ledger_file import checksum

FORK = multiprocessing.get_context("fork")
# As the release before Alembic made it.
EARLIER = """
CREATE TABLE made (
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    made_at TEXT NOT NULL,
    crc INTEGER,
    PRIMARY KEY (kind, key)
) WITHOUT ROWID;
CREATE TABLE rows (
    stage TEXT NOT NULL,
    partition TEXT NOT NULL,
    row_id TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('accepted', 'rejected', 'failed')),
    reason TEXT,
    version TEXT,
    attempts INTEGER NOT NULL,
    updated_at TEXT NOT NULL,
    crc INTEGER,
    PRIMARY KEY (stage, partition, row_id)
) WITHOUT ROWID;
CREATE INDEX rows_by_id ON rows (row_id);
CREATE TABLE counter (changes INTEGER NOT NULL);
INSERT INTO counter VALUES (7);
PRAGMA user_version = 2;
"""
ENTRY = ("image", "k", '{"seed":1}')
ROW = {"stage": "verifier", "partition": None, "row_id": "a", "status": "accepted"}


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(EARLIER)
        values = (*ENTRY, "2026-01-01T00:00:00.000000+00:00", checksum(*ENTRY))
        connection.execute("INSERT INTO made VALUES (?, ?, ?, ?, ?)", values)
    connection.close()
    return path


def schema(path: Path) -> dict[str, Any]:
    """Columns (name, type, not null, default, place in key) of every table, and whether it has row
    ids; columns of every index."""
    with sqlite3.connect(path) as connection:
        tables = connection.execute("PRAGMA table_list").fetchall()
        found: dict[str, Any] = {
            name: (without, [c[1:] for c in connection.execute(f"PRAGMA table_info({name})")])
            for _, name, _, _, without, _ in tables
        }
        found["index"] = connection.execute("PRAGMA index_info(rows_by_id)").fetchall()
        found["user_version"] = connection.execute("PRAGMA user_version").fetchone()
        found["journal"] = connection.execute("PRAGMA journal_mode").fetchone()
    connection.close()
    return found


def test_file_of_an_earlier_release_opens_and_earlier_releases_open_it(
    earlier: Path, tmp_path: Path
) -> None:
    before = schema(earlier)
    ledger = Ledger(earlier)
    assert ledger.get("image", ["k"]) == {"k": {"seed": 1}} and ledger.changes() == 7
    ledger.record([ROW])
    assert ledger.changes() == 8 and ledger.verify() == {"made": 1, "rows": 1}
    ledger.close()
    after = schema(earlier)
    assert after.pop("ledger_version")
    assert after == before
    fresh = Ledger(tmp_path / "fresh.sqlite")
    fresh.record([ROW])
    assert fresh.changes() == 1
    fresh.close()
    made = schema(fresh.path)
    assert made.pop("ledger_version") and made == before


def test_processes_open_a_file_of_an_earlier_release_at_once(earlier: Path) -> None:
    children = [
        FORK.Process(target=Ledger(earlier).put, args=("image", {f"n{number}": number}))
        for number in range(4)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    assert len(Ledger(earlier).get("image", ["k", "n0", "n1", "n2", "n3"])) == 5


def test_head_is_the_last_migration() -> None:
    from alembic.script import ScriptDirectory

    from hoi_assets.store import migrations

    scripts = ScriptDirectory(migrations.FOLDER)
    assert scripts.get_heads() == [migrations.HEAD] and scripts.get_base() == migrations.BASE


def test_file_of_a_later_migration_is_refused_and_left_alone(earlier: Path) -> None:
    Ledger(earlier).changes()
    with sqlite3.connect(earlier) as connection:
        connection.execute("UPDATE ledger_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(HoiError, match=r"schema 9999, .* knows 0001\n.*update hoi-assets"):
        Ledger(earlier).changes()
