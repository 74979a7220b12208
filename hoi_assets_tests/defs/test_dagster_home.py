"""Dagster's databases in an empty home that several processes begin at once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Forks after the imports, so that all begin within a millisecond.
BEGIN = """
import os, sys
from pathlib import Path
import dagster as dg
from hoi_assets.defs.resources import prepare_dagster_home

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
