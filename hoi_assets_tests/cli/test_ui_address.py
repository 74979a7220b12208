"""`hoi ui`: one per home, on ports that are free; refused in one clear line otherwise."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hoi_assets.cli.exit_codes import ExitCode
from hoi_assets.cli.ui_address import Address, claim, last_address
from hoi_assets.settings import ROOT

# Claims the home and becomes another program, as `hoi ui` becomes `dagster dev`.
UI = """
import os, sys
from pathlib import Path
from hoi_assets.cli.ui_address import Address, announce, claim
home = Path(sys.argv[1])
claim(home)
announce(home, Address("http://127.0.0.1:3007", "http://127.0.0.1:3008", os.getpid()))
wait = "import sys, time; print('running', flush=True); time.sleep(600)"
os.execv(sys.executable, [sys.executable, "-c", wait])
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    (home / "dagster").mkdir(parents=True)
    return home


@pytest.fixture
def running_ui(home: Path) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "-c", UI, str(home / "dagster")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "running\n"
    yield process
    process.kill()
    process.wait()


def hoi_ui(home: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "hoi_assets.cli", "ui", *options],
        cwd=ROOT,
        env=os.environ | {"HOI_HOME": str(home), "DAGSTER_HOME": ""},
        text=True,
        capture_output=True,
        timeout=60,
    )


def test_second_ui_of_a_home_is_refused_and_names_the_first(home, running_ui) -> None:
    second = hoi_ui(home)
    assert second.returncode == ExitCode.USER_ERROR and not second.stdout
    what, remedy = second.stderr.splitlines()
    assert what.startswith(f"error: the UI of {home / 'dagster'} runs already")
    assert f"at http://127.0.0.1:3007 (process {running_ui.pid})" in what
    assert "open it in the browser" in remedy


def test_killed_ui_leaves_the_home_free_and_its_last_address_known(home, running_ui) -> None:
    running_ui.kill()
    running_ui.wait()
    claim(home / "dagster")
    assert last_address(home / "dagster") == Address(
        "http://127.0.0.1:3007", "http://127.0.0.1:3008", running_ui.pid
    )


@pytest.mark.parametrize("option", ["--port", "--pages-port"])
def test_port_that_another_program_has_is_refused_with_the_option_to_change(home, option) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = hoi_ui(home, option, str(taken.getsockname()[1]))
    assert done.returncode == ExitCode.USER_ERROR
    what, remedy = done.stderr.splitlines()
    assert "Address already in use" in what and f"with {option}" in remedy
    assert last_address(home / "dagster") is None
