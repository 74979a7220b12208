"""A home of no profile yet, with one row of what an image passes."""

from pathlib import Path
from typing import Any

import polars as pl

from hoi_assets.cli.image_trace import BENCHMARK_IN, DRAWN_IN
from hoi_assets.store.versions import Store
from hoi_assets_tests.rating.published import publish, small_store

CATEGORY, SCENARIO = "hook", "functional"


def image_id(asset: str) -> str:
    """The id of the image that the asset's one row holds."""
    return f"{DRAWN_IN.index(asset):x}" * 16


def publish_one_row_each(home: Path) -> Store:
    """One image of every kind, the prompt of one, and a scorecard of one score."""
    store = small_store(home)
    prompt = pl.DataFrame({"prompt_id": ["p0"], "prompt": ["a hand"], "status": ["accepted"]})
    publish(store, "detailed_prompts", CATEGORY, prompt)
    for asset in DRAWN_IN:
        partition = SCENARIO if asset in BENCHMARK_IN else CATEGORY
        source = "baseline_images" if asset == "initial_images" else asset
        table = store.require(source, partition).table("rows").head(1)
        ids = {"image_id": pl.lit(image_id(asset)), "base_digest": pl.lit("of another model")}
        publish(store, asset, partition, table.with_columns(**ids))
    score: dict[str, Any] = {
        "suite": "hoi",
        "method": "base",
        "metric": "clip_score",
        "slice_kind": "all",
        "n": 1,
        "mean": 0.5,
        "ci_low": None,
        "ci_high": None,
    }
    with store.stage("hoi_scorecards") as out:
        out.write_table("scorecard", pl.DataFrame([score]))
        store.publish(out, {"code_version": "1"}, None, {})
    return store
