"""Before a fetch: what the hub gives, how much of it there is, and whether it fits on the disk."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from hoi_assets.engines.model_fetch import fetch_models
from hoi_assets.preflight.findings import Finding
from hoi_assets.preflight.hub import check_hub
from hoi_assets.settings import ModelRef
from hoi_assets_tests.engines.hub_server import Hub, Repository
from hoi_assets_tests.engines.small_judges import make_clip
from hoi_assets_tests.engines.test_model_fetch import CLIP, REVISION, point_at, quiet

pytestmark = pytest.mark.slow

NAMED = {
    "clip": ModelRef(source=CLIP, revision=REVISION),
    "blip_vqa": ModelRef(source="gated/clip", revision=REVISION),
    "verifier": ModelRef(source="a/folder"),
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    make_clip(tmp_path / "clip")
    open_one = Repository(tmp_path / "clip", REVISION)
    gated = Repository(tmp_path / "clip", REVISION, gated=True)
    started = Hub({CLIP: open_one, "gated/clip": gated})
    point_at(started, tmp_path, monkeypatch)
    yield started
    if not started.closed:
        started.close()


def states(found: list[Finding]) -> dict[tuple[str, str], str]:
    return {(one.area, one.subject): one.state for one in found}


def test_size_that_is_said_is_what_a_fetch_downloads(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = list(check_hub(NAMED, offline=False))
    assert states(found) == {
        ("licences", "clip"): "ok",
        ("licences", "blip_vqa"): "problem",
        ("disk", "models"): "ok",
    }
    (fetched,) = fetch_models({"clip": NAMED["clip"]}, quiet)
    kilobytes = f"{fetched.downloaded_bytes / 1000:.3g} kB"
    assert f"without a token, {kilobytes} to download" in found[0].what
    assert f"models that the hub gives take {kilobytes}" in found[2].what


def test_models_that_do_not_fit_on_the_disk_are_a_problem(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    (*_, room) = check_hub(NAMED, offline=False)
    assert room.state == "problem" and "HOI_MODELS" in (room.remedy or "")


def test_hub_that_does_not_answer_is_told_once(hub: Hub) -> None:
    hub.close()
    found = list(check_hub(NAMED, offline=False))
    assert states(found) == {("licences", "hub"): "problem", ("disk", "models"): "ok"}
    assert "2 models are to be fetched" in found[0].what and "unknown" in found[1].what


def test_offline_nobody_is_asked(hub: Hub) -> None:
    assert states(list(check_hub(NAMED, offline=True))) == {("disk", "models"): "ok"}
    assert not hub.requests
