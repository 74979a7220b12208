"""The full profile, offline from `hoi models fetch` to the report, on small models of the hub's
layouts."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hoi_assets.settings import ROOT
from hoi_assets.store.versions import Store
from hoi_assets_tests.engines.hub_server import Hub, Repository
from hoi_assets_tests.engines.small_judges import picture
from hoi_assets_tests.hub_models import make_hub_models
from hoi_assets_tests.llm.chat_server import Server
from hoi_assets_tests.paper_endpoint import answer
from hoi_assets_tests.test_paper_profiles import small_profile

pytestmark = pytest.mark.timeout(1200)

OWNER = "small/"
CATEGORY, SCENARIO = "power_sphere", "functional"
REVISION = "0123456789abcdef0123456789abcdef01234567"
SMALL_TRAINING = {
    "max_train_steps": 2,
    "mixed_precision": "no",
    "train_batch_size": 2,
    "gradient_accumulation_steps": 1,
    "gradient_checkpointing": False,
    "rank": 4,
    "lora_alpha": 4,
}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    folders = make_hub_models(tmp_path / "hub")
    # Released as one pickle of full size only; it is converted elsewhere (test_model_fetch).
    del folders["image_reward"]
    found = Hub({f"{OWNER}{name}": Repository(Path(at), REVISION) for name, at in folders.items()})
    yield found
    if not found.closed:
        found.close()


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server(answer)
    yield found
    found.close()


@pytest.fixture
def profile(hub: Hub, server: Server, tmp_path: Path) -> Path:
    photos = tmp_path / "photos" / CATEGORY
    photos.mkdir(parents=True)
    for number in range(4):
        picture(100 + number, (64, 64)).save(photos / f"{number}.png")
    names = {name.removeprefix(OWNER): name for name in hub.repositories}
    names["image_reward"] = str(tmp_path / "hub" / "image_reward")
    return small_profile(
        "full",
        tmp_path,
        names,
        server,
        revision=REVISION,
        prompter={"per_base_prompt": 1},
        interacting={"rows_per_scenario": 1},
        instance_images={"folder": str(photos.parent), "min_side_px": 32},
        lora={**SMALL_TRAINING, "num_class_images": 2},
        finetuning={**SMALL_TRAINING, "validation_steps": 1, "min_train_rows": 1},
        verifier={
            "train_steps": 1,
            "training_pairs": 32,
            "target_precision": 0.05,
            "batch_size": 8,
            "generator_view_share": 0.02,
        },
        sampling={"num_inference_steps": 2, "width": 64, "height": 64, "batch_size": 8},
        redenoising={
            "num_inference_steps": 4,
            "switch_steps": [0, 1, 2],
            "width": 64,
            "height": 64,
            "batch_size": 2,
        },
        candidates={"per_prompt": 1, "accepted_goal": 2, "budget": 12},
        evaluation={"general_prompts": 1, "hoi_prompts_per_category": 1, "images_per_prompt": 1},
        dataset={"perceptual_hash_distance": 0},
    )


def test_models_are_fetched_once_and_everything_runs_without_the_hub(
    hub: Hub, profile: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    environment = os.environ | {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "hf"),
        "HOI_API_KEY": "k",
        "HOI_HOME": str(home),
        "HOI_MODELS": str(tmp_path / "models"),
        "HOI_PROFILE": str(profile),
        "OMP_NUM_THREADS": "1",
    }

    def hoi(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "hoi_assets.cli.main", *arguments],
            cwd=ROOT,
            env=environment,
            text=True,
            capture_output=True,
            timeout=900,
        )
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
        return done.stdout

    fetched = json.loads(hoi("models", "fetch", "--json"))["models"]
    assert {one["source"] for one in fetched} == set(hub.repositories)
    hub.close()
    asked = len(hub.requests)
    checked = hoi("doctor", CATEGORY, SCENARIO)
    assert "not calibrated on your pictures" in checked
    hoi("run", CATEGORY, SCENARIO)
    assert len(hub.requests) == asked
    store = Store(home)
    page = store.require("evaluation_report").file("report.html").read_text(encoding="utf-8")
    for words in ("detailscribe", "dreambooth", "image_reward", "blip_vqa"):
        assert words in page
    for asset in ("category_loras", "verified_pairs"):
        store.require(asset, CATEGORY)
    assert store.require("finetuned_model").file("lora").is_dir()
