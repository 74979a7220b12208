"""The commands after a category was removed from the profile's taxonomy."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from hoi_assets.cli.exit_codes import ExitCode
from hoi_assets.cli.main import main
from hoi_assets.settings import PROFILES, ROOT
from hoi_assets_tests.cli.one_row_home import CATEGORY, publish_one_row_each


@pytest.fixture
def home_with_orphans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(ROOT / "data" / "taxonomy", tmp_path / "taxonomy")
    (tmp_path / "taxonomy" / "categories" / f"{CATEGORY}.yaml").unlink()
    profile = yaml.safe_load((PROFILES / "tiny.yaml").read_text(encoding="utf-8"))
    profile["taxonomy"] = str(tmp_path / "taxonomy")
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(profile), encoding="utf-8")
    monkeypatch.setenv("HOI_PROFILE", str(tmp_path / "mine.yaml"))
    monkeypatch.setenv("HOI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DAGSTER_HOME", "")
    publish_one_row_each(tmp_path / "home")
    return tmp_path / "home"


def test_orphans_are_marked_in_summary_and_sql_and_pruned_on_request(
    home_with_orphans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["summary"]) == ExitCode.OK
    assert f"orphaned: {CATEGORY} is not in the taxonomy any more" in capsys.readouterr().out
    ask = ["sql", "select distinct partition from candidate_images where orphaned", "--json"]
    assert main(ask) == ExitCode.OK
    assert json.loads(capsys.readouterr().out) == [{"partition": CATEGORY}]

    assert main(["prune", "--dry-run", "--json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["orphaned"] == []
    assert main(["prune", "--orphans", "--dry-run", "--json"]) == ExitCode.OK
    would = json.loads(capsys.readouterr().out)
    assert would["orphaned"] == [CATEGORY] and would["count"]
    assert main(["prune", "--orphans"]) == ExitCode.OK
    assert f"not in the taxonomy any more: {CATEGORY}" in capsys.readouterr().out
    assert not any(Path(path).exists() for path in would["versions"])
    assert main(["summary", "--json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["orphaned"] == []
