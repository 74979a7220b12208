"""A verifier is described by what it can and cannot tell, never better than it is."""

from pathlib import Path
from typing import Any

import pytest

from hoi_assets.engines.vilt.verifier_statement import (
    UNKNOWN,
    statements_by_version,
    target_met_on_test,
    verifier_statement,
)
from hoi_assets.store.versions import Store
from hoi_assets_tests.evaluation.report_parents import publish, verifier_tables


def say(**how: Any) -> str:
    tables = verifier_tables(**how)
    return verifier_statement(tables["summary"].row(0, named=True), tables["quality"])


def met(**how: Any) -> bool:
    tables = verifier_tables(**how)
    return target_met_on_test(tables["summary"].row(0, named=True), tables["quality"])


@pytest.mark.parametrize("head", ["fidelity", "alignment"])
def test_head_that_rejects_nothing_is_not_called_a_judge(head: str) -> None:
    text = say(idle=head)
    assert f"{head.capitalize()} is not judged" in text and "rejects nothing" in text
    assert "(AUC 0.48, 95% interval 0.39 to 0.57, n = 200)" in text
    assert f"{head.capitalize()}: AUC" not in text
    assert text.count("is not judged") == 1


def test_each_head_says_auc_with_n_and_precision_at_its_threshold() -> None:
    text = say()
    assert "Fidelity: AUC 0.90, 95% interval 0.85 to 0.94, n = 200" in text
    assert "97% (95% interval 96% to 98%) of the 100 it accepts are free of defects" in text
    assert "Alignment: AUC 0.90" in text and "are true to their caption" in text
    assert text.endswith("the target of 95% is reached.") and met()


def test_target_met_on_validation_and_missed_on_test_is_said_as_a_failure() -> None:
    how = {"precision": (0.70, 0.60, 0.78), "target_met": True}
    assert say(**how).endswith("are good by both labels: the target of 95% is missed.")
    assert "reached" not in say(**how) and not met(**how)


def test_target_missed_on_both_splits_and_on_validation_alone_are_told_apart() -> None:
    assert "is missed, as on the validation split" in say(
        precision=(0.7, 0.6, 0.8), target_met=False
    )
    assert "on the validation split no threshold reached" in say(target_met=False)


def test_head_at_chance_that_still_rejects_is_said_to_be_no_better_than_chance() -> None:
    text = say(auc=(0.53, 0.45, 0.61))
    assert text.count("not shown to be better than chance") == 2


def test_verifier_that_accepts_nothing_reaches_no_target() -> None:
    assert "the target of 95% is not reached" in say(precision=None)
    assert not met(precision=None)


def test_versions_are_described_one_by_one_and_an_unknown_one_as_unknown(tmp_path: Path) -> None:
    store = Store(tmp_path / "home")
    published = publish(store, "verifier", **verifier_tables(idle="fidelity"))
    said = statements_by_version(store, [published.version, "gone", published.version])
    assert list(said) == sorted([published.version, "gone"])
    assert said["gone"] == UNKNOWN
    assert said[published.version].startswith("Fidelity is not judged")
