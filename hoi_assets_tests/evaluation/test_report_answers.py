"""The answers at the top of the report say what the numbers show, and no more."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from hoi_assets.evaluation.report_answers import Answer
from hoi_assets.evaluation.report_dataset_answers import answer_dataset, answer_rejected
from hoi_assets.evaluation.report_examiner import GAIN, clustered_share, examine_candidates
from hoi_assets.evaluation.report_method_answers import answer_finetuning, answer_refinement
from hoi_assets.evaluation.report_verdicts import read_verdicts
from hoi_assets.evaluation.scorecards import COMPARISONS, SCORECARD
from hoi_assets.settings import load_settings
from hoi_assets.statistics import Interval
from hoi_assets.store.versions import Store
from hoi_assets_tests.evaluation.report_parents import (
    publish,
    publish_verdicts,
    verdict,
    verifier_tables,
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


def on_dataset(store: Store, examined: dict[str, Interval] | None = None, **how: Any) -> Answer:
    """Six accepted, two rejected, by a verifier as described."""
    rows = [verdict(store, n, None if n < 6 else "low_alignment") for n in range(8)]
    parents = {
        "verified_pairs": {"hook": publish_verdicts(store, rows)},
        "verifier": publish(store, "verifier", **verifier_tables(**how)),
    }
    found = answer_dataset(parents, read_verdicts(parents), examined or {})
    assert found is not None
    return found


def test_share_accepted_and_share_truly_good_come_from_verdicts_and_test_split(
    store: Store,
) -> None:
    answer = on_dataset(store)
    assert answer.sentence.startswith("6 of 8 candidates were accepted (75%); ")
    assert (answer.verdict, answer.number) == ("Yes", "97%")
    assert answer.interval == "95% interval 96% to 98%"
    assert answer.chart is not None and answer.chart.mark == 95


@pytest.mark.parametrize(
    ("precision", "verdict_word"),
    [((0.97, 0.93, 0.99), "Not shown"), ((0.70, 0.60, 0.78), "No")],
)
def test_dataset_is_good_only_where_the_whole_interval_reaches_the_target(
    store: Store, precision: tuple[float, float, float], verdict_word: str
) -> None:
    assert on_dataset(store, precision=precision).verdict == verdict_word


def test_idle_head_never_reads_as_judged(store: Store) -> None:
    answer = on_dataset(store, idle="fidelity")
    assert answer.verdict == "Judged in part" and answer.tone != "good"
    assert any("Fidelity is not judged" in note for note in answer.notes)


def test_missed_target_is_said_although_the_validation_split_met_it(store: Store) -> None:
    answer = on_dataset(store, precision=(0.70, 0.60, 0.78), target_met=True)
    assert any("the target of 95% is missed" in note for note in answer.notes)


def test_verdicts_of_another_verifier_are_said_to_be(store: Store) -> None:
    assert any("8 verdicts are by other versions" in note for note in on_dataset(store).notes)


def test_examiner_goes_before_the_verifiers_own_precision(store: Store) -> None:
    examined = {
        "accepted": Interval(0.20, 0.13, 0.27, 6),
        "rejected": Interval(0.18, 0.04, 0.32, 2),
        GAIN: Interval(0.02, -0.15, 0.17, 4),
    }
    answer = on_dataset(store, examined)
    assert (answer.verdict, answer.number) == ("No", "20%")
    assert "by the examiner" in answer.sentence
    gain = "Accepted less rejected: +2 points (95% interval −15 to +17)"
    assert f"{gain}: that selecting helps is not shown." in answer.notes
    assert answer.chart is not None and len(answer.chart.bars) == 3


def test_examiner_looks_at_accepted_and_rejected_candidates(store: Store) -> None:
    rows = [verdict(store, n, None if n < 6 else "low_alignment") for n in range(8)]
    prompts = [
        {"prompt_id": f"p{n}", "object": "bag", "colour": "red", "side": "left"} for n in range(4)
    ]
    parents = {
        "verified_pairs": {"hook": publish_verdicts(store, rows)},
        "detailed_prompts": {"hook": publish(store, "detailed_prompts", "hook", rows=prompts)},
    }
    settings, told = load_settings("tiny"), list[str]()
    found = examine_candidates(store, settings, parents, read_verdicts(parents), told.append)
    assert {name: one.n for name, one in found.items()} == {
        "accepted": 6,
        "rejected": 2,
        GAIN: 4,
    }
    again = examine_candidates(store, settings, parents, read_verdicts(parents), told.append)
    assert again == found and len(told) == 1
    models = settings.models.model_copy(update={"examiner": None})
    without = settings.model_copy(update={"models": models})
    assert examine_candidates(store, without, parents, read_verdicts(parents), print) == {}


def test_interval_of_a_share_is_over_prompts_and_has_width_where_all_agree() -> None:
    one_each = clustered_share([True, False] * 20, [f"p{n}" for n in range(40)])
    in_pairs = clustered_share([True, True, False, False] * 10, [f"p{n // 2}" for n in range(40)])
    assert one_each.value == in_pairs.value == 0.5
    assert width(in_pairs) > width(one_each)
    everything = clustered_share([True] * 12, [f"p{n // 4}" for n in range(12)])
    assert everything.value == 1 and everything.high == 1
    assert everything.low is not None and everything.low < 0.5


def width(interval: Interval) -> float:
    assert interval.low is not None and interval.high is not None
    return interval.high - interval.low


def on_rejected(store: Store, rows: list[dict[str, Any]], **how: Any) -> Answer:
    parents = {
        "verified_pairs": {"hook": publish_verdicts(store, rows)},
        "verifier": publish(store, "verifier", **verifier_tables(**how)),
    }
    found = answer_rejected(store, parents, read_verdicts(parents))
    assert found is not None
    return found


def test_reasons_are_counted_with_their_kinds(store: Store) -> None:
    kinds = ["extra_finger", "extra_finger", "melted"]
    rows = [verdict(store, n, "low_fidelity", defect_kind=kind) for n, kind in enumerate(kinds)]
    rows += [verdict(store, 3, "low_alignment", defect_kind="melted"), verdict(store, 4)]
    rows += [verdict(store, 5, "no memory", status="failed", pixels=None)]
    answer = on_rejected(store, rows)
    assert answer.sentence == (
        "4 of 5 candidates were rejected: 3 for low fidelity (looks defective: extra finger 2, "
        "melted 1) and 1 for low alignment (not what the caption says)."
    )
    assert answer.verdict == "4 rejected" and answer.number == "80%"
    assert "1 further candidates could not be drawn." in answer.notes
    labels = [row["label"] for row in answer.pictures]
    assert set(labels) == {"low_fidelity: extra_finger", "low_fidelity: melted", "low_alignment"}


def test_rejected_says_which_head_did_not_judge(store: Store) -> None:
    answer = on_rejected(
        store, [verdict(store, 0), verdict(store, 1, "low_alignment")], idle="fidelity"
    )
    assert answer.verdict == "Fidelity not judged"
    nothing = on_rejected(store, [verdict(store, 0)], idle="fidelity")
    assert nothing.sentence == "None of 1 candidates was rejected."
    assert nothing.verdict == "Fidelity not judged" and not nothing.pictures
    # An earlier verifier whose head did judge.
    assert on_rejected(store, [verdict(store, 2, "low_fidelity")], idle="fidelity").verdict == (
        "1 rejected"
    )


def comparison(suite: str, a: str, b: str, ci: tuple[float, float], p: float) -> dict[str, Any]:
    return {
        **dict.fromkeys(COMPARISONS.schema),
        "suite": suite,
        "slice_kind": "all",
        "slice": "all",
        "metric": "examiner_all" if suite != "interacting" else "examiner_components",
        "method_a": a,
        "method_b": b,
        "n": 18,
        "difference": sum(ci) / 2,
        "ci_low": ci[0],
        "ci_high": ci[1],
        "p": p,
        "p_holm": p,
    }


def finetuning(store: Store, ci: tuple[float, float], p: float) -> Answer:
    rows = [comparison("hoi", "finetuned", "base", ci, p)]
    rows += [comparison("general", "finetuned", "base", (-0.3, -0.1), 0.01)]
    card = publish(store, "hoi_scorecards", comparisons=COMPARISONS.frame(rows))
    found = answer_finetuning({"hoi_scorecards": card})
    assert found is not None
    return found


def test_no_difference_is_claimed_where_the_interval_includes_zero(store: Store) -> None:
    answer = finetuning(store, (-0.08, 0.08), 0.9)
    assert answer.verdict == "No difference shown"
    assert "No difference can be shown" in answer.sentence
    assert answer.sentence.endswith("the interval includes zero.")
    assert (answer.number, answer.interval) == ("0 points", "95% interval −8 to +8 points")


def test_interval_beyond_zero_is_not_enough_where_p_says_otherwise(store: Store) -> None:
    answer = finetuning(store, (0.01, 0.30), 0.06)
    assert answer.verdict == "No difference shown"
    assert "the interval excludes zero, but p = 0.06 with n = 18" in answer.sentence


def test_finetuning_that_helps_or_hurts_is_said_and_so_are_general_prompts(store: Store) -> None:
    helps = finetuning(store, (0.10, 0.30), 0.01)
    assert (helps.verdict, helps.number) == ("Yes", "+20 points")
    assert any("General prompts get worse: −20 points" in note for note in helps.notes)
    hurts = finetuning(store, (-0.30, -0.10), 0.01)
    assert (hurts.verdict, hurts.tone) == ("No, it hurts", "bad")


def refinement(store: Store, *rows: tuple[str, tuple[float, float], float]) -> Answer:
    compared = [comparison("interacting", "detailscribe", b, ci, p) for b, ci, p in rows]
    methods = ["detailscribe", *(b for b, _, _ in rows)]
    card = SCORECARD.frame(
        {**dict.fromkeys(SCORECARD.schema, ""), "n": 1, "prompts": 1, "missing": 0, "mean": 0.0}
        | {"ci_low": 0.0, "ci_high": 0.0, "percentile": None, "method": method}
        | {"compute": "224 denoiser evaluations (NFE) a prompt"}
        for method in methods
    )
    tables = {"comparisons": COMPARISONS.frame(compared), "scorecard": card}
    published = publish(store, "interacting_scorecards", **tables)
    found = answer_refinement({"interacting_scorecards": published})
    assert found is not None
    return found


def test_refinement_is_compared_with_baselines_of_equal_compute_only(store: Store) -> None:
    answer = refinement(store, ("plain", (0.2, 0.4), 0.001), ("multi_seed", (-0.1, 0.1), 0.9))
    assert answer.verdict == "No difference shown"
    assert answer.what == "DetailScribe vs. more seeds"
    assert answer.chart is not None
    assert [bar.label for bar in answer.chart.bars] == ["vs. more seeds (224 NFE)"]


def test_refinement_corrects_p_for_the_number_of_baselines(store: Store) -> None:
    alone = refinement(store, ("multi_seed", (0.05, 0.3), 0.03))
    assert alone.verdict == "Yes"
    both = refinement(store, ("multi_seed", (0.05, 0.3), 0.03), ("refine", (-0.1, 0.1), 0.9))
    assert both.verdict == "No difference shown"
    assert both.sentence == (
        "At equal compute, no difference can be shown between DetailScribe and any of 2 baselines."
    )
    clear = refinement(store, ("multi_seed", (0.05, 0.3), 0.01), ("refine", (-0.4, -0.1), 0.01))
    assert (clear.verdict, clear.tone) == ("Mixed", "bad")
    assert "better than more seeds; DetailScribe is worse than a refined prompt" in clear.sentence


def test_equal_scores_on_all_prompts_are_said_to_be_equal(store: Store) -> None:
    answer = refinement(store, ("multi_seed", (0.0, 0.0), 1.0))
    assert answer.interval == "95% interval 0 to 0: equal on all 18 prompts"
    assert answer.verdict == "No difference shown"


def test_nothing_compared_gives_no_answer(store: Store) -> None:
    empty = pl.DataFrame(schema=COMPARISONS.schema)
    card = publish(store, "hoi_scorecards", comparisons=empty)
    assert answer_finetuning({"hoi_scorecards": card}) is None
    assert answer_finetuning({}) is None and answer_refinement({}) is None
    assert answer_dataset({}, read_verdicts({}), {}) is None
    assert answer_rejected(store, {}, read_verdicts({})) is None
