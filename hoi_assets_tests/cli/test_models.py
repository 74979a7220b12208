"""`hoi models` on a hub on loopback: what it prints, and how it ends."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from hoi_assets.cli.exit_codes import ExitCode
from hoi_assets.cli.main import main
from hoi_assets_tests.engines.hub_server import Hub, Repository
from hoi_assets_tests.engines.small_judges import make_clip, make_image_reward, make_vilt
from hoi_assets_tests.engines.small_sdxl import make_sdxl
from hoi_assets_tests.engines.test_model_fetch import REVISION, as_bin, point_at

NAMES = {"base": "stable/xl", "verifier": "dandelin/vilt", "clip": "open/clip"}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("upstream")
    make_sdxl(folder / NAMES["base"])
    make_vilt(folder / NAMES["verifier"])
    make_clip(folder / NAMES["clip"])
    as_bin(folder / NAMES["clip"])
    make_image_reward(folder / "image_reward")
    return folder


@pytest.fixture
def hub(upstream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    hub = Hub({name: Repository(upstream / name, REVISION) for name in NAMES.values()})
    point_at(hub, tmp_path, monkeypatch)
    models: dict[str, Any] = {
        entry: {"source": name, "revision": REVISION} for entry, name in NAMES.items()
    }
    models["image_reward"] = {"source": str(upstream / "image_reward")}
    profile = tmp_path / "mine.yaml"
    profile.write_text(yaml.safe_dump({"models": models}), encoding="utf-8")
    monkeypatch.setenv("HOI_PROFILE", str(profile))
    yield hub
    hub.close()


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_fetch_makes_check_pass(hub: Hub, tmp_path: Path, capsys) -> None:
    assert main(["models", "check", "--json"]) == ExitCode.PROBLEM
    before = printed(capsys)
    assert not before["ok"] and before["folder"] == str(tmp_path / "models")
    problems = {one["entry"]: one["remedy"] for one in before["models"] if one["problem"]}
    assert problems.keys() == NAMES.keys()
    assert set(problems.values()) == {"get it with `hoi models fetch`"}
    assert main(["models", "fetch", "--json"]) == ExitCode.OK
    fetched = printed(capsys)["models"]
    assert [one["entry"] for one in fetched] == list(NAMES)
    hub.close()
    assert main(["models", "check", "--hashes", "--json"]) == ExitCode.OK
    assert printed(capsys)["ok"]
    assert main(["models", "check"]) == ExitCode.OK
    assert "NOT USABLE" not in capsys.readouterr().out


def test_gated_model_ends_with_2_and_names_the_licence(hub: Hub, capsys) -> None:
    hub.repositories[NAMES["clip"]].gated = True
    assert main(["models", "fetch", "clip"]) == ExitCode.USER_ERROR
    said = capsys.readouterr().err
    assert f"accept the licence on {hub.url}/open/clip" in said and "HF_TOKEN" in said


def test_changed_file_is_found_by_its_hash_and_fetched_again(hub: Hub, tmp_path, capsys) -> None:
    assert main(["models", "fetch", "clip"]) == ExitCode.OK
    folder = tmp_path / "models" / NAMES["clip"] / REVISION
    weights = folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert main(["models", "check", "clip"]) == ExitCode.OK  # sizes alone
    assert main(["models", "check", "clip", "--hashes"]) == ExitCode.PROBLEM
    assert "its hash is not that of the fetched file" in capsys.readouterr().out
    weights.unlink()
    assert main(["models", "fetch", "clip"]) == ExitCode.OK
    assert main(["models", "check", "clip", "--hashes"]) == ExitCode.OK


def test_converted_folder_passes_the_check(upstream: Path, hub: Hub, tmp_path, capsys) -> None:
    out = tmp_path / "converted"
    assert main(["models", "convert", str(upstream / NAMES["clip"]), str(out)]) == ExitCode.OK
    assert str(out / "model.safetensors") in capsys.readouterr().out
    assert main(["models", "convert", str(tmp_path), str(tmp_path / "no")]) == ExitCode.USER_ERROR
