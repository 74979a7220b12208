"""`hoi doctor` on one good and three broken profiles: every fault is named with its remedy."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from hoi_assets.cli.exit_codes import ExitCode
from hoi_assets.cli.main import main
from hoi_assets_tests.engines.hub_server import Hub, Repository
from hoi_assets_tests.engines.test_model_fetch import REVISION, point_at
from hoi_assets_tests.llm.chat_server import KEY, Answer, Request, Server
from hoi_assets_tests.preflight.profiles import (
    GATED,
    bare_machine,
    good_profile,
    make_models,
    nothing,
    sees_pictures,
    wrong_files,
    wrong_services,
)
from hoi_assets_tests.preflight.test_plan import CATEGORY

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(behaviour: Callable[[Request, int], Answer]) -> Server:
        servers.append(Server(behaviour))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.mark.parametrize("change", [nothing, bare_machine, wrong_files, wrong_services])
def test_every_fault_is_named_with_its_remedy(
    change, models: Path, tmp_path: Path, serve, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setenv("HOI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOI_API_KEY", KEY)
    hub = Hub({GATED: Repository(models / "sdxl", REVISION, gated=True)})
    point_at(hub, tmp_path, monkeypatch)
    good = good_profile(models, tmp_path, serve(sees_pictures))
    expected = change(good, tmp_path, serve, models)
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(good), "utf-8")
    code = main(["doctor", CATEGORY, "functional", "--profile", str(path), "--json"])
    hub.close()
    said = capsys.readouterr().out
    found = json.loads(said)
    problems = {
        (one["area"], one["subject"]): one for one in found["findings"] if one["state"] == "problem"
    }
    assert problems.keys() == expected.keys(), json.dumps(list(problems.values()), indent=1)
    for subject, (what, remedy) in expected.items():
        assert what in problems[subject]["what"] and remedy in problems[subject]["remedy"]
        assert problems[subject]["remedy"]
    assert code == (ExitCode.PROBLEM if expected else ExitCode.OK)
    assert found["ready"] == (not expected) and KEY not in said


def test_good_profile_is_told_what_it_should_know(
    models: Path, tmp_path: Path, serve, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setenv("HOI_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HOI_API_KEY", raising=False)
    server = serve(sees_pictures)
    good = good_profile(models, tmp_path, server)
    del good["verifier"]
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(good), "utf-8")
    assert main(["doctor", CATEGORY, "functional", "--profile", str(path)]) == ExitCode.OK
    said = capsys.readouterr().out
    assert "6 usable, 6 different, 1 turned upright by their EXIF tag" in said
    assert "5 without a caption" in said
    assert "not calibrated on your pictures" in said
    assert "critic: a-model at" in said and "text, schema and picture understood" in said
    assert said.rstrip().endswith("ready; problems: 0, warnings: 1")
    assert len(server.requests) == 2  # the critic and the judge share theirs
    assert not (tmp_path / "home" / "images").exists()


def test_offline_doctor_calls_nobody(models, tmp_path, serve, monkeypatch, capsys) -> None:
    monkeypatch.setenv("HOI_HOME", str(tmp_path / "home"))
    server = serve(sees_pictures)
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(good_profile(models, tmp_path, server)), "utf-8")
    assert main(["doctor", CATEGORY, "--profile", str(path), "--offline"]) == ExitCode.OK
    assert not server.requests and not server.fetched
