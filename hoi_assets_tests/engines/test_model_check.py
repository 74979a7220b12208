"""A model that would fail in a run fails the check, with a remedy; nothing is read whole."""

import json
import shutil
from pathlib import Path

import pytest

from hoi_assets.engines.model_check import check_models
from hoi_assets.engines.model_convert import convert_model
from hoi_assets.engines.model_kinds import (
    ALL_KINDS,
    HPSV3_BASE,
    KINDS,
    TOKENIZER,
    chosen_models,
    named_models,
)
from hoi_assets.errors import HoiError
from hoi_assets.settings import ModelRef, Models, load_settings
from hoi_assets_tests.engines.small_judges import make_clip, make_vilt
from hoi_assets_tests.engines.test_model_fetch import as_bin


def state_of(entry: str, folder: Path | str, revision: str | None = None):
    (state,) = check_models({entry: ModelRef(source=str(folder), revision=revision)})
    return state


def test_every_model_of_the_tiny_profile_passes() -> None:
    named = named_models(load_settings("tiny").models)
    states = list(check_models(named))
    assert {state.entry: state.problem for state in states} == dict.fromkeys(named)
    assert all(state.memory_bytes and state.parameters and state.file_bytes for state in states)


def test_every_model_a_profile_can_name_has_a_kind() -> None:
    assert set(KINDS) == set(Models.model_fields)


def test_only_models_of_the_profile_can_be_asked_for() -> None:
    models = load_settings("tiny").models
    assert list(chosen_models(models, ["clip"])) == ["clip"]
    with pytest.raises(HoiError, match="names no model 'blip_vqa'"):
        chosen_models(models, ["blip_vqa"])


@pytest.mark.parametrize(
    ("entry", "files", "left_out"),
    [
        (
            "base",
            {
                *("model_index.json", "scheduler/scheduler_config.json", "unet/config.json"),
                *("unet/diffusion_pytorch_model.safetensors", "tokenizer/merges.txt"),
                *("text_encoder_2/model.safetensors", "vae/diffusion_pytorch_model.safetensors"),
            },
            {
                *("sd_xl_base_1.0.safetensors", "unet/diffusion_pytorch_model.fp16.safetensors"),
                *("unet/model.onnx", "unet/model.onnx_data", "text_encoder/flax_model.msgpack"),
                *("vae_1_0/diffusion_pytorch_model.safetensors", "README.md", "comparison.png"),
                "text_encoder/openvino_model.bin",
            },
        ),
        (
            "benchmark",
            {
                *("model_index.json", "text_encoder_3/model.safetensors.index.json"),
                *(f"text_encoder_3/model-0000{n}-of-00002.safetensors" for n in (1, 2)),
                *("tokenizer_3/spiece.model", "transformer/config.json"),
                "transformer/diffusion_pytorch_model.safetensors",
            },
            {
                *("sd3.5_medium.safetensors", "text_encoders/t5xxl_fp16.safetensors"),
                *("text_encoder/model.fp16.safetensors", "LICENSE.md"),
                "text_encoder_3/model.fp16-00001-of-00002.safetensors",
                "text_encoder_3/model.safetensors.index.fp16.json",
            },
        ),
        (
            "clip",
            {"config.json", "pytorch_model.bin", "vocab.json", "merges.txt", "tokenizer.json"},
            {"flax_model.msgpack", "tf_model.h5", ".gitattributes"},
        ),
        (
            "blip_vqa",
            {"config.json", "model.safetensors", "vocab.txt", "preprocessor_config.json"},
            {"pytorch_model.bin", "tf_model.h5"},
        ),
        ("image_reward", {"ImageReward.pt", "med_config.json"}, {"README.md", ".gitattributes"}),
        (
            TOKENIZER,
            {"tokenizer.json", "tokenizer_config.json", "vocab.txt", "config.json"},
            {"model.safetensors", "pytorch_model.bin", "rust_model.ot", "tf_model.h5"},
        ),
        ("hpsv3", {"HPSv3.safetensors"}, {"README.md", ".gitattributes", "teaser.png"}),
        (
            HPSV3_BASE,
            {
                *("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.json"),
                *("preprocessor_config.json", "vocab.json", "merges.txt"),
            },
            {
                *(f"model-0000{n}-of-00005.safetensors" for n in range(1, 6)),
                *("model.safetensors.index.json", "LICENSE", "README.md"),
            },
        ),
    ],
)
def test_of_a_released_repository_only_what_is_read_is_wanted(entry, files, left_out) -> None:
    assert set(ALL_KINDS[entry].wanted(files | left_out)) == files


