"""Dagster's databases: in an empty home that several processes begin at once, and on Postgres."""

import os
import subprocess
import sys
from pathlib import Path
from traceback import format_exception

import dagster as dg
import pytest

from hoi_assets.defs.dagster_home import DATABASE_URL, prepare_dagster_home
from hoi_assets.errors import HoiError
from hoi_assets.store.versions import Store
from hoi_assets_tests.postgres_server import PASSWORD, PostgresServer

# Forks after the imports, so that all begin within a millisecond.
BEGIN = """
import os, sys
from pathlib import Path
import dagster as dg
from hoi_assets.defs.dagster_home import prepare_dagster_home

def begin(home):
    with dg.DagsterInstance.from_config(str(prepare_dagster_home(home))) as instance:
        assert instance.get_runs_count() == 0 and not instance.all_asset_keys()
        assert not instance.all_instigator_state()

for number in range(2):
    home, children = Path(sys.argv[1], str(number)), []
    for _ in range(4):
        child = os.fork()
        if not child:
            code = 1
            try:
                begin(home)
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    assert not any([os.waitpid(child, 0)[1] for child in children])
"""


@pytest.mark.slow
def test_four_processes_begin_in_an_empty_home(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BEGIN, str(tmp_path)],
        env={key: value for key, value in os.environ.items() if key != "DAGSTER_HOME"},
        text=True,
        capture_output=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@dg.asset
def rows() -> None:
    """An asset."""


@pytest.fixture
def url(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of an empty database, set as that of Dagster."""
    pytest.importorskip("dagster_postgres", reason="pip install 'hoi-assets[postgres]'")
    found = postgres.url(postgres.new_database()).replace("+psycopg:", "+psycopg2:")
    monkeypatch.setenv(DATABASE_URL, found)
    return found


@pytest.mark.slow
def test_runs_of_two_machines_meet_in_one_postgres(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    homes = [prepare_dagster_home(tmp_path / name) for name in ("one", "other")]
    with dg.DagsterInstance.from_config(str(homes[0])) as instance:
        result = dg.materialize([rows], instance=instance)
        assert result.success
    with dg.DagsterInstance.from_config(str(homes[1])) as instance:
        (run,) = instance.get_runs()
        assert run.run_id == result.run_id
        assert instance.get_latest_materialization_event(dg.AssetKey("rows"))
    # The ledger may lie in the same database.
    monkeypatch.setenv("HOI_LEDGER_URL", url.replace("+psycopg2:", ":"))
    assert Store(tmp_path / "one").ledger.put("image", {"k": 1}) == {"k": 1}
    with dg.DagsterInstance.from_config(str(homes[0])) as instance:
        assert instance.get_runs_count() == 1
    assert not list(tmp_path.rglob("*.db"))
    assert all(PASSWORD not in path.read_text("utf-8") for path in tmp_path.rglob("*.yaml"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("s3cret", "wrong"), "password authentication failed"),
        (("/ledger_", "/missing_"), "does not exist"),
        (("+psycopg2", ""), "does not begin with"),
        (("/ledger_", "?ledger_"), "is not the URL of a Postgres database"),
    ],
)
def test_a_wrong_database_is_named_without_its_password(
    change: tuple[str, str], said: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DATABASE_URL, url.replace(*change))
    with pytest.raises(HoiError, match=said) as error:
        prepare_dagster_home(tmp_path)
    assert "cret" not in "".join(format_exception(error.value))
    monkeypatch.setenv(DATABASE_URL, url)
    assert prepare_dagster_home(tmp_path).is_dir()
