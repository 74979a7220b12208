"""Promises of exported LoRAs: plain diffusers draws equal pictures from both layouts."""

import json
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors import safe_open

from hoi_assets.engines.sdxl.loading import LoadedSDXL
from hoi_assets.engines.sdxl.sampling import LORA_FILE
from hoi_assets.errors import HoiError
from hoi_assets.export.loras import export_loras
from hoi_assets.hashing import digest_file, digest_folder
from hoi_assets.picture_marks import TRAINED, read_mark
from hoi_assets.settings import ModelRef, Models, load_settings
from hoi_assets.store.versions import Store
from hoi_assets.store.weights import model_digest
from hoi_assets_tests.engines.small_sdxl import loaded, picture, random_lora, sdxl_folder

__all__ = ["loaded", "sdxl_folder"]


@pytest.fixture(params=["UNet", "UNet and text encoders"])
def exported(request: pytest.FixtureRequest, loaded: LoadedSDXL, tmp_path: Path) -> Path:
    """A category's LoRA of random weights, alpha twice its rank, published and exported."""
    random_lora(loaded, tmp_path / "lora", seed=3, text_encoders=request.param != "UNet")
    store = Store(tmp_path / "home")
    summary = {
        "category": "hook",
        "identifier": "hookx",
        "base_digest": model_digest(loaded.ref),
        "lora_digest": digest_file(tmp_path / "lora" / LORA_FILE),
        "steps": 4,
    }
    sample = {
        "method": "lora",
        "prompt": "hookx a “bag”",
        "pixels": store.images.put(picture("red")),
    }
    with store.stage("category_loras", "hook") as staging:
        staging.add_folder("lora", tmp_path / "lora")
        staging.write_table("summary", pl.DataFrame([summary]))
        staging.write_table("samples", pl.DataFrame([sample]))
        store.publish(staging, {}, run_id=None)
    settings = load_settings("tiny")
    models = Models(**{**dict(settings.models), "base": ModelRef(source=loaded.ref.source)})
    settings = settings.model_copy(update={"models": models})
    first = export_loras(store, settings, tmp_path / "out")
    export_loras(store, settings, tmp_path / "again", ["hook"])
    assert digest_folder(tmp_path / "again") == digest_folder(first.folder)
    with pytest.raises(HoiError, match=r"no LoRA worn[\s\S]*published: hook"):
        export_loras(store, settings, tmp_path / "none", ["worn"])
    return first.folder


def drawn(source: str, folder: Path | None, file: str = LORA_FILE) -> bytes:
    from diffusers import StableDiffusionXLPipeline

    pipe = StableDiffusionXLPipeline.from_pretrained(source)
    pipe.set_progress_bar_config(disable=True)
    if folder is not None:
        pipe.load_lora_weights(str(folder), weight_name=file)
    noise = torch.Generator().manual_seed(5)
    images = pipe("a red ball", num_inference_steps=2, width=64, height=64, generator=noise).images
    return images[0].tobytes()


def test_both_layouts_draw_the_identical_picture_in_plain_diffusers(
    exported: Path, loaded: LoadedSDXL, tmp_path: Path
) -> None:
    trained = drawn(loaded.ref.source, tmp_path / "lora")
    hook = exported / "hook"
    assert trained != drawn(loaded.ref.source, None)
    assert drawn(loaded.ref.source, hook) == trained
    assert drawn(loaded.ref.source, hook, "hook_kohya.safetensors") == trained


def test_rank_alpha_and_trigger_word_are_metadata_of_both(exported: Path) -> None:
    for name in (LORA_FILE, "hook_kohya.safetensors"):
        with safe_open(exported / "hook" / name, framework="pt") as file:
            found = file.metadata()
        assert found["modelspec.trigger_phrase"] == "hookx"
        rank, alpha = int(found["ss_network_dim"]), float(found["ss_network_alpha"])
        assert alpha == 2 * rank
        assert json.loads(found["ss_tag_frequency"]) == {"hook": {"hookx": 1}}
        # Not SDXL's own weights, so nothing claims that they are.
        assert "ss_base_model_version" not in found


def test_kohya_file_holds_the_trained_tensors_under_sgm_names(exported: Path) -> None:
    with safe_open(exported / "hook" / "hook_kohya.safetensors", framework="pt") as file:
        names = list(file.keys())
        alphas = {float(file.get_tensor(name)) for name in names if name.endswith(".alpha")}
    assert len(alphas) == 1
    stems = {name.split(".")[0] for name in names}
    unet = {name for name in stems if name.startswith("lora_unet_")}
    assert {name.split("_layers")[0] for name in stems - unet} <= {
        "lora_te1_text_model_encoder",
        "lora_te2_text_model_encoder",
    }
    assert {name.split("_attn")[0] for name in unet} == {
        "lora_unet_input_blocks_3_1_transformer_blocks_0",
        "lora_unet_middle_block_1_transformer_blocks_0",
        "lora_unet_output_blocks_0_1_transformer_blocks_0",
        "lora_unet_output_blocks_1_1_transformer_blocks_0",
    }


def test_card_names_base_rank_and_trigger_and_samples_are_marked(exported: Path) -> None:
    card = (exported / "hook" / "README.md").read_text(encoding="utf-8")
    assert "begin prompts with it" in card and "`hookx`" in card and "| alpha |" in card
    (sample,) = (exported / "hook" / "samples").iterdir()
    assert read_mark(sample.read_bytes()) == TRAINED
    assert sample.name in card
