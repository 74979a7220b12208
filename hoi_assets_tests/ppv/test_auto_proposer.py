"""Candidates by a pipeline that is not SDXL, from the settings to `hoi replay`."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from hoi_assets.cli.image_replay import replay_image
from hoi_assets.defs.ppv.proposers import candidate_images
from hoi_assets.errors import HoiError
from hoi_assets.ppv.auto_proposer import describe_proposer
from hoi_assets.ppv.candidates import propose_candidates
from hoi_assets.publishing.asset import stage_of
from hoi_assets.settings import ModelRef, Proposer, Settings, load_settings
from hoi_assets.store.versions import Store
from hoi_assets.taxonomy import load_taxonomy
from hoi_assets_tests.engines.small_auto import SIDE, make_flux

PROMPTS = ["a hand holds a cup", "an open hand"]


@pytest.fixture(scope="module")
def flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "flux"
    make_flux(folder)
    return folder


def settings_with(flux: Path, **proposer: Any) -> Settings:
    tiny = load_settings("tiny")
    return tiny.model_copy(
        update={
            "models": tiny.models.model_copy(update={"proposer": ModelRef(source=str(flux))}),
            "sampling": tiny.sampling.model_copy(update={"width": SIDE, "height": SIDE}),
            "proposer": Proposer(num_inference_steps=2, **proposer),
        }
    )


def propose(store: Store, settings: Settings, logged: list[str]) -> pl.DataFrame:
    prompts = pl.DataFrame(
        {
            "prompt_id": ["a", "b"],
            "index": [0, 1],
            "prompt": PROMPTS,
            "status": ["accepted"] * 2,
        }
    )
    category = load_taxonomy(settings.taxonomy_folder).category("hook")
    return propose_candidates(store, settings, category, prompts, None, None, logged.append)


def test_any_text_to_image_pipeline_proposes_by_its_prompts_alone(
    flux: Path, tmp_path: Path
) -> None:
    store, logged = Store(tmp_path / "home"), list[str]()
    settings = settings_with(flux)
    table = propose(store, settings, logged)
    assert table["status"].to_list() == ["accepted"] * 2
    # No identifier: the model was never taught one.
    assert table["drawn_prompt"].to_list() == PROMPTS
    assert table["lora_digest"].null_count() == table["lora_version"].null_count() == 2
    assert set(table["batch_size"]) == {1} and table["pixels"].n_unique() == 2
    assert table["text_encoder_2_tokens"].null_count() == 0
    said = describe_proposer(settings, "hook")
    assert said["proposer"].startswith("FluxPipeline") and "prompt-only" in said["proposer_tuning"]
    assert propose(store, settings, logged).equals(table)
    assert "candidates of hook: all 2 found in the cache" in logged
    with store.stage("candidate_images", "hook") as out:
        out.write_table("rows", table)
        store.publish(out, {}, None)
    image_id = table["image_id"][1]
    assert replay_image(store, settings, image_id).equal
    with pytest.raises(HoiError, match="under other settings of `proposer`"):
        replay_image(store, settings_with(flux, true_cfg_scale=2.0), image_id)
    with pytest.raises(HoiError, match=r"models\.proposer, and the profile names none"):
        replay_image(store, load_settings("tiny"), image_id)


def test_no_lora_is_trained_for_a_proposer_that_takes_none(flux: Path) -> None:
    stage = stage_of(candidate_images)
    assert "category_loras" in stage.bound(load_settings("tiny")).deps
    assert "category_loras" not in stage.bound(settings_with(flux)).deps


def test_missing_folder_of_loras_is_said(flux: Path, tmp_path: Path) -> None:
    settings = settings_with(flux, loras_folder=str(tmp_path / "none"))
    with pytest.raises(HoiError, match=r"proposer\.loras_folder"):
        propose(Store(tmp_path / "home"), settings, [])
