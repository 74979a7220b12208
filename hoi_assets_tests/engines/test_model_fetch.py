"""Models come from a hub on loopback into folders that work without it."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from hoi_assets.engines.clip_score import load_clip
from hoi_assets.engines.model_check import check_models
from hoi_assets.engines.model_fetch import fetch_models
from hoi_assets.engines.sdxl.loading import load_sdxl
from hoi_assets.engines.vilt.verifier import load_verifier
from hoi_assets.errors import HoiError
from hoi_assets.settings import ROOT, ModelRef
from hoi_assets.store.weights import fetched_folder, model_digest
from hoi_assets_tests.engines.hub_server import Hub, Repository
from hoi_assets_tests.engines.small_judges import make_clip, make_pretrained_vilt
from hoi_assets_tests.engines.small_sdxl import make_sdxl

REVISION = "0123456789abcdef0123456789abcdef01234567"
OTHER = "f" * 40
SDXL, CLIP, VILT = "stable/small-xl", "open/small-clip", "dandelin/small-vilt"


def as_bin(folder: Path, drop: str = "") -> None:
    """Replace safetensors by `pytorch_model.bin`, as older repositories have it."""
    from safetensors.torch import load_file

    state = load_file(folder / "model.safetensors")
    kept = {name: one for name, one in state.items() if not drop or not name.startswith(drop)}
    torch.save(kept, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def point_at(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_ENDPOINT does in a new process; models go below `folder`."""
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setenv("HOI_MODELS", str(folder / "models"))
    monkeypatch.setenv("HF_TOKEN", "")


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Repositories as they are released: variants and other frameworks' files beside."""
    folder = tmp_path_factory.mktemp("upstream")
    make_sdxl(folder / SDXL)
    unet = folder / SDXL / "unet"
    (unet / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"variant")
    (folder / SDXL / "sd_xl_base_1.0.safetensors").write_bytes(b"everything in one file")
    make_clip(folder / CLIP)
    as_bin(folder / CLIP)
    (folder / CLIP / "flax_model.msgpack").write_bytes(b"flax")
    make_pretrained_vilt(folder / VILT)
    return folder


@pytest.fixture
def hub(upstream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = Hub({name: Repository(upstream / name, REVISION) for name in (SDXL, CLIP, VILT)})
    point_at(hub, tmp_path, monkeypatch)
    yield hub
    hub.close()


def ref(name: str, revision: str = REVISION) -> ModelRef:
    return ModelRef(source=name, revision=revision)


def quiet(_: str) -> None:
    pass


def test_fetched_models_are_whole_and_load_with_the_hub_gone(hub: Hub) -> None:
    named = {"base": ref(SDXL), "clip": ref(CLIP), "verifier": ref(VILT)}
    assert [state.origin for state in check_models(named)] == ["missing"] * 3
    fetched = fetch_models(named, quiet)
    assert all(one.downloaded_bytes == one.bytes > 0 for one in fetched)
    hub.close()
    files = {path.name for path in (fetched_folder(named["base"])).rglob("*")}
    assert "fetched.json" in files
    assert not files & {"sd_xl_base_1.0.safetensors", "diffusion_pytorch_model.fp16.safetensors"}
    states = {state.entry: state for state in check_models(named, hashes=True)}
    assert {(one.origin, one.problem) for one in states.values()} == {("fetched", None)}
    assert (fetched_folder(named["clip"]) / "model.safetensors").is_file()
    assert "fresh ones are drawn" in " ".join(states["verifier"].notes)
    loaded = load_sdxl(named["base"])
    weights = sum(one.nbytes for part in loaded.modules for one in part.state_dict().values())
    assert states["base"].memory_bytes == pytest.approx(weights, rel=0.01)
    assert load_clip(named["clip"]).model.config.projection_dim == 16
    assert load_verifier(named["verifier"]).model.config.num_labels == 2


def test_a_variant_is_fetched_with_its_own_weights(hub: Hub, tmp_path: Path) -> None:
    unet, vae = (f"{part}/diffusion_pytorch_model" for part in ("unet", "vae"))
    folder = tmp_path / "halves"
    make_sdxl(folder)
    (folder / f"{unet}.safetensors").rename(folder / f"{unet}.fp16.safetensors")
    shutil.copy(folder / f"{vae}.safetensors", folder / f"{vae}.fp16.safetensors")
    hub.repositories["stable/halves"] = Repository(folder, REVISION)
    plain, variant = ref("stable/halves"), ref("stable/halves")
    variant = variant.model_copy(update={"variant": "fp16"})
    with pytest.raises(HoiError, match=r"unet/.*fp16\.safetensors, and no weights.*\n.*`variant`"):
        fetch_models({"base": plain}, quiet)
    fetch_models({"base": variant}, quiet)
    names = {path.name for path in (fetched_folder(variant) / "vae").glob("*")}
    assert names == {"config.json", "diffusion_pytorch_model.fp16.safetensors"}
    assert [one.origin for one in check_models({"base": plain})] == ["missing"]
    hub.close()
    (state,) = check_models({"base": variant}, hashes=True)
    assert (state.origin, state.problem) == ("fetched", None) and load_sdxl(variant).modules


def test_plain_weights_that_were_fetched_do_not_pass_for_a_variant(hub: Hub) -> None:
    variant = ref(CLIP).model_copy(update={"variant": "fp16"})
    fetch_models({"clip": ref(CLIP)}, quiet)
    states = [next(check_models({"clip": one})) for one in (ref(CLIP), variant)]
    assert [state.origin for state in states] == ["fetched", "missing"]


def test_where_a_repository_lies_is_not_part_of_its_digest(hub: Hub) -> None:
    before = model_digest(ref(CLIP))
    fetch_models({"clip": ref(CLIP)}, quiet)
    assert model_digest(ref(CLIP)) == before


def test_second_fetch_downloads_nothing(hub: Hub) -> None:
    fetch_models({"clip": ref(CLIP)}, quiet)
    count = len(hub.requests)
    (again,) = fetch_models({"clip": ref(CLIP)}, quiet)
    assert again.downloaded_bytes == 0
    assert {request.path.split("/")[1] for request in hub.requests[count:]} == {"api"}


def test_killed_fetch_goes_on_where_it_stopped(hub: Hub, tmp_path: Path) -> None:
    weights = "pytorch_model.bin"
    size = (hub.repositories[VILT].folder / weights).stat().st_size
    hub.block_pause_s = 0.3
    code = (
        "from hoi_assets.engines.model_fetch import fetch_models;"
        "from hoi_assets.settings import ModelRef;"
        f"fetch_models({{'verifier': ModelRef(source='{VILT}', revision='{REVISION}')}}, print)"
    )
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "PYTHONPATH": str(ROOT)}
    environment["HF_HUB_DOWNLOAD_CHUNK_SIZE"] = "16384"
    process = subprocess.Popen([sys.executable, "-c", code], env=environment)
    partial = fetched_folder(ref(VILT)) / f"{weights}.part"
    deadline = time.monotonic() + 240
    while not hub.starts(weights) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1.0)
    process.kill()
    process.wait()
    kept = partial.stat().st_size
    hub.block_pause_s = 0.0
    fetch_models({"verifier": ref(VILT)}, quiet)
    assert hub.starts(weights) == [0, kept] and kept < size
    (state,) = check_models({"verifier": ref(VILT)}, hashes=True)
    assert state.problem is None


