"""The command line as a whole: its doors, help, completion, errors and exit codes."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import typer

from hoi_assets.cli.exit_codes import ExitCode
from hoi_assets.cli.main import app, main
from hoi_assets.cli.project import Only
from hoi_assets.defs.warm_loop import ONLY
from hoi_assets.settings import ROOT
from hoi_assets_tests.publishing.small_pipeline import write_profile, write_taxonomy
from hoi_assets_tests.rating.published import small_store

COMMANDS = {
    *(
        "run",
        "round",
        "summary",
        "stale",
        "backfill",
        "ui",
        "trace",
        "replay",
        "sql",
        "prune",
        "score",
    ),
    *("plan", "doctor", "models check", "models fetch", "models convert", "repair"),
    *("interacting fetch", "interacting check", "lock-code-versions", "lock-recipes"),
    *("rate make", "rate links", "rate serve", "rate status", "rate labels"),
    *("export dataset", "export webdataset", "export coco", "export lora", "export triples"),
    "ledger move",
}
QUERIES = {
    *("summary", "stale", "trace", "replay", "sql", "prune", "score"),
    *("repair", "interacting check", "rate status"),
    *("export dataset", "export webdataset", "export coco", "export lora", "export triples"),
    *("plan", "doctor", "models check", "models fetch", "ledger move"),
}
HEAVY = (
    *("dagster", "polars", "torch", "pydantic_settings", "duckdb", "great_expectations"),
    *("sqlalchemy", "alembic", "psycopg"),
)


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DAGSTER_HOME", "")
    monkeypatch.setenv("HOI_PROFILE", "tiny")


def leaves(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every command that runs something, by its words."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield name, command
        return
    for word, one in inner.items():
        yield from leaves(one, f"{name} {word}".strip())


def all_commands() -> dict[str, Any]:
    return dict(leaves(typer.main.get_command(app)))


# --- doors and help ----------------------------------------------------------------------------


def test_commands_are_those_that_users_know() -> None:
    assert set(all_commands()) == COMMANDS
    assert [name for name, command in all_commands().items() if command.hidden] == ["lock-recipes"]


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_and_option_explains_itself(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = all_commands()[name]
    assert command.help and all(one.help for one in command.params)
    options = {word for one in command.params for word in one.opts}
    assert "--profile" in options
    assert ("--json" in options) == (name in QUERIES)
    assert main([*name.split(), "--help"]) == ExitCode.OK
    shown = capsys.readouterr().out
    assert f"hoi {name}" in shown and command.help.split()[0] in shown


def test_help_lists_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-h"]) == ExitCode.OK
    epilogue = capsys.readouterr().out.split("Exit codes:")[1]
    assert [word for word in epilogue.split() if word.isdigit()] == [str(c.value) for c in ExitCode]


@pytest.mark.parametrize("module", ["hoi_assets.cli", "hoi_assets.cli.main"])
def test_module_is_the_command(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "stall"], cwd=ROOT, text=True, capture_output=True
    )
    assert done.returncode == ExitCode.USER_ERROR and not done.stdout
    assert "No such command 'stall'. Did you mean 'stale'?" in done.stderr


def test_help_loads_nothing_heavy() -> None:
    loaded = (
        "import sys; from hoi_assets.cli.main import main; main(['--help']); "
        f"print(sorted(set({HEAVY}) & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", loaded], cwd=ROOT, text=True, capture_output=True, check=True
    )
    assert done.stderr.strip() == "[]"


# --- completion --------------------------------------------------------------------------------


def completed(words: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> list[str]:
    """What bash offers at the end of `words`."""
    monkeypatch.setenv("_HOI_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main([])
    assert end.value.code == ExitCode.OK
    return capsys.readouterr().out.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("hoi st", ["stale"]),
        ("hoi rate l", ["links", "labels"]),
        ("hoi models check cl", ["clip"]),
        ("hoi doctor index", ["index_press"]),
        ("hoi run power_", ["power_sphere", "power_wrap"]),
        ("hoi backfill worn func", ["functional"]),
        ("hoi run --only f", ["failed"]),
        ("hoi stale --profile ti", ["tiny"]),
        ("hoi lock-code-versions --same-output hoi_d", ["hoi_dataset"]),
    ],
)
def test_shell_completes_names(words, offered, monkeypatch, capsys) -> None:
    assert completed(words, monkeypatch, capsys) == offered


def test_completion_reads_the_profile_given_and_studies_of_the_home(
    tmp_path, monkeypatch, capsys
) -> None:
    write_taxonomy(tmp_path / "taxonomy", {"hook_twice": ["a hand"]})
    profile = write_profile(tmp_path)
    assert completed(f"hoi run --profile {profile} hook", monkeypatch, capsys) == ["hook_twice"]
    profile.write_text("models: [", encoding="utf-8")
    assert completed(f"hoi run --profile {profile} hook", monkeypatch, capsys) == []
    monkeypatch.delenv("_HOI_COMPLETE")
    monkeypatch.setenv("HOI_PROFILE", "tiny")
    small_store(tmp_path / "home")
    assert main(["rate", "make", "cups", "--suite", "hoi", "--prompts", "1"]) == ExitCode.OK
    assert completed("hoi rate serve c", monkeypatch, capsys) == ["cups"]


# --- errors and exit codes ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["run", "--profile", "huge"], "profile 'huge' not found"),
        (["run", "power_wrp"], "no category 'power_wrp'"),
        (["backfill"], "no category or scenario named"),
        (["backfill", "power_wrp"], "no category 'power_wrp'"),
        (["interacting", "check", "/nowhere"], "no benchmark file in /nowhere"),
        (["prune", "--keep", "0"], "prune: keep is 0"),
        (["plan", "power_wrp"], "no category 'power_wrp'"),
        (["doctor", "power_wrp"], "no category 'power_wrp'"),
        (["models", "check", "examinr"], "the profile names no model 'examinr'"),
    ],
)
def test_user_errors_are_named_with_a_remedy_and_end_with_2(arguments, what, capsys):
    assert main(arguments) == ExitCode.USER_ERROR
    said = capsys.readouterr()
    assert said.err.startswith(f"error: {what}") and not said.out
    assert len(said.err.splitlines()) == 2


@pytest.mark.parametrize(
    ("arguments", "what", "command"),
    [
        ([], "Missing command.", "hoi"),
        (["stall"], "No such command 'stall'", "hoi"),
        (["rate"], "Missing command.", "hoi rate"),
        (["stale", "--al"], "No such option", "hoi stale"),
        (["run", "--only", "new"], "Invalid value for '--only': 'new' is not one of", "hoi run"),
        (["prune", "--keep", "two"], "Invalid value for '--keep'", "hoi prune"),
        (["trace"], "Missing argument 'IMAGE_ID'", "hoi trace"),
        (["rate", "make", "a"], "Missing option '--suite'. Choose from: hoi,", "hoi rate make"),
        (["lock-code-versions", "verifier"], "Invalid value for ASSET", "hoi lock-code-versions"),
    ],
)
def test_wrong_usage_ends_with_2_and_names_the_help(arguments, what, command, capsys):
    assert main(arguments) == ExitCode.USER_ERROR
    said = capsys.readouterr()
    assert not said.out and said.err.startswith(f"error: {what}")
    assert said.err.endswith(f"see `{command} --help`\n") and len(said.err.splitlines()) == 2


@pytest.mark.slow
def test_blocked_run_ends_with_1_and_names_the_file(tmp_path, capsys):
    write_taxonomy(tmp_path / "taxonomy", {"hook": ["no category at all"]})
    profile = write_profile(tmp_path)
    assert main(["run", "hook", "--profile", str(profile)]) == ExitCode.PROBLEM
    said = capsys.readouterr()
    assert str(tmp_path / "taxonomy" / "categories" / "hook.yaml") in said.out
    assert said.err.startswith("blocked: ")


def test_interrupted_command_ends_with_130(tmp_path):
    small_store(tmp_path / "home")
    assert main(["rate", "make", "cups", "--suite", "hoi", "--prompts", "1"]) == ExitCode.OK
    process = subprocess.Popen(
        [sys.executable, "-m", "hoi_assets.cli", "rate", "serve", "cups", "--port", "0"],
        cwd=ROOT,
        env=dict(os.environ),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and "Ctrl+C stops it" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == ExitCode.INTERRUPTED
    assert errors.startswith("interrupted: ") and "Traceback" not in errors


def test_former_name_of_lock_code_versions_warns(capsys):
    main(["lock-recipes", "verifier"])
    warning = capsys.readouterr().err.splitlines()[0]
    assert warning.startswith("warning: `hoi lock-recipes` is now `hoi lock-code-versions`")


# --- backfill ----------------------------------------------------------------------------------


def test_backfill_says_that_it_needs_a_daemon(capsys):
    assert main(["backfill", "hook", "worn"]) == ExitCode.OK
    said = capsys.readouterr()
    assert "2 runs, one each: hook, worn" in said.out
    assert "no daemon is running" in said.err


def test_only_for_a_backfill_leaves_out_what_is_not_asked_for(capsys):
    assert main(["backfill", "--all", "--only", "failed"]) == ExitCode.OK
    assert "nothing failed" in capsys.readouterr().out


def test_command_line_names_what_automation_takes():
    assert get_args(Only) == ONLY


def test_json_of_a_bad_benchmark_folder_names_file_line_and_reason(tmp_path, capsys):
    (tmp_path / "functional.jsonl").write_text('{"topic": "a", "prompt": "b c"}\n{\n', "utf-8")
    assert main(["interacting", "check", str(tmp_path), "--json"]) == ExitCode.PROBLEM
    found = json.loads(capsys.readouterr().out)
    assert found["usable"]["functional"] == 1
    faults = [one for one in found["bad"] if one["line"] == 2]
    assert [Path(one["file"]).name for one in faults] == ["functional.jsonl"]
    assert all(one["reason"] for one in found["bad"])
