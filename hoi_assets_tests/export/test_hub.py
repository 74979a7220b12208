"""Promises of `--push`, against the hub's API on loopback."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hoi_assets.export.folder import FINISHED
from hoi_assets.hashing import files_below
from hoi_assets.settings import ROOT
from hoi_assets.store.scene_pool import read_pool
from hoi_assets_tests.export.hub_server import Hub

POOL = ROOT / "data" / "pool"
pytestmark = pytest.mark.slow


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    yield hub
    hub.close()


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "images").symlink_to(POOL / "images")
    rows = read_pool(POOL, "reference").head(3)
    rows.write_parquet(tmp_path / "pool" / "scenes.parquet")
    return tmp_path / "pool"


def push(hub: Hub, pool: Path, repo: str = "me/hands", **changes: str) -> tuple[int, str]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))
    }
    environment |= {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(pool.parent / "hf"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HOI_HOME": str(pool.parent / "home"),
        "HF_TOKEN": "hf_secret",
        **changes,
    }
    command = [sys.executable, "-m", "hoi_assets.cli.main", "export", "coco"]
    done = subprocess.run(
        [*command, str(pool.parent / "out"), "--pool", str(pool), "--push", repo],
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
    )
    return done.returncode, done.stdout


def test_upload_that_the_hub_refused_goes_on_and_ends_with_every_file(hub: Hub, pool: Path) -> None:
    hub.fail = lambda path: 403 if "/commit/" in path else None
    code, said = push(hub, pool)
    assert code == 2 and "run the same command again" in said
    assert "hf_secret" not in said
    assert (pool.parent / "out" / FINISHED).is_file()
    hub.fail = lambda _: None
    code, said = push(hub, pool)
    assert code == 0, said
    assert "unchanged" in said and f"{hub.url}/datasets/me/hands" in said
    here = dict(files_below(pool.parent / "out"))
    assert hub.files["me/hands"] == {name: path.read_bytes() for name, path in here.items()}
    asked = hub.kinds["me/hands"]
    assert asked["type"] == "dataset" and asked["visibility"] == "private"
    assert hub.tokens == {"Bearer hf_secret"}
    before = len(hub.sent)
    code, said = push(hub, pool)
    assert code == 0, said
    assert len(hub.sent) == before


def test_without_a_token_nothing_is_done(hub: Hub, pool: Path) -> None:
    code, said = push(hub, pool, HF_TOKEN="")
    assert code == 2 and "set HF_TOKEN" in said
    assert not hub.files and not (pool.parent / "out").exists()
