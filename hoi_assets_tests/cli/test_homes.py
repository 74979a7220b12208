"""Commands on homes that are read-only, on a full disk, of another profile, or not to be."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hoi_assets.cli.exit_codes import ExitCode
from hoi_assets.cli.main import main
from hoi_assets.settings import ROOT
from hoi_assets.store.catalogue import rebuild
from hoi_assets.store.home import profile_of
from hoi_assets.store.versions import Store
from hoi_assets_tests.cli.one_row_home import image_id, publish_one_row_each
from hoi_assets_tests.processes import full_disk, obey_permissions, set_writable

# One process for several commands: starting costs more than answering.
CODE = """
import json, sys
from hoi_assets.cli.main import main
for command in json.loads(sys.argv[1]):
    print("ENDED", int(main(command)), flush=True)
    print("ENDED", file=sys.stderr, flush=True)
"""
READING = [
    ["sql", "select count(*) as n from candidate_images"],
    ["sql", "select count(*) as n from ledger"],
    ["summary"],
    ["stale", "--all"],
    ["trace", image_id("candidate_images")],
]


def hoi(
    home: Path, commands: list[list[str]], limit: Callable[[], None], **variables: str
) -> list[tuple[int, str, str]]:
    """Exit code, stdout and stderr of each command, under a limit."""
    environment = os.environ | {"HOI_HOME": str(home), "PYTHONPATH": str(ROOT)} | variables
    environment.pop("DAGSTER_HOME", None)
    done = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps(commands)],
        cwd=ROOT,
        env=environment,
        text=True,
        capture_output=True,
        preexec_fn=limit,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    outs, errs = done.stdout.split("ENDED ")[:-1], done.stderr.split("ENDED\n")
    codes = [int(part.split("\n", 1)[0]) for part in done.stdout.split("ENDED ")[1:]]
    outs = [outs[0], *(part.split("\n", 1)[1] for part in done.stdout.split("ENDED ")[1:])]
    return list(zip(codes, outs, errs, strict=False))


@pytest.fixture
def full_home(tmp_path: Path) -> Path:
    store = publish_one_row_each(tmp_path / "home")
    row: dict[str, Any] = {"stage": "verified_pairs", "row_id": "r", "status": "accepted"}
    store.ledger.record([row])
    store.ledger.close()
    return store.home


@pytest.mark.slow
@pytest.mark.parametrize("catalogue", ["absent", "fresh"])
def test_read_only_home_answers_questions_and_refuses_work(full_home: Path, catalogue: str) -> None:
    if catalogue == "fresh":
        store = Store(full_home)
        rebuild(store)
        store.ledger.close()
    before = sorted(full_home.rglob("*"))
    set_writable(full_home, False)
    try:
        work = [["run", "hook"], ["prune"], ["backfill", "hook"]]
        ended = hoi(full_home, [*READING, *work], obey_permissions, HOI_PROFILE="tiny")
    finally:
        set_writable(full_home, True)
    for command, (code, out, err) in zip(READING, ended, strict=False):
        assert (code, err) == (ExitCode.OK, ""), command
        assert out, command
    for command, (code, _, err) in zip(work, ended[len(READING) :], strict=True):
        assert code == ExitCode.USER_ERROR, command
        assert "cannot be written" in err and "Traceback" not in err, command
    assert sorted(full_home.rglob("*")) == before


@pytest.mark.slow
@pytest.mark.parametrize("limit", [0, 20_000])
def test_full_disk_at_the_start_is_said_plainly(tmp_path: Path, limit: int) -> None:
    commands = [["run", "hook"], ["backfill", "hook"]]
    for code, _, err in hoi(tmp_path / "home", commands, full_disk(limit), HOI_PROFILE="tiny"):
        assert code == ExitCode.USER_ERROR
        assert "error: disk full while writing" in err and "hoi prune" in err
        assert "Traceback" not in err


@pytest.fixture
def tiny_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DAGSTER_HOME", "")
    monkeypatch.delenv("HOI_PROFILE", raising=False)
    store = Store(tmp_path / "home", "tiny")
    with store.stage("verifier") as staging:
        staging.write_text("x", "x")
        store.publish(staging, {}, None)
    return store.home


def test_summary_says_whose_home_it_is(tiny_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["summary"]) == ExitCode.OK
    assert "profile: tiny" in capsys.readouterr().out
    assert main(["summary", "--json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["profile"] == "tiny"


@pytest.mark.parametrize(
    "command",
    [
        ["summary"],
        ["stale"],
        ["sql", "select 1"],
        ["trace", "123456"],
        ["replay", "123456"],
        ["prune", "--dry-run"],
        ["repair"],
        ["run", "hook"],
        ["backfill", "hook"],
        ["ui"],
    ],
    ids=lambda command: command[0],
)
def test_another_profile_is_refused_on_a_home(
    command: list[str], tiny_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--profile", "full"]) == ExitCode.USER_ERROR
    err = capsys.readouterr().err
    assert "belongs to the profile 'tiny', not to 'full'" in err and "HOI_HOME" in err
    assert profile_of(tiny_home) == "tiny"


def test_sql_reads_a_home_of_any_profile_where_none_is_named(
    tiny_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tiny_home / "home.json").write_text('{"profile": "mine"}', encoding="utf-8")
    assert main(["sql", "select asset from publications"]) == ExitCode.OK
    assert "verifier" in capsys.readouterr().out
    assert main(["summary"]) == ExitCode.USER_ERROR


@pytest.mark.parametrize("command", [["run", "hook"], ["summary"], ["stale"], ["ui"]])
@pytest.mark.parametrize("name", ["[D]", "a?b", "a%41b"])
def test_path_that_cannot_be_a_home_is_refused_early(
    command: list[str],
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HOI_HOME", str(tmp_path / name))
    monkeypatch.setenv("DAGSTER_HOME", "")
    monkeypatch.setenv("HOI_PROFILE", "tiny")
    assert main(command) == ExitCode.USER_ERROR
    assert "error: the home " in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
