"""The validation pictures of a category, through its asset."""

import base64
import re
from io import BytesIO
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from PIL import Image

from hoi_assets.defs.ppv.prompts import base_prompt_taxonomy
from hoi_assets.defs.ppv.proposers import category_loras, instance_images
from hoi_assets.defs.ppv.rounds import round_plan
from hoi_assets.defs.resources import PlatformResource
from hoi_assets.engines.sdxl.sampling import LORA_FILE
from hoi_assets.publishing.asset import bind
from hoi_assets_tests.engines.small_judges import picture
from hoi_assets_tests.engines.small_sdxl import make_sdxl
from hoi_assets_tests.pipeline_fixture import write_profile

CATEGORY = "hook"


@pytest.mark.slow
def test_a_category_shows_its_validation_prompt_after_every_few_steps(tmp_path: Path) -> None:
    make_sdxl(tmp_path / "sdxl")
    pictures = tmp_path / "pictures" / CATEGORY
    pictures.mkdir(parents=True)
    for number in range(4):
        picture(number, (96, 96)).save(pictures / f"{number}.png")

    profile = write_profile(
        tmp_path,
        models={"base": {"source": str(tmp_path / "sdxl")}},
        instance_images={"folder": str(pictures.parent)},
        lora={
            "with_prior_preservation": False,
            "max_train_steps": 3,
            "learning_rate": 1e-2,
            "train_text_encoder": True,
            "validation_prompt": "a red cup",
            "num_validation_images": 2,
            "validation_steps": 2,
        },
        sampling={"width": 64, "height": 64, "num_inference_steps": 2, "batch_size": 2},
    )
    platform = PlatformResource(profile=str(profile), home=str(tmp_path / "home"))
    line = [base_prompt_taxonomy, round_plan, instance_images, category_loras]
    _, assets = bind(line, platform.settings)
    result = dg.materialize(
        assets, partition_key=CATEGORY, resources={"platform": platform}, raise_on_error=True
    )
    (event,) = result.asset_materializations_for_node("category_loras")
    published = platform.store.require("category_loras", CATEGORY).file("lora") / LORA_FILE

    (kept,) = (tmp_path / "home" / "trained" / "lora").glob("*/snapshots")
    assert sorted(path.name for path in kept.iterdir()) == ["2", "3"]
    assert (kept / "3" / LORA_FILE).read_bytes() == published.read_bytes()
    assert (kept / "2" / LORA_FILE).read_bytes() != published.read_bytes()
    sheet = _picture(event.metadata["validation_images"])
    assert sheet.height > 3 * 64 and sheet.width >= 2 * 64  # base, step 2, step 3


def _picture(metadata: Any) -> Image.Image:
    found = re.search(r"data:image/webp;base64,([A-Za-z0-9+/=]+)", metadata.value)
    assert found is not None
    return Image.open(BytesIO(base64.b64decode(found[1]))).convert("RGB")