@pytest.mark.parametrize(
    "weights",
    [
        {"text_encoder_3/model.fp16.safetensors"},
        {
            *(f"text_encoder_3/model.fp16-0000{n}-of-00002.safetensors" for n in (1, 2)),
            "text_encoder_3/model.safetensors.index.fp16.json",
        },
        {
            *(f"text_encoder_3/model-0000{n}-of-00002.fp16.safetensors" for n in (1, 2)),
            "text_encoder_3/model.safetensors.index.fp16.json",
        },
    ],
)
def test_of_a_variant_its_weights_are_wanted_and_plain_ones_where_it_has_none(weights) -> None:
    read = {"text_encoder_3/config.json", "vae/diffusion_pytorch_model.safetensors"}
    others = {"text_encoder_3/model.safetensors", "text_encoder_3/model.bf16.safetensors"}
    found = ALL_KINDS["benchmark"].wanted(read | others | weights, "fp16")
    assert set(found) == read | weights


def test_tokenizer_of_the_published_image_reward_is_fetched_and_checked_too() -> None:
    models = load_settings("full").models
    named = named_models(models)
    assert named[TOKENIZER].revision and set(named) - {TOKENIZER} <= set(KINDS)
    assert all(ref.revision for ref in named.values())
    own = models.model_copy(
        update={"image_reward": ModelRef(source="data/models/tiny/image_reward")}
    )
    assert TOKENIZER not in named_models(own)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make_clip(tmp_path / "clip")


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def misshape(folder: Path) -> None:
    facts = json.loads((folder / "config.json").read_text("utf-8"))
    facts["projection_dim"] = 17
    (folder / "config.json").write_text(json.dumps(facts), "utf-8")


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda folder: (folder / "config.json").unlink(), "config.json is missing"),
        (truncate, "does not load as CLIPModel"),
        (misshape, "text_projection.weight is (16, 32), wanted (17, 32)"),
        (shutil.rmtree, "not found"),
    ],
)
def test_folder_that_would_not_load_is_named(clip, damage, what) -> None:
    damage(clip)
    state = state_of("clip", clip)
    assert what in (state.problem or "")
    assert state.remedy and "git checkout" not in state.remedy


def test_revision_must_be_a_commit_and_on_this_machine(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOI_MODELS", str(tmp_path))
    assert "which is not a commit" in (state_of("clip", "open/clip", "main").problem or "")
    missing = state_of("clip", "open/clip", "a" * 40)
    assert missing.origin == "missing" and "hoi models fetch" in (missing.remedy or "")


def test_verifier_with_a_wrong_number_of_heads_is_named(tmp_path) -> None:
    folder = make_vilt(tmp_path / "vilt", labels=("one", "two", "three"))
    state = state_of("verifier", folder)
    assert state.problem is not None or "fresh ones are drawn" in " ".join(state.notes)


def test_converted_weights_load_as_the_released_ones(clip, tmp_path) -> None:
    from safetensors.torch import load_file

    before = load_file(clip / "model.safetensors")
    as_bin(clip)
    made = convert_model(clip, tmp_path / "out")
    assert {path.name for path in made} >= {"model.safetensors", "config.json"}
    after = load_file(tmp_path / "out" / "model.safetensors")
    assert before.keys() == after.keys()
    assert all((before[name] == after[name]).all() for name in before)
    assert state_of("clip", tmp_path / "out").problem is None
    with pytest.raises(HoiError, match="is not empty"):
        convert_model(clip, tmp_path / "out")


def test_code_in_a_checkpoint_is_refused_not_run(tmp_path) -> None:
    import pickle

    (tmp_path / "evil").mkdir()

    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    (tmp_path / "evil" / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": Evil()}))
    with pytest.raises(HoiError, match="cannot be read"):
        convert_model(tmp_path / "evil", tmp_path / "out")
    assert not (tmp_path / "ran").exists()
