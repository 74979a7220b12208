"""The command line: what it says of mistakes, and its exit statuses."""

from pathlib import Path

import pytest

from hoi_assets.cli.main import HELD, MISTAKE, main
from hoi_assets_tests.publishing.small_pipeline import write_profile, write_taxonomy


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DAGSTER_HOME", "")
    monkeypatch.setenv("HOI_PROFILE", "tiny")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run", "--profile", "huge"], "profile 'huge' not found"),
        (["run", "power_wrp"], "no category 'power_wrp'"),
        (["backfill"], "no category or scenario named"),
        (["backfill", "power_wrp"], "no category 'power_wrp'"),
    ],
)
def test_mistakes_are_named_with_a_remedy_and_end_with_2(arguments, told, capsys):
    assert main(arguments) == MISTAKE
    error = capsys.readouterr().err
    assert error.startswith(f"error: {told}")
    assert len(error.splitlines()) == 2


def test_stale_on_a_fresh_home_lists_every_asset_as_missing(capsys):
    assert main(["stale"]) == 0
    out = capsys.readouterr().out
    assert "base_prompt_taxonomy" in out and "missing" in out
    assert "0 of " in out


def test_broken_taxonomy_holds_the_line_and_names_the_file(tmp_path, capsys):
    write_taxonomy(tmp_path / "taxonomy", {"hook": ["no category at all"]})
    profile = write_profile(tmp_path)
    assert main(["run", "hook", "--profile", str(profile)]) == HELD
    said = capsys.readouterr()
    assert str(tmp_path / "taxonomy" / "categories" / "hook.yaml") in said.out
    assert "held: line_head" in said.err


def test_backfill_says_that_it_needs_a_daemon(capsys):
    assert main(["backfill", "hook", "worn"]) == 0
    said = capsys.readouterr()
    assert "2 runs, one each: hook, worn" in said.out
    assert "no daemon is running" in said.err


def test_only_for_a_backfill_leaves_out_what_is_not_asked_for(capsys):
    assert main(["backfill", "--all", "--only", "failed"]) == 0
    assert "nothing failed" in capsys.readouterr().out
