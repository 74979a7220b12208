"""Local repair and an image-editing model as correctors, through Dagster on small random models."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from hoi_assets.cli.image_replay import replay_image
from hoi_assets.preflight.plan import plan_work
from hoi_assets.settings import ModelRef
from hoi_assets.store.weights import model_digest
from hoi_assets.taxonomy import load_taxonomy
from hoi_assets_tests.engines.small_auto import make_flux
from hoi_assets_tests.engines.small_sdxl import make_sdxl
from hoi_assets_tests.test_detailscribe_pipeline import (
    BUDGET,
    ROWS,
    SCENARIO,
    Ran,
    made,
    models,
    profile_of,
    run,
)

__all__ = ["made", "models"]


def planned(ran: Ran, model: str) -> tuple[int, int]:
    """Pictures and evaluations of the last work that the plan gives to a model in refinement."""
    platform = ran.project.platform
    work = plan_work(
        platform.settings, load_taxonomy(platform.settings.taxonomy_folder), (), (SCENARIO,)
    )
    own = [one for one in work if (one.asset, one.model) == ("refined_images", model)]
    return own[-1].pictures, own[-1].evaluations


def test_local_repair_draws_the_marked_part_again_at_the_compute_of_the_variants(
    made: Ran, models: dict[str, Any], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    shutil.copytree(made.project.platform.store.home, home)
    # A narrow mask, so that something stays.
    own = {"mask_margin": 0.0, "mask_threshold": 0.9, "strength": 0.6}
    ran = run(profile_of(tmp_path, models, local_repair=own), home)
    assert ran.result.success
    before, rows = made.rows("refined_images"), ran.rows("refined_images")
    others = rows.filter(pl.col("method") != "local_repair")
    assert others.equals(before), "another method's rows changed"
    repaired = rows.filter(pl.col("method") == "local_repair")
    store = ran.project.platform.store
    published = store.require("refined_images", SCENARIO)
    masks = {row["row_id"]: row for row in published.table("repairs").iter_rows(named=True)}
    again = 0
    for (row_id,), part in repaired.group_by("row_id"):
        mask = masks[str(row_id)]
        assert part["selected"].sum() == 1
        assert (part["denoiser_evaluations"].sum() <= BUDGET) and part.height > 1
        assert set(part.filter(pl.col("candidate") > 0)["denoiser_evaluations"]) == {2 * 3}
        assert part["seed"].n_unique() == part.height
        inside = np.asarray(store.images.open(mask["mask"])) > 0
        assert 0 < inside.mean() == pytest.approx(mask["mask_share"])
        initial = np.asarray(store.images.open(mask["picture"]))
        for pixels in part.filter(pl.col("candidate") > 0)["pixels"]:
            new = np.asarray(store.images.open(pixels))
            assert (new[~inside] == initial[~inside]).all()
            again += int((new[inside] != initial[inside]).any())
    assert again
    new = repaired.filter(pl.col("candidate") > 0)
    assert planned(ran, "benchmark") == (new.height, new["denoiser_evaluations"].sum())
    last = repaired.filter(pl.col("candidate") > 0).row(-1, named=True)
    assert replay_image(store, ran.project.platform.settings, last["image_id"]).equal
    # Found in the cache, the rows are the same, and the version too.
    assert run(profile_of(tmp_path, models, local_repair=own), home).versions() == ran.versions()


def test_image_editing_model_corrects_by_the_critique_and_can_be_replayed(
    made: Ran, models: dict[str, Any], tmp_path: Path
) -> None:
    make_flux(tmp_path / "kontext", kontext=True)
    home = tmp_path / "home"
    shutil.copytree(made.project.platform.store.home, home)
    editor = {"editor": {"source": str(tmp_path / "kontext")}}
    options = {
        "num_inference_steps": 2,
        "instruction": "Correct this: {corrections}",
        "max_edits": 2,
    }
    profile = profile_of(tmp_path, {**models, **editor}, image_editing=options)
    ran = run(profile, home)
    assert ran.result.success
    rows = ran.rows("refined_images")
    assert rows.filter(pl.col("method") != "image_edit").equals(made.rows("refined_images"))
    edited = rows.filter((pl.col("method") == "image_edit") & (pl.col("candidate") > 0))
    assert edited.height == 2 * edited["row_id"].n_unique() > 0
    assert set(edited["denoiser_evaluations"]) == {2}  # distilled guidance: one pass a step
    pictures, most = planned(ran, "editor")
    assert pictures == 2 * ROWS >= edited.height and most >= edited["denoiser_evaluations"].sum()
    store = ran.project.platform.store
    edits = store.require("refined_images", SCENARIO).table("edits")
    critiques = store.require("image_critiques", SCENARIO).table("findings")
    for row in edits.iter_rows(named=True):
        wrong = critiques.filter((pl.col("row_id") == row["row_id"]) & ~pl.col("satisfied"))
        corrections = "; ".join(dict.fromkeys(wrong["correction"]))
        assert row["instruction"] == f"Correct this: {corrections}"
    again = replay_image(store, ran.project.platform.settings, edited["image_id"][0])
    assert again.equal


def test_another_model_repairs_and_is_named_in_its_rows(
    made: Ran, models: dict[str, Any], tmp_path: Path
) -> None:
    make_sdxl(tmp_path / "sdxl")
    home = tmp_path / "home"
    shutil.copytree(made.project.platform.store.home, home)
    named = {**models, "repair": {"source": str(tmp_path / "sdxl")}}
    ran = run(profile_of(tmp_path, named, local_repair={"strength": 0.4}), home)
    assert ran.result.success
    settings = ran.project.platform.settings
    repaired = ran.rows("refined_images").filter(
        (pl.col("method") == "local_repair") & (pl.col("candidate") > 0)
    )
    assert set(repaired["base_digest"]) == {model_digest(ModelRef(source=str(tmp_path / "sdxl")))}
    # Its text encoders are not the benchmark model's, whose counts the columns hold.
    assert repaired["text_encoder_tokens"].null_count() == repaired.height > 0
    assert set(repaired["scheduler"]) == {"euler"}
    again = replay_image(ran.project.platform.store, settings, repaired["image_id"][0])
    assert again.equal
