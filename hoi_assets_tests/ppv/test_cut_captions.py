"""A training caption that the model does not read to its end is on record, not only in a log."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from hoi_assets.defs.ppv.prompts import base_prompt_taxonomy
from hoi_assets.defs.ppv.proposers import category_loras, instance_images
from hoi_assets.defs.ppv.rounds import round_plan
from hoi_assets.defs.resources import PlatformResource
from hoi_assets.ppv.cut_captions import CUT_CAPTIONS
from hoi_assets.publishing.asset import bind
from hoi_assets.store.versions import Published
from hoi_assets_tests.engines.small_judges import picture
from hoi_assets_tests.engines.small_sdxl import make_sdxl
from hoi_assets_tests.pipeline_fixture import write_profile

CATEGORY = "hook"
# The small model reads 30 letters, and the identifier is before the caption.
LONG = "a left hand carries a bag and a red cup"


@pytest.mark.slow
def test_cut_training_captions_are_published_and_counted_and_others_add_no_table(
    tmp_path: Path,
) -> None:
    make_sdxl(tmp_path / "sdxl")
    pictures = tmp_path / "pictures" / CATEGORY
    pictures.mkdir(parents=True)
    for number in range(4):
        picture(number, (96, 96)).save(pictures / f"{number}.png")
    profile = write_profile(
        tmp_path,
        models={"base": {"source": str(tmp_path / "sdxl")}},
        instance_images={"folder": str(pictures.parent)},
        lora={"with_prior_preservation": False, "max_train_steps": 2},
        sampling={"width": 64, "height": 64, "num_inference_steps": 2, "batch_size": 2},
    )

    def train(captions: list[str]) -> tuple[Published, Any]:
        for number, caption in enumerate(captions):
            (pictures / f"{number}.txt").write_text(caption, encoding="utf-8")
        platform = PlatformResource(profile=str(profile), home=str(tmp_path / "home"))
        line = [base_prompt_taxonomy, round_plan, instance_images, category_loras]
        _, assets = bind(line, platform.settings)
        result = dg.materialize(
            assets, partition_key=CATEGORY, resources={"platform": platform}, raise_on_error=True
        )
        (event,) = result.asset_materializations_for_node("category_loras")
        loras = platform.store.require("category_loras", CATEGORY)
        return loras, event.metadata["images_with_cut_captions"].value

    whole, cut_images = train(["a cup"] * 4)
    assert cut_images == 0 and not (whole.path / "cut_captions.parquet").exists()

    cut, cut_images = train([LONG, "a cup", LONG, "a cup"])
    assert cut_images == 2
    (row,) = cut.table("cut_captions").iter_rows(named=True)
    assert dict(cut.table("cut_captions").schema) == CUT_CAPTIONS.schema
    assert row["caption"].endswith(LONG) and row["images"] == 2 and row["prompt_cut"]
    assert row["cut_by"] == "text_encoder, text_encoder_2" and row["text_encoder_tokens"] > 32
