"""A home's ledger is one: it is not begun anew by mistake, and moves to a server whole."""

import json
import shutil
from pathlib import Path

import pytest

from hoi_assets.cli.exit_codes import ExitCode
from hoi_assets.cli.main import main
from hoi_assets.errors import HoiError
from hoi_assets.store.catalogue import query
from hoi_assets.store.ledger import Ledger
from hoi_assets.store.versions import Store
from hoi_assets_tests.postgres_server import PASSWORD, PostgresServer

ROW = {"stage": "verified_pairs", "partition": "hook", "status": "rejected", "version": "v1"}
COUNT = "select count(*) as n from ledger"


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return postgres.url(postgres.new_database())


def fill(ledger: Ledger, rows: int = 300) -> None:
    ledger.put("image", {f"{number:08x}": {"seed": number} for number in range(rows)})
    ledger.record({**ROW, "row_id": f"r{n}", "reason": f"odd \x00 {n}"} for n in range(rows))
    ledger.record([{**ROW, "row_id": "r1", "status": "failed", "reason": "again"}])


def told(ledger: Ledger) -> tuple[list[tuple[object, ...]], dict[str, object]]:
    """All that a ledger says, times included."""
    return ledger.rows().rows(), ledger.get("image", [f"{number:08x}" for number in range(400)])


def test_ledger_moves_to_a_server_whole(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("HOI_HOME", str(home))
    monkeypatch.setenv("HOI_PROFILE", "tiny")
    file = Store(home, "tiny").ledger
    fill(file)
    before = told(file)
    assert query(Store(home), COUNT)["n"].item() == 300
    file.close()
    shutil.copytree(home, tmp_path / "killed")

    assert main(["ledger", "move"]) == ExitCode.USER_ERROR
    assert "HOI_LEDGER_URL is not set" in capsys.readouterr().err
    monkeypatch.setenv("HOI_LEDGER_URL", url)
    with pytest.raises(HoiError, match="hoi ledger move"):
        Store(home).ledger.changes()
    assert main(["ledger", "move", "--json"]) == ExitCode.OK
    said = json.loads(capsys.readouterr().out)
    assert said["made"] == said["rows"] == 300
    assert not (home / "ledger.sqlite").exists() and Path(said["file"]).exists()
    moved = Store(home).ledger
    assert told(moved) == before and moved.verify() == {"made": 300, "rows": 300}
    moved.record([{**ROW, "row_id": "new", "status": "accepted"}])
    assert query(Store(home), COUNT)["n"].item() == 301

    # As after a kill before the file was renamed: moved again, nothing changes.
    after = told(moved)
    shutil.copy(tmp_path / "killed" / "ledger.sqlite", home)
    assert main(["ledger", "move"]) == ExitCode.OK
    assert told(moved) == after and query(Store(home), COUNT)["n"].item() == 301
    assert PASSWORD not in (home / "ledger.json").read_text()


def test_home_is_not_opened_without_its_server_or_with_a_strangers(
    tmp_path: Path, url: str, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("HOI_LEDGER_URL", url)
    Store(home).ledger.put("image", {"k": 1})
    monkeypatch.delenv("HOI_LEDGER_URL")
    with pytest.raises(HoiError, match=r"on a server, postgresql://127.*HOI_LEDGER_URL is not set"):
        Store(home).ledger.changes()
    monkeypatch.setenv("HOI_LEDGER_URL", postgres.url(postgres.new_database()))
    with pytest.raises(HoiError, match=r"is empty, but the home .* has one in postgresql"):
        Store(home).ledger.changes()
    monkeypatch.setenv("HOI_LEDGER_URL", url)
    with pytest.raises(HoiError, match="belongs to another home"):
        Store(tmp_path / "other").ledger.changes()
    # A home that moved is still the one.
    home.rename(tmp_path / "elsewhere")
    assert Store(tmp_path / "elsewhere").ledger.get("image", ["k"]) == {"k": 1}


def test_database_that_is_the_homes_before_the_home_knows_is_taken(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("HOI_LEDGER_URL", url)
    Store(home).ledger.put("image", {"k": 1})
    mark = home / "ledger.json"
    whole = json.loads(mark.read_text())
    # As after a kill between the two.
    mark.write_text(json.dumps({**whole, "server": None}))
    assert Store(home).ledger.get("image", ["k"]) == {"k": 1}
    assert json.loads(mark.read_text()) == whole


def test_one_database_serves_two_homes_by_schemas(
    tmp_path: Path, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = postgres.new_database()
    for home in ("one", "two"):
        postgres.execute(name, f"CREATE SCHEMA {home}")
        options = f"?options=-csearch_path%3D{home}"
        monkeypatch.setenv("HOI_LEDGER_URL", postgres.url(name) + options)
        assert Store(tmp_path / home).ledger.put("image", {"k": home}) == {"k": home}
