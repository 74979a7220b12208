"""Promises of the verifier's training as a stage runs it."""

from pathlib import Path

import polars as pl

from hoi_assets.engines.vilt.verifier import load_verifier
from hoi_assets.ppv.verifier_pairs import VERIFIER_PAIR_ROWS
from hoi_assets.ppv.verifier_training import fresh_heads_note, train_calibrated_verifier
from hoi_assets.settings import ModelRef, Verifier, load_settings
from hoi_assets.store.versions import Store
from hoi_assets_tests.engines.small_judges import make_pretrained_vilt
from hoi_assets_tests.engines.vilt.test_training import make_pairs


def _rows(store: Store) -> pl.DataFrame:
    rows = []
    for number, pair in enumerate(make_pairs(48)):
        rows.append(
            {
                "pair_id": pair.pair_id,
                "split": ("train", "validation", "test")[number // 16],
                "pixels": store.images.put(pair.open()),
                "prompt": pair.text,
                "category": pair.category,
                "fidelity": pair.fidelity,
                "alignment": pair.alignment,
                "defects": list(pair.defects),
                "defect_map": None,
                "lies": list(pair.lies),
                "shown_as": "render",
                "scene_id": pair.pair_id,
                "grasp_id": pair.pair_id,
                "seen": True,
            }
        )
    return VERIFIER_PAIR_ROWS.frame(rows)


def test_verifier_is_trained_from_a_pretrained_vilt_and_says_that_its_heads_are_fresh(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path / "home")
    vilt = make_pretrained_vilt(tmp_path / "vilt-b32-mlm")
    whole = load_settings("tiny")
    settings = whole.model_copy(
        update={
            "models": whole.models.model_copy(update={"verifier": ModelRef(source=str(vilt))}),
            "verifier": Verifier(train_steps=4, batch_size=8, seed=3),
        }
    )
    said: list[str] = []
    done = train_calibrated_verifier(store, settings, _rows(store), said.append)
    note = (
        f"{vilt} comes without the heads fidelity and alignment; they were drawn anew with seed 3"
    )
    assert f"verifier training: {note}" in said
    assert fresh_heads_note(settings) == note
    assert fresh_heads_note(whole) is None
    assert not load_verifier(done.folder).fresh_heads
    assert done.summary["test_pairs"].item() == 16
