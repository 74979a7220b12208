"""`python -m proofs` with few trials: the campaigns run, and lose nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hoi_assets.settings import ROOT

# What each campaign does within these trials is said in its module.
CAMPAIGNS = [
    *(("crash", 3), ("resources", 2), ("concurrency", 1)),
    *(("properties", 6), ("hostile", 3), ("cluster", 3)),
]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("name", "trials"), CAMPAIGNS)
def test_campaign_loses_nothing(name: str, trials: int, tmp_path: Path) -> None:
    if name == "cluster":
        pytest.importorskip("ray", reason="Ray is not installed: pip install 'hoi-assets[ray]'")
    table = tmp_path / "table.json"
    done = subprocess.run(
        [sys.executable, "-m", "proofs", name, "--trials", str(trials), "--json", str(table)],
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = json.loads(table.read_text(encoding="utf-8"))
    assert (row["campaign"], row["trials"], row["lost"]) == (name, trials, 0)
