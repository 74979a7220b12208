"""Content depends on inputs alone: no environment variable, locale, time zone or folder shows."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hoi_assets.settings import ROOT
from hoi_assets_tests.engines.small_judges import make_vilt
from hoi_assets_tests.engines.small_sd3 import make_sd3
from hoi_assets_tests.engines.small_sdxl import make_sdxl
from hoi_assets_tests.small_artefacts import STAGES
from hoi_assets_tests.test_detailscribe_pipeline import make_vqa

ODD = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "LANG": "tr_TR.ISO-8859-9",
    "LC_ALL": "C",
    "TZ": "Pacific/Chatham",
    "PYTHONHASHSEED": "7",
    "POLARS_MAX_THREADS": "1",
    "ACCELERATE_MIXED_PRECISION": "bf16",
    "HOI_PAGES_URL": "http://elsewhere:9",
    "COLUMNS": "20",
}
ERRORS = "errors.txt"
PLAIN_UMASK, ODD_UMASK = 0o022, 0o077


def start(folder: Path, models: Path, umask: int, **variables: str) -> subprocess.Popen[str]:
    """Make the small artefacts in a process whose home and working folder is `folder`."""
    environment = {k: v for k, v in os.environ.items() if k not in ODD}
    environment |= {"PYTHONPATH": str(ROOT), "HOI_PROFILE": "tiny", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "hoi_assets_tests.small_artefacts", str(folder)]
    return subprocess.Popen(
        [*command, str(models)],
        cwd=folder,
        env=environment | {"HOME": str(folder)} | variables,
        umask=umask,
        text=True,
        stdout=subprocess.PIPE,
        stderr=(folder / ERRORS).open("w"),
    )


def finish(process: subprocess.Popen[str], folder: Path) -> dict[str, Any]:
    out, _ = process.communicate()
    assert process.returncode == 0, (folder / ERRORS).read_text(errors="replace")
    return dict(json.loads(out.splitlines()[-1]))


@pytest.mark.timeout(1800)  # two processes that import everything, on a machine that may be busy
def test_odd_environment_gives_the_same_hashes(tmp_path: Path) -> None:
    make_vilt(tmp_path / "vilt")
    make_sdxl(tmp_path / "sdxl")
    make_sd3(tmp_path / "sd3")
    make_vqa(tmp_path / "vqa")
    plain, odd = tmp_path / "plain", tmp_path / "it's odd" / "#2"
    for folder in (plain, odd):
        folder.mkdir(parents=True)
    (odd / "matplotlibrc").write_text("font.size: 20\nlines.linewidth: 9\n", encoding="utf-8")
    (odd / "data").mkdir()  # as the profile's paths begin
    processes = start(plain, tmp_path, PLAIN_UMASK), start(odd, tmp_path, ODD_UMASK, **ODD)
    first, second = map(finish, processes, (plain, odd))
    assert len(first) == len(STAGES) + 3 and "tokenizer_config.json" in first["verifier"]
    assert first == second
