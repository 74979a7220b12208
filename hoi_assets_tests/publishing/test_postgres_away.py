"""Postgres is away for 30 s in the middle of a run."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hoi_assets.settings import ROOT
from hoi_assets.store.versions import Store
from hoi_assets_tests.postgres_server import PostgresServer
from hoi_assets_tests.publishing.small_pipeline import (
    GOOD,
    calls,
    write_profile,
    write_taxonomy,
)

CATEGORIES = ("hook", "worn")
AWAY_S = 30
PATIENCE_S = 400
RUN = """
import sys
from pathlib import Path
from hoi_assets.cli.main import main
from hoi_assets.defs import project
from hoi_assets_tests.publishing.small_pipeline import small_project

project.load_project = lambda: small_project(Path(sys.argv[1]))
sys.exit(main(["run", "hook", "worn"]))
"""


def home_of(folder: Path) -> Path:
    write_taxonomy(folder / "taxonomy", dict.fromkeys(CATEGORIES, GOOD))
    write_profile(folder)
    return folder


def start(folder: Path, **variables: str) -> "subprocess.Popen[str]":
    environment = os.environ | {
        "HOI_HOME": str(folder / "home"),
        "HOI_PROFILE": str(folder / "small.yaml"),
        "PYTHONPATH": str(ROOT),
        **variables,
    }
    environment.pop("DAGSTER_HOME", None)
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(folder)],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def versions(folder: Path) -> dict[str, str]:
    return {one.name: one.version for one in Store(folder / "home").all_current()}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed, without Postgres."""
    folder = home_of(tmp_path_factory.mktemp("alone"))
    run = start(folder)
    said, _ = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == 0, said
    return folder


@pytest.fixture
def urls(postgres: PostgresServer) -> dict[str, str]:
    """Of the ledger and of Dagster's databases, which share one."""
    url = postgres.url(postgres.new_database())
    return {"HOI_LEDGER_URL": url, "HOI_DAGSTER_URL": url.replace("+psycopg:", "+psycopg2:")}


def interrupted(postgres: PostgresServer, folder: Path, **variables: str) -> tuple[int, str]:
    """A run during which the server is away once something is published; how it ended."""
    run = start(folder, **variables)
    while not list((folder / "home").glob("assets/*/*/current.json")):
        assert run.poll() is None, run.communicate()[0]
        time.sleep(0.01)
    with postgres.away():
        time.sleep(AWAY_S)
    said, _ = run.communicate(timeout=PATIENCE_S)
    assert "Traceback" not in said
    return run.returncode, said


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_outlasts_an_absence_of_the_ledgers_server(
    postgres: PostgresServer, urls: dict[str, str], alone: Path, tmp_path: Path
) -> None:
    folder = home_of(tmp_path)
    ledger = urls["HOI_LEDGER_URL"]
    code, said = interrupted(postgres, folder, HOI_LEDGER_URL=ledger)
    assert code == 0, said
    equal(folder, alone, ledger)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_that_dagsters_database_left_says_so_and_goes_on_once_it_is_back(
    postgres: PostgresServer, urls: dict[str, str], alone: Path, tmp_path: Path
) -> None:
    pytest.importorskip("dagster_postgres", reason="pip install 'hoi-assets[postgres]'")
    folder = home_of(tmp_path)
    code, said = interrupted(postgres, folder, **urls)
    if code:  # Dagster itself tries for a second or so; how far the run was decides
        assert re.search(r"words: blocked.*\n.*outside its steps.*(connect|connection)", said), said
        run = start(folder, **urls)
        said, _ = run.communicate(timeout=PATIENCE_S)
        assert run.returncode == 0, said
    equal(folder, alone, urls["HOI_LEDGER_URL"])


def equal(folder: Path, alone: Path, ledger: str) -> None:
    """Nothing is lost, and nothing was computed twice."""
    os.environ["HOI_LEDGER_URL"] = ledger  # the fixture `own_environment` takes it back
    found = versions(folder)
    del os.environ["HOI_LEDGER_URL"]
    assert found == versions(alone)
    assert sorted(calls(folder)) == sorted(calls(alone))
