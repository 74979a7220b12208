import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hoi_assets.engines.device import configure_torch
from hoi_assets.engines.sdxl.loading import LoadedSDXL, load_sdxl
from hoi_assets.errors import HoiError
from hoi_assets.settings import ModelRef, load_settings
from hoi_assets.store.weights import model_digest

UNET = "unet/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"


@pytest.fixture
def copy(sdxl_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sdxl_folder, tmp_path / "broken"))


def refused(folder: Path) -> str:
    with pytest.raises(HoiError) as caught:
        load_sdxl(ModelRef(source=str(folder)))
    assert "hoi models fetch" in caught.value.remedy or "config.json" in caught.value.remedy
    return caught.value.what


def test_changed_weights_are_loaded_anew(copy: Path) -> None:
    first = load_sdxl(ModelRef(source=str(copy)))
    before = first.pipe.unet.conv_in.bias.clone()
    weights = load_file(copy / UNET)
    weights["conv_in.bias"] += 1
    save_file(weights, copy / UNET, metadata={"format": "pt"})
    # Safetensors maps files into memory: the model in the cache must not follow its file.
    assert torch.equal(first.pipe.unet.conv_in.bias, before)
    second = load_sdxl(ModelRef(source=str(copy)))
    assert first.digest != second.digest
    assert not torch.equal(first.pipe.unet.conv_in.bias, second.pipe.unet.conv_in.bias)


def test_digest_follows_content_and_dtype_but_not_place_or_readme(
    sdxl_folder: Path, copy: Path
) -> None:
    (copy / "README.md").write_text("a card", encoding="utf-8")
    assert model_digest(ModelRef(source=str(copy))) == model_digest(
        ModelRef(source=str(sdxl_folder))
    )
    assert model_digest(ModelRef(source=str(copy), dtype="bfloat16")) != model_digest(
        ModelRef(source=str(copy))
    )


def test_missing_folder_is_named(tmp_path: Path) -> None:
    assert str(tmp_path / "nothing") in refused(tmp_path / "nothing")


@pytest.mark.parametrize(
    "name",
    [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "tokenizer/tokenizer.json",
        UNET,
        TEXT,
    ],
)
def test_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    assert str(copy / name) in refused(copy)


@pytest.mark.parametrize("name", [UNET, TEXT])
def test_truncated_weights_are_named(copy: Path, name: str) -> None:
    whole = (copy / name).read_bytes()
    (copy / name).write_bytes(whole[: len(whole) // 2])
    assert str(copy / name) in refused(copy)


@pytest.mark.parametrize("name", [UNET, TEXT])
def test_weights_of_wrong_shape_are_refused(copy: Path, name: str) -> None:
    weights = load_file(copy / name)
    key = sorted(key for key in weights if weights[key].ndim == 2)[0]
    weights[key] = torch.zeros(3, 5)
    save_file(weights, copy / name, metadata={"format": "pt"})
    message = refused(copy)
    assert str(copy / name.split("/")[0]) in message
    assert key in message


@pytest.mark.parametrize("name", [UNET, TEXT])
def test_absent_weight_is_refused_not_filled_with_noise(copy: Path, name: str) -> None:
    weights = load_file(copy / name)
    key = sorted(weights)[0]
    del weights[key]
    save_file(weights, copy / name, metadata={"format": "pt"})
    assert "1 missing keys" in refused(copy)


def test_pickled_weights_are_refused(copy: Path) -> None:
    weights = load_file(copy / UNET)
    (copy / UNET).unlink()
    torch.save(weights, copy / "unet" / "diffusion_pytorch_model.bin")
    assert str(copy / UNET) in refused(copy)


def test_broken_json_is_named(copy: Path) -> None:
    (copy / "vae" / "config.json").write_text("{", encoding="utf-8")
    assert str(copy / "vae" / "config.json") in refused(copy)


def test_end_token_that_would_pool_all_prompts_alike_is_refused(copy: Path) -> None:
    path = copy / "text_encoder_2" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | {"eos_token_id": 49407}
    path.write_text(json.dumps(config), encoding="utf-8")
    assert "eos_token_id is 49407" in refused(copy)


def test_hub_model_without_pinned_commit_is_refused() -> None:
    with pytest.raises(HoiError, match="'main', which is not a commit"):
        load_sdxl(ModelRef(source="stabilityai/stable-diffusion-xl-base-1.0", revision="main"))


def test_text_is_encoded_as_the_pipeline_does(loaded: LoadedSDXL) -> None:
    embeds, negative, pooled, negative_pooled = loaded.pipe.encode_prompt("a red ball")
    ours, ours_pooled = loaded.encode("a red ball")
    none, none_pooled = loaded.encode_negative("")
    assert torch.equal(embeds, ours) and torch.equal(pooled, ours_pooled)
    assert torch.equal(negative, none) and torch.equal(negative_pooled, none_pooled)
    assert not none.any()
    assert loaded.encode_negative("blurred")[0].any()


def test_configure_sets_threads_and_gives_the_device() -> None:
    threads = torch.get_num_threads()
    try:
        settings = load_settings("tiny").model_copy(update={"threads": 1, "device": "cpu"})
        assert configure_torch(settings) == "cpu"
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)