@pytest.mark.parametrize(
    ("change", "asked", "what", "remedy"),
    [
        ({"gated": True}, REVISION, "is gated", "accept the licence on http"),
        ({}, OTHER, f"no {CLIP} at revision {OTHER}", "commits/main"),
        ({"lacks": ("config.json",)}, REVISION, "lacks a file", "pin another revision"),
        ({"damaged": ("pytorch_model.bin",)}, REVISION, "arrived damaged", "again"),
        ({"damaged": ("config.json",)}, REVISION, "arrived damaged", "again"),
    ],
)
def test_what_the_hub_refuses_is_named_with_its_remedy(hub, upstream, change, asked, what, remedy):
    hub.repositories[CLIP] = Repository(upstream / CLIP, REVISION, **change)
    with pytest.raises(HoiError, match=what) as caught:
        fetch_models({"clip": ref(CLIP, asked)}, quiet)
    assert remedy in caught.value.remedy
    assert not (fetched_folder(ref(CLIP, asked)) / "fetched.json").exists()


def test_token_opens_a_gated_repository(hub, upstream, monkeypatch) -> None:
    hub.repositories[CLIP] = Repository(upstream / CLIP, REVISION, gated=True)
    monkeypatch.setenv("HF_TOKEN", "hf_of_another")
    with pytest.raises(HoiError, match="is gated") as caught:
        fetch_models({"clip": ref(CLIP)}, quiet)
    assert "a token is set" in caught.value.remedy and "hf_of_another" not in str(caught.value)
    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert fetch_models({"clip": ref(CLIP)}, quiet)


def test_absent_repository_and_absent_hub_are_told_apart(hub) -> None:
    with pytest.raises(HoiError, match="the hub has no open/nothing"):
        fetch_models({"clip": ref("open/nothing")}, quiet)
    hub.close()
    with pytest.raises(HoiError, match="cannot be fetched") as caught:
        fetch_models({"clip": ref(CLIP)}, quiet)
    assert "connect to the network" in caught.value.remedy


def test_model_in_the_hubs_own_cache_is_found_offline(hub, tmp_path, monkeypatch) -> None:
    from huggingface_hub import hf_hub_download

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    for name in hub.repositories[CLIP].files():
        hf_hub_download(CLIP, name, revision=REVISION)
    count = len(hub.requests)
    (state,) = check_models({"clip": ref(CLIP)})
    assert (state.origin, state.problem) == ("hub cache", None)
    assert "read with weights_only" in " ".join(state.notes)
    assert len(hub.requests) == count
