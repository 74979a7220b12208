"""Promises of temperatures, thresholds and the table of held-out quality."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

from hoi_assets.engines.vilt.calibration import (
    calibrate,
    choose_thresholds,
    evaluate,
    fit_temperatures,
    quality_table,
    reliability_table,
)
from hoi_assets.engines.vilt.decision import decide
from hoi_assets.engines.vilt.verifier import Thresholds, load_verifier
from hoi_assets.statistics import expected_calibration_error
from hoi_assets_tests.engines.vilt.test_training import make_pairs


def _quiet(_: str) -> None:
    pass


def _world(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """True logits of both heads and labels drawn from them."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (n, 2))
    return logits, rng.random((n, 2)) < expit(logits)


def test_temperature_undoes_overconfidence() -> None:
    logits, labels = _world(4000)
    overconfident = logits * np.array([3.0, 0.5])
    assert fit_temperatures(overconfident, labels) == pytest.approx((3.0, 0.5), rel=0.1)
    before = expected_calibration_error(labels[:, 0], expit(overconfident[:, 0]))
    after = expected_calibration_error(labels[:, 0], expit(overconfident[:, 0] / 3))
    assert before is not None and after is not None
    assert after < 0.03 < before


def test_head_with_one_class_keeps_temperature_one() -> None:
    logits, labels = _world(50)
    labels[:, 1] = True
    assert fit_temperatures(logits, labels)[1] == 1


def test_thresholds_reach_the_stated_precision_and_hold_on_fresh_pairs() -> None:
    logits, labels = _world(3000)
    p = expit(logits)
    thresholds = choose_thresholds(p, labels, 0.8, _quiet)
    assert thresholds.target_met
    assert thresholds.precision is not None and thresholds.precision >= 0.8
    fresh, truth = _world(3000, seed=1)
    accepted = np.array([decide(*row, thresholds).status == "accepted" for row in expit(fresh)])
    assert truth.all(axis=1)[accepted].mean() == pytest.approx(0.8, abs=0.06)
    assert accepted.mean() > 0.05


def test_lower_target_accepts_more() -> None:
    logits, labels = _world(1000)
    low, high = (choose_thresholds(expit(logits), labels, t, _quiet) for t in (0.6, 0.9))
    assert low.accepted > high.accepted
    assert low.recall is not None and high.recall is not None and low.recall > high.recall


def test_no_thresholds_accept_more_good_pairs_at_the_target() -> None:
    logits, labels = _world(60, seed=2)
    p, good = expit(logits), labels.all(axis=1)
    chosen = choose_thresholds(p, labels, 0.7, _quiet)
    best = 0
    for first in (0.0, *p[:, 0]):
        for second in (0.0, *p[:, 1]):
            taken = (p[:, 0] >= first) & (p[:, 1] >= second)
            if taken.sum() >= 10 and good[taken].mean() >= 0.7:
                best = max(best, int(good[taken].sum()))
    assert chosen.recall == pytest.approx(best / good.sum())


def test_target_out_of_reach_is_said_and_the_best_is_taken() -> None:
    logits, labels = _world(200)
    p = expit(logits / 4 + np.random.default_rng(1).normal(0, 0.5, logits.shape))
    said: list[str] = []
    thresholds = choose_thresholds(p, labels, 0.95, said.append)
    assert thresholds.target_met is False
    assert thresholds.precision is not None and labels.all(axis=1).mean() < thresholds.precision
    assert thresholds.accepted >= 10
    assert said and "precision 0.95 is not reached on 200 validation pairs; best" in said[0]


def test_head_without_skill_rejects_nothing_and_the_other_keeps_the_target() -> None:
    logits, labels = _world(300)
    p = expit(logits)
    p[:, 0] = np.random.default_rng(3).random(300)
    said: list[str] = []
    thresholds = choose_thresholds(p, labels, 0.8, said.append)
    assert thresholds.idle_head == "fidelity"
    assert thresholds.fidelity == 0 < thresholds.alignment
    assert labels[p[:, 1] >= thresholds.alignment, 1].mean() >= 0.8
    assert said and said[0].startswith(
        "verifier: the fidelity head does not distinguish good from bad"
    )


def test_no_good_pair_at_all_still_gives_thresholds() -> None:
    thresholds = choose_thresholds(np.full((20, 2), 0.5), np.zeros((20, 2), bool), 0.8, _quiet)
    assert (thresholds.target_met, thresholds.precision, thresholds.recall) == (False, 0.0, None)


def test_quality_reports_each_category_group_defect_and_lie() -> None:
    pairs = make_pairs(40)
    p = np.array([(0.9 if q.fidelity else 0.2, 0.8 if q.alignment else 0.1) for q in pairs])
    table = quality_table(p, pairs, Thresholds(0.5, 0.5))
    slices = set(table.select("slice_kind", "slice").iter_rows())
    assert slices == {
        ("all", "all"),
        ("category", "hook"),
        ("category", "tripod"),
        ("shown_as", "render"),
        ("shown_as", "vae"),
        ("defect", "extra_finger"),
        ("lie", "wrong_colour"),
    }
    assert table["precision"].drop_nulls().eq(1).all()
    assert table["auc"].drop_nulls().eq(1).all()
    assert (table["auc_low"] < 1).all(), "forty pairs do not prove perfection"


def test_missed_defect_shows_in_its_own_row_only() -> None:
    pairs = make_pairs(40)
    pairs[2] = replace(pairs[2], defects=("floating",))
    pairs[3] = replace(pairs[3], defects=("floating",))
    missed = {pairs[2].pair_id, pairs[3].pair_id}
    p = np.array([(0.9 if q.fidelity or q.pair_id in missed else 0.2, 0.9) for q in pairs])
    rows = {
        row["slice"]: row
        for row in quality_table(p, pairs, Thresholds(0.5, 0.5)).to_dicts()
        if row["slice_kind"] == "defect"
    }
    assert rows["floating"]["rejection"] == 0
    assert rows["floating"]["auc"] == 0.5
    assert rows["floating"]["n"] == 22
    assert rows["extra_finger"]["rejection"] == 1


def test_numbers_without_meaning_are_null() -> None:
    pairs = [pair for pair in make_pairs(40) if pair.fidelity]
    table = quality_table(np.zeros((20, 2)), pairs, Thresholds(0.5, 0.5))
    row = table.row(0, named=True)
    assert (row["precision"], row["rejection"], row["auc"], row["recall"]) == (None, None, None, 0)


def test_reliability_of_a_calibrated_head_lies_on_the_diagonal() -> None:
    logits, labels = _world(20000)
    table = reliability_table(expit(logits), labels)
    assert set(table["head"]) == {"fidelity", "alignment"}
    assert (table["confidence"] - table["frequency"]).abs().max() < 0.05
    assert table["n"].sum() == 40000


def test_calibrated_verifier_is_evaluated_as_it_decides(vilt_folder: Path) -> None:
    found = calibrate(load_verifier(vilt_folder), make_pairs(40), 0.8, _quiet)
    verifier = found.verifier
    assert verifier.thresholds.pairs == 40
    assert verifier.temperature != (1.0, 1.0)
    assert set(found.ece_after) == {"fidelity", "alignment"}
    row = evaluate(verifier, make_pairs(40)).filter(head="pair", slice="all").row(0, named=True)
    assert row["accepted"] == verifier.thresholds.accepted
    assert row["precision"] == pytest.approx(verifier.thresholds.precision)
