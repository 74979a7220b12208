"""Every command names a damaged ledger and its remedy, and `hoi repair` is the remedy."""

import json
from pathlib import Path

import pytest

from hoi_assets.cli.exit_codes import ExitCode
from hoi_assets.cli.main import main
from hoi_assets.publishing.ledger_rows import published_rows
from hoi_assets.store.versions import Store
from hoi_assets_tests.cli.one_row_home import CATEGORY, publish_one_row_each

COUNT = "select count(*) as n from ledger"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home whose ledger knows one row that no table holds, beside those published."""
    from hoi_assets.defs.project import load_project

    monkeypatch.setenv("HOI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOI_PROFILE", "tiny")
    publish_one_row_each(tmp_path / "home").ledger.close()
    store = Store(tmp_path / "home", "tiny")
    store.ledger.put("image", {"k": 1})
    store.ledger.record(published_rows(load_project().graph, store))
    store.ledger.record([{"stage": "verified_pairs", "row_id": "r", "status": "accepted"}])
    assert store.ledger.rows(stage="detailed_prompts", partition=CATEGORY)["row_id"].item() == "p0"
    store.ledger.close()
    return store.home


@pytest.mark.slow
def test_commands_name_the_damage_and_repair_brings_the_rows_back(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def hoi(*command: str) -> tuple[int, str, str]:
        code = int(main(command))
        return (code, *capsys.readouterr())

    def said() -> list[tuple[object, ...]]:
        found = Store(home, "tiny").ledger.rows()
        return found.drop("attempts", "updated_at").rows()

    before = said()
    path = home / "ledger.sqlite"
    for log in home.glob("ledger.sqlite-*"):
        log.unlink()
    path.write_bytes(path.read_bytes()[:6000])
    for command in (["sql", COUNT], ["summary"], ["prune"]):
        code, out, err = hoi(*command)
        if command[0] == "sql":
            assert code == ExitCode.USER_ERROR and out == ""
        assert code == ExitCode.OK or (f"ledger {path} is damaged" in err and "hoi repair" in err)
        assert "Traceback" not in err
    code, out, err = hoi("repair", "--json")
    found = json.loads(out)
    assert (code, err) == (ExitCode.OK, "") and "is damaged" in found["damaged"]
    assert Path(found["aside"]).stat().st_size == 6000 and found["entered"] >= len(before) - 1
    assert set(before) - set(said()) <= {("verified_pairs", None, "r", "accepted", None, None)}
    code, out, err = hoi("sql", COUNT)
    assert (code, err) == (ExitCode.OK, "")

    # A ledger that is gone is no damage: its rows are entered anew.
    path.unlink()
    code, out, err = hoi("repair")
    assert (code, err) == (ExitCode.OK, "") and "were missing and are entered" in out
    assert len(said()) >= len(before) - 1
