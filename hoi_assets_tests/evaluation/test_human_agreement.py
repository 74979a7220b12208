"""Promises of the statistics of people's judgement, against published figures and known truth."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

from hoi_assets.evaluation.human_agreement import (
    bradley_terry,
    head_to_head,
    krippendorff_alpha,
    mean_ratings,
    metric_agreement,
    rater_agreement,
    win_rates,
)
from hoi_assets.rating.votes import VOTES
from hoi_assets.statistics import Interval

# Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability", section D: four observers,
# twelve units, 0 where missing.
TEXTBOOK = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
        [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
    ]
)
# Agresti (2002), "Categorical Data Analysis", tables 10.10 and 10.11: American League 1987, rows
# beat columns; log strengths against Baltimore.
BASEBALL = np.array(
    [
        [0, 7, 9, 7, 7, 9, 11],
        [6, 0, 7, 5, 11, 9, 9],
        [4, 6, 0, 7, 7, 8, 12],
        [6, 8, 6, 0, 6, 7, 10],
        [6, 2, 6, 7, 0, 7, 12],
        [4, 4, 5, 6, 6, 0, 6],
        [2, 4, 1, 3, 1, 7, 0],
    ],
    dtype=float,
)
BASEBALL_STRENGTHS = [1.58, 1.44, 1.29, 1.25, 1.11, 0.68, 0.0]


def table(rows: Iterable[dict[str, Any]]) -> pl.DataFrame:
    """Votes with what a test does not name filled in."""
    filled = [
        {
            "study": "s",
            "line": line,
            "status": "accepted",
            "rater": "anna",
            "question": "q",
            "repeat": False,
            "scenario": "functional",
        }
        | row
        for line, row in enumerate(rows, start=1)
    ]
    return pl.DataFrame(filled, schema=VOTES)


def rated(prompt: str, method: str, score: int, **more: Any) -> dict[str, Any]:
    image = f"{prompt}-{method}"
    return {
        "mode": "rating",
        "prompt_id": prompt,
        "item": image,
        "image_a": image,
        "method_a": method,
        "score": score,
    } | more


def compared(prompt: str, a: str, b: str, choice: str, **more: Any) -> dict[str, Any]:
    return {
        "mode": "pairwise",
        "prompt_id": prompt,
        "item": f"{prompt}-{a}-{b}",
        "image_a": f"{prompt}-{a}",
        "image_b": f"{prompt}-{b}",
        "method_a": a,
        "method_b": b,
        "choice": choice,
    } | more


def textbook_counts() -> np.ndarray:
    return np.stack([(value == TEXTBOOK).sum(axis=0) for value in range(1, 6)], axis=1)


@pytest.mark.parametrize(("level", "wanted"), [("nominal", 0.743), ("ordinal", 0.815)])
def test_alpha_is_that_of_the_textbook(level: Any, wanted: float) -> None:
    found = krippendorff_alpha(textbook_counts(), level, samples=200)
    assert found.value == pytest.approx(wanted, abs=5e-4)
    assert found.n == 11
    assert found.low is not None and found.high is not None
    assert 0.3 < found.low < wanted < found.high <= 1


def test_alpha_of_votes_is_that_of_their_counts() -> None:
    rows = [
        rated("p", f"m{unit}", int(score), rater=f"r{rater}")
        for rater, scores in enumerate(TEXTBOOK)
        for unit, score in enumerate(scores)
        if score
    ]
    found = rater_agreement(table(rows), samples=100).row(0, named=True)
    assert (found["measure"], found["n"]) == ("krippendorff_alpha", 11)
    assert found["value"] == pytest.approx(0.815, abs=5e-4)


def test_alpha_without_two_ratings_or_two_values_says_nothing() -> None:
    assert krippendorff_alpha(np.array([[1, 0], [0, 1]]), "nominal") == Interval(
        None, None, None, 0
    )
    assert krippendorff_alpha(np.array([[2, 0], [3, 0]]), "ordinal").value is None


def test_raters_who_guess_agree_by_chance_only() -> None:
    rng = np.random.default_rng(0)
    counts = rng.multinomial(3, [0.2] * 5, size=200)
    found = krippendorff_alpha(counts, "ordinal", samples=200)
    assert found.low is not None and found.high is not None and found.low < 0 < found.high


def test_bradley_terry_strengths_are_the_published_ones() -> None:
    found = bradley_terry(BASEBALL, prior_ties=0)
    assert found is not None
    assert found - found[-1] == pytest.approx(BASEBALL_STRENGTHS, abs=0.006)


def test_prior_pulls_a_little_towards_equal() -> None:
    plain, prior = bradley_terry(BASEBALL, prior_ties=0), bradley_terry(BASEBALL)
    assert plain is not None and prior is not None
    assert 0.85 < np.ptp(prior) / np.ptp(plain) < 1


def test_strengths_that_are_not_determined_are_none() -> None:
    never_lost = np.array([[0.0, 3.0], [0.0, 0.0]])
    assert bradley_terry(never_lost, prior_ties=0) is None
    found = bradley_terry(never_lost)
    assert found is not None and found[0] > found[1]
    apart = np.kron(np.eye(2), [[0, 1], [1, 0]])
    assert bradley_terry(apart) is None


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
        found = win_rates(simulated(strengths, 60, seed), samples=200).filter(slice_kind="all")
        assert found.sort("win_rate", descending=True)["method"].to_list() == ["x", "y", "z"]
        for row in found.to_dicts():
            assert row["n"] == 120 and row["wins"] + row["losses"] == 120
            covered.append(row["ci_low"] <= chances[row["method"]] <= row["ci_high"])
            assert row["strength_low"] < row["strength"] < row["strength_high"]
    assert 0.85 <= np.mean(covered) <= 0.99


def test_strengths_satisfy_the_likelihood_equations_however_lopsided_the_wins() -> None:
    rng = np.random.default_rng(0)
    wins = rng.integers(0, 4, (6, 6)) * rng.choice([1, 1000], (6, 6)).astype(float)
    np.fill_diagonal(wins, 0)
    found = bradley_terry(wins)
    assert found is not None and found.mean() == pytest.approx(0)
    held = wins + 0.5 * ((wins + wins.T) > 0)
    expected = (held + held.T) / (1 + np.exp(found[None, :] - found[:, None]))
    assert expected.sum(axis=1) == pytest.approx(held.sum(axis=1))


def test_method_that_never_lost_has_a_finite_strength_and_a_rate_below_one() -> None:
    votes = table(compared(f"p{n}", "x", "y", "a") for n in range(5))
    best, worst = win_rates(votes, samples=50).filter(slice_kind="all").to_dicts()
    assert best["win_rate"] == pytest.approx(5.5 / 6, abs=1e-3)
    assert best["win_rate"] + worst["win_rate"] == pytest.approx(1)
    assert np.isfinite(best["strength"]) and best["ci_high"] < 1


def test_ties_are_half_a_win_for_both() -> None:
    votes = table(compared(f"p{n}", "x", "y", "tie") for n in range(4))
    for row in win_rates(votes, samples=50).to_dicts():
        assert row["ties"] == 4 and row["win_rate"] == pytest.approx(0.5)


def test_methods_that_never_met_get_no_rates_but_their_counts() -> None:
    votes = table([compared("p", "u", "v", "a"), compared("p", "x", "y", "b")])
    for row in win_rates(votes, samples=50).to_dicts():
        assert row["win_rate"] is None and row["n"] == 1


def test_one_prompt_gives_rates_without_an_interval() -> None:
    (row, _) = win_rates(table([compared("p", "x", "y", "a")])).filter(slice_kind="all").to_dicts()
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
    found = {(r["slice"], r["method"]): r for r in mean_ratings(votes, samples=100).to_dicts()}
    whole = found["all", "x"]
    assert (whole["n"], whole["raters"], whole["prompts"], whole["mean"]) == (3, 2, 2, 3.25)
    assert whole["ci_low"] <= 3.25 <= whole["ci_high"]
    assert found["functional", "x"]["mean"] == 4.5
    assert found["compositional", "y"]["mean"] == 1
    assert ("functional", "y") not in found


def test_labels_of_0_and_1_are_not_averaged_with_scores_of_1_to_5() -> None:
    votes = table([rated("p", "x", 5), rated("p", "x", 1, mode="verify")])
    found = mean_ratings(votes).filter(slice_kind="all")
    assert found.select("mode", "mean").rows() == [("rating", 5), ("verify", 1)]


def test_rejected_votes_and_repeats_do_not_count() -> None:
    votes = table(
        [
            rated("p", "x", 5),
            rated("p", "x", 1, status="rejected"),
            rated("p", "x", 1, repeat=True),
        ]
    )
    assert mean_ratings(votes)["mean"].to_list() == [5, 5]


def test_contradictory_raters_are_told_by_their_repeats() -> None:
    rows = []
    for n in range(4):
        rows.append(compared(f"p{n}", "x", "y", "a", rater="sure"))
        rows.append(compared(f"p{n}", "x", "y", "a", rater="sure", repeat=True))
        rows.append(compared(f"p{n}", "x", "y", "a", rater="guessing"))
        again = "a" if n == 0 else "b"
        rows.append(compared(f"p{n}", "x", "y", again, rater="guessing", repeat=True))
    found = rater_agreement(table(rows), samples=50).filter(measure="self_agreement")
    shares = {row["rater"]: (row["value"], row["n"]) for row in found.to_dicts()}
    assert shares == {"sure": (1, 4), "guessing": (0.25, 4), None: (0.625, 8)}


def test_one_vote_for_equal_pictures_of_two_methods_is_one_opinion() -> None:
    rows = []
    for line, (rater, score) in enumerate([("anna", 4), ("ben", 2), ("anna", 1), ("ben", 1)], 1):
        for method in ("x", "y"):
            image = "one" if line < 3 else "two"
            rows.append(
                rated("p", method, score, rater=rater, item=image, image_a=image, line=line)
            )
    votes = table(rows)
    (alpha,) = rater_agreement(votes, samples=50)["n"].to_list()
    assert alpha == 2
    scores = scores_of({("p", "one"): 1.0, ("p", "two"): 0.0})
    found = metric_agreement(votes, scores, samples=50).filter(measure="spearman")
    assert found["n"].to_list() == [2]


def scores_of(values: dict[tuple[str, str], float | None], metric: str = "m") -> pl.DataFrame:
    rows = [
        {"prompt_id": prompt, "image": image, "metric": metric, "value": value}
        for (prompt, image), value in values.items()
    ]
    return pl.DataFrame(rows, schema_overrides={"value": pl.Float64})


def test_pairwise_accuracy_follows_the_majority_and_counts_by_hand() -> None:
    votes = table(
        [
            compared("p", "x", "y", "a"),
            compared("p", "x", "y", "a", rater="ben"),
            compared("p", "x", "y", "b", rater="cleo"),
            compared("q", "x", "y", "b"),
            compared("r", "x", "y", "a"),
            compared("s", "x", "y", "tie"),
            compared("t", "x", "y", "a"),
        ]
    )
    scores = scores_of(
        {
            ("p", "p-x"): 0.9,
            ("p", "p-y"): 0.1,
            ("q", "q-x"): 0.9,
            ("q", "q-y"): 0.1,
            ("r", "r-x"): 0.5,
            ("r", "r-y"): 0.5,
            ("s", "s-x"): 0.5,
            ("s", "s-y"): 0.1,
            ("t", "t-x"): None,
            ("t", "t-y"): 0.1,
        }
    )
    (row,) = metric_agreement(votes, scores, samples=100).to_dicts()
    # p right, q wrong, r half; s was a tie of people, t has no score.
    assert (row["measure"], row["value"]) == ("pairwise_accuracy", 0.5)
    assert (row["n"], row["prompts"], row["missing"]) == (3, 3, 1)


def test_correlations_are_those_of_scipy_with_intervals_that_cover() -> None:
    rng = np.random.default_rng(5)
    rows, values, people, metric = [], {}, [], []
    for prompt in range(40):
        for method in ("x", "y"):
            truth = rng.normal()
            score = int(np.clip(np.round(3 + truth), 1, 5))
            value = truth + rng.normal()
            rows.append(rated(f"p{prompt:02}", method, score))
            values[f"p{prompt:02}", f"p{prompt:02}-{method}"] = value
            people.append(score)
            metric.append(value)
    found = {
        row["measure"]: row
        for row in metric_agreement(table(rows), scores_of(values), samples=1000).to_dicts()
    }
    assert found["kendall_tau"]["value"] == pytest.approx(stats.kendalltau(people, metric)[0])
    assert found["spearman"]["value"] == pytest.approx(stats.spearmanr(people, metric)[0])
    assert found["pairwise_accuracy"]["value"] > 0.6
    for row in found.values():
        assert row["ci_low"] < row["value"] < row["ci_high"] and row["prompts"] <= 40
    # The interval is that of scipy's figures over resampled prompts, two pictures each.
    pairs = np.stack([people, metric], axis=1).reshape(40, 2, 2)
    drawn = [pairs[rng.integers(40, size=40)].reshape(80, 2).T for _ in range(600)]
    for measure, statistic in (("kendall_tau", stats.kendalltau), ("spearman", stats.spearmanr)):
        low, high = np.percentile([statistic(*own)[0] for own in drawn], [2.5, 97.5])
        row = found[measure]
        assert (row["ci_low"], row["ci_high"]) == pytest.approx((low, high), abs=0.06)


def test_constant_metric_agrees_by_chance_and_has_no_correlation() -> None:
    votes = table(rated(f"p{n}", m, s) for n in range(5) for m, s in (("x", 2), ("y", 4)))
    scores = scores_of({(f"p{n}", f"p{n}-{m}"): 1.0 for n in range(5) for m in "xy"})
    found = {r["measure"]: r["value"] for r in metric_agreement(votes, scores, 50).to_dicts()}
    assert found == {"pairwise_accuracy": 0.5, "kendall_tau": None, "spearman": None}


def test_statistics_are_repeatable_and_do_not_lean_on_the_order_of_rows() -> None:
    votes = simulated({"x": 0.5, "y": 0.0, "z": -0.5}, 12, 1)
    shuffled = votes.sample(fraction=1, shuffle=True, seed=4)
    assert win_rates(votes, samples=50).equals(win_rates(shuffled, samples=50))
    assert head_to_head(votes, samples=50).equals(head_to_head(shuffled, samples=50))


def test_no_votes_give_empty_tables() -> None:
    votes = table([])
    scores = scores_of({("p", "i"): 1.0})
    for found in (
        mean_ratings(votes),
        win_rates(votes),
        head_to_head(votes),
        rater_agreement(votes),
        metric_agreement(votes, scores),
    ):
        assert found.height == 0
