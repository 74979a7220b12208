"""Promises of mean ratings and win rates, against known truth."""

import numpy as np
import polars as pl
import pytest

from hoi_assets.evaluation.human_ratings import (
    average_ratings,
    estimate_win_rates,
    head_to_head,
)
from hoi_assets_tests.evaluation.vote_rows import compared, rated, table


def simulated(strengths: dict[str, float], prompts: int, seed: int) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    names = sorted(strengths)
    rows = []
    for prompt in range(prompts):
        for place, a in enumerate(names):
            for b in names[place + 1 :]:
                wins = rng.random() < 1 / (1 + np.exp(strengths[b] - strengths[a]))
                sides = (
                    (a, b, "a" if wins else "b")
                    if rng.random() < 0.5
                    else ((b, a, "b" if wins else "a"))
                )
                rows.append(compared(f"p{prompt}", *sides))
    return table(rows)


def test_win_rates_cover_the_truth_whichever_side_a_method_stood_on() -> None:
    strengths = {"x": 1.0, "y": 0.0, "z": -1.0}
    chances = {
        name: np.mean([1 / (1 + np.exp(t - s)) for other, t in strengths.items() if other != name])
        for name, s in strengths.items()
    }
    covered = []
    for seed in range(40):
        found = estimate_win_rates(simulated(strengths, 60, seed), samples=200).filter(
            slice_kind="all"
        )
        assert found.sort("win_rate", descending=True)["method"].to_list() == ["x", "y", "z"]
        for row in found.to_dicts():
            assert row["n"] == 120 and row["wins"] + row["losses"] == 120
            covered.append(row["ci_low"] <= chances[row["method"]] <= row["ci_high"])
            assert row["strength_low"] < row["strength"] < row["strength_high"]
    assert 0.85 <= np.mean(covered) <= 0.99


def test_method_that_never_lost_has_a_finite_strength_and_a_rate_below_one() -> None:
    votes = table(compared(f"p{n}", "x", "y", "a") for n in range(5))
    best, worst = estimate_win_rates(votes, samples=50).filter(slice_kind="all").to_dicts()
    assert best["win_rate"] == pytest.approx(5.5 / 6, abs=1e-3)
    assert best["win_rate"] + worst["win_rate"] == pytest.approx(1)
    assert np.isfinite(best["strength"]) and best["ci_high"] < 1


def test_ties_are_half_a_win_for_both() -> None:
    votes = table(compared(f"p{n}", "x", "y", "tie") for n in range(4))
    for row in estimate_win_rates(votes, samples=50).to_dicts():
        assert row["ties"] == 4 and row["win_rate"] == pytest.approx(0.5)


def test_methods_that_never_met_get_no_rates_but_their_counts() -> None:
    votes = table([compared("p", "u", "v", "a"), compared("p", "x", "y", "b")])
    for row in estimate_win_rates(votes, samples=50).to_dicts():
        assert row["win_rate"] is None and row["n"] == 1


def test_one_prompt_gives_rates_without_an_interval() -> None:
    (row, _) = (
        estimate_win_rates(table([compared("p", "x", "y", "a")]))
        .filter(slice_kind="all")
        .to_dicts()
    )
    assert row["win_rate"] > 0.5 and row["ci_low"] is None and row["prompts"] == 1


def test_head_to_head_counts_by_method_not_by_side() -> None:
    votes = table(
        [
            compared("p", "x", "y", "a"),
            compared("p", "x", "y", "a", rater="ben"),
            compared("q", "y", "x", "a"),
            compared("r", "x", "y", "tie"),
        ]
    )
    (row,) = head_to_head(votes, samples=200).filter(slice_kind="all").to_dicts()
    assert (row["method_a"], row["wins_a"], row["ties"], row["wins_b"]) == ("x", 2, 1, 1)
    # Prompts count alike: 1 for p, 0 for q, 0.5 for r.
    assert (row["n"], row["prompts"], row["win_rate_a"]) == (4, 3, 0.5)


def test_mean_ratings_weigh_prompts_alike_and_slice_by_scenario() -> None:
    votes = table(
        [
            rated("p", "x", 5),
            rated("p", "x", 4, rater="ben"),
            rated("q", "x", 2, scenario="compositional"),
            rated("q", "y", 1, scenario="compositional"),
        ]
    )
    found = {(r["slice"], r["method"]): r for r in average_ratings(votes, samples=100).to_dicts()}
    whole = found["all", "x"]
    assert (whole["n"], whole["raters"], whole["prompts"], whole["mean"]) == (3, 2, 2, 3.25)
    assert whole["ci_low"] <= 3.25 <= whole["ci_high"]
    assert found["functional", "x"]["mean"] == 4.5
    assert found["compositional", "y"]["mean"] == 1
    assert ("functional", "y") not in found


def test_labels_of_0_and_1_are_not_averaged_with_scores_of_1_to_5() -> None:
    votes = table([rated("p", "x", 5), rated("p", "x", 1, mode="verify")])
    found = average_ratings(votes).filter(slice_kind="all")
    assert found.select("mode", "mean").rows() == [("rating", 5), ("verify", 1)]


def test_rejected_votes_and_repeats_do_not_count() -> None:
    votes = table(
        [
            rated("p", "x", 5),
            rated("p", "x", 1, status="rejected"),
            rated("p", "x", 1, repeat=True),
        ]
    )
    assert average_ratings(votes)["mean"].to_list() == [5, 5]


def test_statistics_are_repeatable_and_do_not_depend_on_the_order_of_rows() -> None:
    votes = simulated({"x": 0.5, "y": 0.0, "z": -0.5}, 12, 1)
    shuffled = votes.sample(fraction=1, shuffle=True, seed=4)
    assert estimate_win_rates(votes, samples=50).equals(estimate_win_rates(shuffled, samples=50))
    assert head_to_head(votes, samples=50).equals(head_to_head(shuffled, samples=50))
