"""Promises of the weekly re-verification, on a small random verifier and its real verdicts."""

from dataclasses import replace
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from hoi_assets.defs.project import load_project
from hoi_assets.defs.reverification import reverification_job
from hoi_assets.engines.vilt.verifier import Thresholds, load_verifier, save_verifier
from hoi_assets.errors import HoiError
from hoi_assets.ppv.candidates import CANDIDATE_ROWS
from hoi_assets.ppv.reverification import reverify
from hoi_assets.ppv.verdicts import verify_candidates
from hoi_assets.settings import load_settings
from hoi_assets.store.versions import Published, Store
from hoi_assets_tests.damage import damage
from hoi_assets_tests.engines.small_judges import make_vilt
from hoi_assets_tests.engines.small_sdxl import picture

pytestmark = pytest.mark.slow
COLOURS = ("red", "blue", "green", "black", "white")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "home", "tiny")
    # Random weights accept by chance; these thresholds accept everything.
    model = replace(load_verifier(make_vilt(tmp_path / "vilt")), thresholds=Thresholds(0.0, 0.0))
    save_verifier(model, tmp_path / "model")
    with store.stage("verifier") as out:
        out.add_folder("model", tmp_path / "model")
        verifier = store.publish(out, {}, None)
    rows = [
        dict.fromkeys(CANDIDATE_ROWS.schema)
        | {
            "image_id": f"{place:016x}",
            "prompt_id": "p",
            "category": "hook",
            "prompt": f"a {colour} ball",
            "pixels": store.images.put(picture(colour)),
        }
        for place, colour in enumerate(COLOURS)
    ]
    candidates = pl.DataFrame(rows, schema=CANDIDATE_ROWS.schema)
    verdicts = verify_candidates(store, load_settings("tiny"), candidates, verifier, lambda _: None)
    publish(store, verdicts)
    return store


def publish(store: Store, verdicts: pl.DataFrame) -> Published:
    with store.stage("verified_pairs", "hook") as out:
        out.write_table("rows", verdicts)
        return store.publish(out, {}, None)


def job_fails(store: Store) -> str | None:
    """What the job says where it fails."""
    job = reverification_job(load_project("tiny", store.home))
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(instance=instance, raise_on_error=False)
    if result.success:
        return None
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    data = failure.step_failure_data.user_failure_data
    assert data is not None
    return str(data.description)


def test_verdicts_hold_when_pairs_are_scored_afresh(store: Store) -> None:
    before = store.ledger.path.read_bytes()
    (found,) = reverify(store, load_settings("tiny"), 3, lambda _: None)
    assert found.pairs == 3 and found.holds
    assert store.ledger.path.read_bytes() == before  # nothing is stored
    assert job_fails(store) is None


def test_scores_that_are_not_the_verifiers_are_found(store: Store) -> None:
    rows = store.require("verified_pairs", "hook").table("rows")
    moved = pl.when(pl.col("image_id") == f"{1:016x}").then(0.02).otherwise(0.0)
    publish(store, rows.with_columns(pl.col("p_fidelity") + moved))
    (found,) = reverify(store, load_settings("tiny"), 16, lambda _: None)
    assert not found.holds and found.largest_difference == pytest.approx(0.02, abs=1e-3)
    publish(store, rows.with_columns(status=pl.lit("rejected"), reason=pl.lit("low_fidelity")))
    (found,) = reverify(store, load_settings("tiny"), 16, lambda _: None)
    assert len(found.changed) == len(COLOURS)
    said = job_fails(store)
    assert said is not None and "hook" in said and "5 of 5 verdicts changed" in said


def test_damaged_picture_is_named(store: Store) -> None:
    rows = store.require("verified_pairs", "hook").table("rows")
    path = store.images.path(rows["pixels"][0])
    damage(path)
    with pytest.raises(HoiError, match="is damaged"):
        reverify(store, load_settings("tiny"), 16, lambda _: None)
    said = job_fails(store)
    assert said is not None and path.name in said
