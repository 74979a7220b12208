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
from hoi_assets_tests.engines.small_sdxl import make_sdxl

ODD = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "debug",
    "LANG": "tr_TR.ISO-8859-9",
    "LC_ALL": "C",
    "TZ": "Pacific/Chatham",
    "PYTHONHASHSEED": "7",
    "POLARS_MAX_THREADS": "1",
    "ACCELERATE_MIXED_PRECISION": "bf16",
    "HOI_PAGES_URL": "http://elsewhere:9",
    "COLUMNS": "20",
}
PLAIN_UMASK, ODD_UMASK = 0o022, 0o077


def start(folder: Path, models: Path, umask: int, **variables: str) -> subprocess.Popen[str]:
    """Make the small artefacts in a process whose home and working folder is `folder`."""
    environment = {k: v for k, v in os.environ.items() if k not in ODD}
    environment |= {"PYTHONPATH": str(ROOT), "HOI_PROFILE": "tiny", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "hoi_assets_tests.small_artefacts", str(folder)]
    return subprocess.Popen(
        [*command, str(models / "vilt"), str(models / "sdxl")],
        cwd=folder,
        env=environment | {"HOME": str(folder)} | variables,
        umask=umask,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return dict(json.loads(out.splitlines()[-1]))


def test_odd_environment_gives_the_same_hashes(tmp_path: Path) -> None:
    make_vilt(tmp_path / "vilt")
    make_sdxl(tmp_path / "sdxl")
    plain, odd = tmp_path / "plain", tmp_path / "it's odd" / "#2"
    for folder in (plain, odd):
        folder.mkdir(parents=True)
    (odd / "matplotlibrc").write_text("font.size: 20\nlines.linewidth: 9\n", encoding="utf-8")
    (odd / "data").mkdir()  # as the profile's paths begin
    processes = start(plain, tmp_path, PLAIN_UMASK), start(odd, tmp_path, ODD_UMASK, **ODD)
    first, second = map(finish, processes)
    assert len(first) == 8 and "tokenizer_config.json" in first["verifier"]
    assert first == second


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_saved_tokenizer_does_not_say_whether_the_hub_was_reached(
    tmp_path: Path, name: str
) -> None:
    make_vilt(tmp_path / "vilt")
    code = (
        "from pathlib import Path; from hoi_assets.engines.vilt.verifier import *\n"
        f"save_verifier(load_verifier(Path({str(tmp_path / 'vilt')!r})), Path('saved'))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), name: "1"}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
    saved = (tmp_path / "saved" / "tokenizer_config.json").read_text(encoding="utf-8")
    assert '"local_files_only": false' in saved
