"""Promises of intervals, tests and calibration error."""

from itertools import product

import numpy as np
import pytest

from hoi_assets.statistics import (
    Interval,
    accuracy,
    auc,
    bootstrap_counts,
    expected_calibration_error,
    group_means,
    holm,
    intervals_of_resamples,
    mean_interval,
    paired_difference,
    percentile_rank,
    precision,
    recall,
    reliability,
    share_interval,
)


def test_bootstrap_interval_covers_the_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    samples = (mean_interval(rng.normal(3, 2, 40), samples=300) for _ in range(200))
    covered = [i.low is not None and i.high is not None and i.low <= 3 <= i.high for i in samples]
    assert 0.88 <= np.mean(covered) <= 0.99


def test_bootstrap_is_repeatable_and_follows_its_seed() -> None:
    values = np.random.default_rng(0).normal(size=30)
    assert mean_interval(values) == mean_interval(values)
    assert mean_interval(values) != mean_interval(values, seed=1)


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([], Interval(None, None, None, 0)),
        ([2.0], Interval(2.0, None, None, 1)),
        ([2.0, 2.0, 2.0], Interval(2.0, 2.0, 2.0, 3)),
    ],
)
def test_too_few_or_equal_values_give_no_false_interval(
    values: list[float], wanted: Interval
) -> None:
    assert mean_interval(values) == wanted


def test_group_means_average_what_belongs_together() -> None:
    assert group_means([1, 3, 10], ["b", "b", "a"]) == {"b": 2.0, "a": 10.0}


def test_sign_flip_p_equals_full_enumeration() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(0.5, 1, 8), rng.normal(0, 1, 8)
    means = [np.mean(np.array(signs) * (a - b)) for signs in product((1, -1), repeat=8)]
    wanted = np.mean(np.abs(means) >= abs(np.mean(a - b)) - 1e-12)
    assert paired_difference(a, b).p == pytest.approx(wanted)


def test_paired_test_sees_what_pairing_shows() -> None:
    rng = np.random.default_rng(2)
    prompt = rng.normal(0, 5, 40)
    found = paired_difference(prompt + 0.3 + rng.normal(0, 0.1, 40), prompt)
    assert found.p is not None and found.p < 0.001
    assert found.low is not None and 0.2 < found.low < 0.3 < found.high < 0.4  # type: ignore[operator]
    assert found.n == 40


def test_difference_of_equal_methods_is_not_significant() -> None:
    values = np.arange(10.0)
    assert paired_difference(values, values).p == 1


def test_pairs_of_unequal_length_are_refused() -> None:
    with pytest.raises(ValueError, match="3 values against 2"):
        paired_difference([1, 2, 3], [1, 2])


def test_holm_matches_its_definition_and_skips_missing() -> None:
    found = holm([0.01, 0.04, None, 0.03, 0.5])
    assert found == [0.04, 0.09, None, 0.09, 0.5]
    assert holm([0.6, 0.7]) == [1.0, 1.0]


def test_wilson_interval_matches_its_formula() -> None:
    k, n, z = 7, 9, 1.959963984540054
    centre = (k / n + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(k / n * (1 - k / n) / n + z**2 / (4 * n**2))
    found = share_interval(k, n)
    assert (found.low, found.high) == pytest.approx((centre - half, centre + half))


def test_precision_recall_and_accuracy_count_rightly() -> None:
    truth = [True, True, True, False, False]
    taken = [True, False, False, True, False]
    assert precision(truth, taken).value == 1 / 2
    assert recall(truth, taken).value == pytest.approx(1 / 3)
    assert accuracy(truth, taken).value == 2 / 5
    assert precision(truth, [False] * 5) == Interval(None, None, None, 0)


def test_auc_is_the_share_of_rightly_ordered_pairs() -> None:
    rng = np.random.default_rng(3)
    truth, scores = rng.random(60) < 0.4, rng.integers(0, 8, 60)
    good, bad = scores[truth], scores[~truth]
    wanted = np.mean([(g > b) + (g == b) / 2 for g in good for b in bad])
    assert auc(truth, scores).value == pytest.approx(wanted)


def test_auc_interval_covers_the_truth_and_has_width_at_one() -> None:
    rng = np.random.default_rng(4)
    covered = []
    for _ in range(200):
        truth = np.arange(60) < 30
        found = auc(truth, rng.normal(truth * 1.0, 1))
        covered.append(found.low <= 0.7602 <= found.high)  # Phi(1 / sqrt(2))
    assert 0.90 <= np.mean(covered) <= 0.995
    perfect = auc([False] * 10 + [True] * 10, range(20))
    assert perfect.value == 1 and perfect.high == 1 and 0.7 < perfect.low < 0.95  # type: ignore[operator]


def test_auc_without_both_classes_is_none() -> None:
    assert auc([True, True], [0.1, 0.2]) == Interval(None, None, None, 2)


def test_calibration_error_is_the_weighted_gap() -> None:
    truth, p = [True, True, False, False], [0.95, 0.95, 0.15, 0.25]
    gaps = 2 / 4 * 0.05 + 1 / 4 * 0.15 + 1 / 4 * 0.25
    assert expected_calibration_error(truth, p) == pytest.approx(gaps)
    assert [row["bin"] for row in reliability(truth, p)] == [1, 2, 9]
    assert expected_calibration_error([], []) is None


def test_probability_one_falls_into_the_last_bin() -> None:
    assert [row["bin"] for row in reliability([True, False], [1.0, 0.0])] == [0, 9]


def test_percentile_rank_counts_ties_half() -> None:
    assert percentile_rank(2, [1, 2, 2, 3]) == 50
    assert percentile_rank(0, [1, 2]) == 0
    assert percentile_rank(None, [1, 2]) is None
    assert percentile_rank(1, []) is None


def test_intervals_of_resampled_means_are_those_of_the_bootstrap_of_the_mean() -> None:
    values = np.random.default_rng(3).normal(size=60)
    counts, groups = bootstrap_counts(list(range(60)), samples=4000, seed=1)
    assert (
        counts.shape == (4001, 60) and (counts[0] == 1).all() and (counts.sum(axis=1) == 60).all()
    )
    means = (counts[:, groups] @ values / 60)[:, None]
    (found,) = intervals_of_resamples(means, 60)
    wanted = mean_interval(values, samples=4000)
    assert found.value == pytest.approx(wanted.value)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=0.03)


def test_groups_are_resampled_whole_and_one_group_has_no_interval() -> None:
    counts, groups = bootstrap_counts(["a", "b", "a"], samples=20, seed=0)
    assert groups.tolist() == [0, 1, 0] and (counts.sum(axis=1) == 2).all()
    (found,) = intervals_of_resamples(np.ones((21, 1)), 1)
    assert found == Interval(1.0, None, None, 1)
