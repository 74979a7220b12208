"""Promises of the agreement of metrics with raters, against figures by hand and of scipy."""

import numpy as np
import pytest
from scipy import stats

from hoi_assets.evaluation.human_agreement import measure_rater_agreement
from hoi_assets.evaluation.human_ratings import (
    average_ratings,
    estimate_win_rates,
    head_to_head,
)
from hoi_assets.evaluation.metric_agreement import measure_metric_agreement
from hoi_assets_tests.evaluation.vote_rows import compared, rated, scores_of, table


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
    (row,) = measure_metric_agreement(votes, scores, samples=100).to_dicts()
    # p right, q wrong, r half; s was a tie, t has no score.
    assert (row["measure"], row["value"]) == ("pairwise_accuracy", 0.5)
    assert (row["n"], row["prompts"], row["missing"]) == (3, 3, 1)


def test_correlations_are_those_of_scipy_with_intervals_that_cover() -> None:
    rng = np.random.default_rng(5)
    rows, values, human, metric = [], {}, [], []
    for prompt in range(40):
        for method in ("x", "y"):
            truth = rng.normal()
            score = int(np.clip(np.round(3 + truth), 1, 5))
            value = truth + rng.normal()
            rows.append(rated(f"p{prompt:02}", method, score))
            values[f"p{prompt:02}", f"p{prompt:02}-{method}"] = value
            human.append(score)
            metric.append(value)
    found = {
        row["measure"]: row
        for row in measure_metric_agreement(table(rows), scores_of(values), samples=1000).to_dicts()
    }
    assert found["kendall_tau"]["value"] == pytest.approx(stats.kendalltau(human, metric)[0])
    assert found["spearman"]["value"] == pytest.approx(stats.spearmanr(human, metric)[0])
    assert found["pairwise_accuracy"]["value"] > 0.6
    for row in found.values():
        assert row["ci_low"] < row["value"] < row["ci_high"] and row["prompts"] <= 40
    # The interval is that of scipy's figures over resampled prompts, two pictures each.
    pairs = np.stack([human, metric], axis=1).reshape(40, 2, 2)
    drawn = [pairs[rng.integers(40, size=40)].reshape(80, 2).T for _ in range(600)]
    for measure, statistic in (("kendall_tau", stats.kendalltau), ("spearman", stats.spearmanr)):
        low, high = np.percentile([statistic(*own)[0] for own in drawn], [2.5, 97.5])
        row = found[measure]
        assert (row["ci_low"], row["ci_high"]) == pytest.approx((low, high), abs=0.06)


def test_constant_metric_agrees_by_chance_and_has_no_correlation() -> None:
    votes = table(rated(f"p{n}", m, s) for n in range(5) for m, s in (("x", 2), ("y", 4)))
    scores = scores_of({(f"p{n}", f"p{n}-{m}"): 1.0 for n in range(5) for m in "xy"})
    found = {
        r["measure"]: r["value"] for r in measure_metric_agreement(votes, scores, 50).to_dicts()
    }
    assert found == {"pairwise_accuracy": 0.5, "kendall_tau": None, "spearman": None}


def test_one_vote_for_equal_pictures_of_two_methods_is_one_opinion() -> None:
    rows = []
    for line, (rater, score) in enumerate([("anna", 4), ("ben", 2), ("anna", 1), ("ben", 1)], 1):
        for method in ("x", "y"):
            image = "one" if line < 3 else "two"
            rows.append(
                rated("p", method, score, rater=rater, item=image, image_a=image, line=line)
            )
    votes = table(rows)
    (alpha,) = measure_rater_agreement(votes, samples=50)["n"].to_list()
    assert alpha == 2
    scores = scores_of({("p", "one"): 1.0, ("p", "two"): 0.0})
    found = measure_metric_agreement(votes, scores, samples=50).filter(measure="spearman")
    assert found["n"].to_list() == [2]


def test_no_votes_give_empty_tables() -> None:
    votes = table([])
    scores = scores_of({("p", "i"): 1.0})
    for found in (
        average_ratings(votes),
        estimate_win_rates(votes),
        head_to_head(votes),
        measure_rater_agreement(votes),
        measure_metric_agreement(votes, scores),
    ):
        assert found.height == 0
