"""One process per GPU on one home: what docs/full-size.md says of several cards.

The processes are real; the cards are named by CUDA_VISIBLE_DEVICES, and the models run on the CPU.
"""

import shutil
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
from proofs.running import execute

pytestmark = pytest.mark.slow
SOURCES = {"benchmark": "sd3", "critic": "vqa"}
OF_CARDS = {"0": "functional", "1": "compositional"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A profile, and the home that two processes have worked on."""
    tmp_path = tmp_path_factory.mktemp("cards")
    make_sd3(tmp_path / "sd3")
    make_vqa(tmp_path / "vqa")
    models = {name: {"source": str(tmp_path / one)} for name, one in SOURCES.items()}
    little = {"reference_pool": None, "bootstrap_samples": 100}
    profile = profile_of(tmp_path, models, interacting={"rows_per_scenario": 1}, evaluation=little)
    shared = tmp_path / "shared"
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
    return profile, shared


def test_two_processes_with_a_card_each_make_the_versions_of_one(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    profile, shared = made
    project = load_project(str(profile), tmp_path)
    with dg.DagsterInstance.ephemeral() as instance:
        report = run_pipelines(project, instance, tuple(OF_CARDS.values()), log=lambda line: None)
    assert not report.blocked
    assert versions(shared) == versions(tmp_path)


def test_a_scenario_that_the_other_process_is_half_way_through_is_not_scored_yet(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    profile, shared = made
    shutil.copytree(shared, tmp_path / "home", symlinks=True)
    for asset in ("refined_images", "baseline_images"):
        (tmp_path / "home" / "assets" / asset / "compositional" / "current.json").unlink()
    project = load_project(str(profile), tmp_path / "home")
    with dg.DagsterInstance.ephemeral() as instance:
        assert execute(project, instance, "interacting_scorecards", None).success
    card = Store(tmp_path / "home").require("interacting_scorecards").table("scorecard")
    assert set(card.filter(slice_kind="scenario")["slice"]) == {"functional"}


def versions(home: Path) -> dict[str, str]:
    """The versions in force, by asset and partition."""
    return {one.name: one.version for one in Store(home).all_current()}
