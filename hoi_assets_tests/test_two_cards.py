"""One process per GPU on one home: what docs/full-size.md says of several cards.

The processes are real; the cards are named by CUDA_VISIBLE_DEVICES, and the models run on the CPU.
"""

import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from hoi_assets.defs.project import load_project
from hoi_assets.defs.warm_loop import run_pipelines
from hoi_assets.settings import ROOT
from hoi_assets.store.versions import Store
from hoi_assets_tests.engines.small_sd3 import make_sd3
from hoi_assets_tests.pipeline_fixture import environment
from hoi_assets_tests.test_detailscribe_pipeline import make_vqa, profile_of

pytestmark = pytest.mark.slow
SOURCES = {"benchmark": "sd3", "critic": "vqa"}
OF_CARDS = {"0": "functional", "1": "compositional"}


def test_two_processes_with_a_card_each_make_the_versions_of_one(tmp_path: Path) -> None:
    make_sd3(tmp_path / "sd3")
    make_vqa(tmp_path / "vqa")
    models = {name: {"source": str(tmp_path / one)} for name, one in SOURCES.items()}
    little = {"reference_pool": None, "bootstrap_samples": 100}
    profile = profile_of(tmp_path, models, interacting={"rows_per_scenario": 1}, evaluation=little)
    shared, alone = tmp_path / "shared", tmp_path / "alone"
    running = {
        card: subprocess.Popen(
            [sys.executable, "-m", "hoi_assets.cli.main", "run", scenario],
            cwd=ROOT,
            env=environment(shared, profile) | {"CUDA_VISIBLE_DEVICES": card},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for card, scenario in OF_CARDS.items()
    }
    for process in running.values():
        printed, _ = process.communicate(timeout=600)
        assert process.returncode == 0, printed
    project = load_project(str(profile), alone)
    with dg.DagsterInstance.ephemeral() as instance:
        report = run_pipelines(project, instance, tuple(OF_CARDS.values()), log=lambda line: None)
    assert not report.blocked
    assert versions(shared) == versions(alone)


def versions(home: Path) -> dict[str, str]:
    """The versions in force, by asset and partition."""
    return {one.name: one.version for one in Store(home).all_current()}
