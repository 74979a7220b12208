import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hoi_assets.engines.sd3.loading import load_sd3
from hoi_assets.errors import HoiError
from hoi_assets.settings import ModelRef
from hoi_assets_tests.engines.small_sd3 import make_sd3

TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "sd3"
    make_sd3(path)
    return path


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "broken"))


def refused(folder: Path) -> str:
    with pytest.raises(HoiError) as caught:
        load_sd3(ModelRef(source=str(folder)))
    return caught.value.what


def set_config(folder: Path, part: str, **values: object) -> None:
    path = folder / part / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | values
    path.write_text(json.dumps(config), encoding="utf-8")


def test_model_is_read_from_disk_once_per_process(folder: Path) -> None:
    first = load_sd3(ModelRef(source=str(folder)))
    assert load_sd3(ModelRef(source=str(folder))) is first
    assert first.resolution == 64


def test_text_is_encoded_as_the_pipeline_does(folder: Path) -> None:
    loaded = load_sd3(ModelRef(source=str(folder)))
    texts = ["a red ball"], None, None
    embeds, negative, pooled, negative_pooled = loaded.pipe.encode_prompt(
        *texts, max_sequence_length=loaded.max_sequence_length
    )
    ours, ours_pooled = loaded.encode("a red ball")
    none, none_pooled = loaded.encode_negative("")
    assert torch.equal(embeds, ours) and torch.equal(pooled, ours_pooled)
    assert torch.equal(negative, none) and torch.equal(negative_pooled, none_pooled)
    assert ours.shape == (1, 32 + 1, 16 + 24)
    assert not torch.equal(ours_pooled, loaded.encode("a blue mug")[1])


def test_t5_is_read_where_the_model_has_one(tmp_path: Path) -> None:
    make_sd3(tmp_path, with_t5=True)
    loaded = load_sd3(ModelRef(source=str(tmp_path)))
    embeds, _ = loaded.encode("a red ball")
    assert embeds.shape == (1, 32 + 512, 48)
    assert embeds[:, 32:].any()
    (tmp_path / "text_encoder_3" / "model.safetensors").unlink()
    assert str(tmp_path / "text_encoder_3" / "model.safetensors") in refused(tmp_path)


@pytest.mark.parametrize("name", ["model_index.json", "tokenizer_2/tokenizer.json", TRANSFORMER])
def test_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    assert str(copy / name) in refused(copy)


def test_truncated_weights_are_named(copy: Path) -> None:
    whole = (copy / TRANSFORMER).read_bytes()
    (copy / TRANSFORMER).write_bytes(whole[: len(whole) // 2])
    assert str(copy / TRANSFORMER) in refused(copy)


def test_absent_weight_is_refused_not_filled_with_noise(copy: Path) -> None:
    weights = load_file(copy / TRANSFORMER)
    del weights["proj_out.bias"]
    save_file(weights, copy / TRANSFORMER, metadata={"format": "pt"})
    assert "missing keys, first proj_out.bias" in refused(copy)


def test_parts_that_do_not_fit_are_named(copy: Path, folder: Path, tmp_path: Path) -> None:
    make_sd3(tmp_path / "other", with_t5=True)
    shutil.rmtree(copy / "transformer")
    shutil.copytree(tmp_path / "other" / "text_encoder_3", copy / "text_encoder_3")
    shutil.copytree(tmp_path / "other" / "tokenizer_3", copy / "tokenizer_3")
    shutil.copytree(folder / "transformer", copy / "transformer")
    shutil.copy(tmp_path / "other" / "model_index.json", copy / "model_index.json")
    assert "joint_attention_dim against the text encoders' hidden sizes: 40 and 48" in refused(copy)


def test_end_token_that_would_pool_all_prompts_alike_is_refused(copy: Path) -> None:
    set_config(copy, "text_encoder", eos_token_id=49407)
    assert "text_encoder: eos_token_id is 49407" in refused(copy)


def test_vae_without_shift_factor_is_refused(copy: Path) -> None:
    set_config(copy, "vae", shift_factor=None)
    assert "shift_factor is not set" in refused(copy)


def test_environment_states_what_bits_depend_on(folder: Path) -> None:
    stated = load_sd3(ModelRef(source=str(folder))).environment(4)
    assert stated["batch_size"] == 4
    assert stated["dtype"] == "float32"
    assert stated["threads"] == torch.get_num_threads()
