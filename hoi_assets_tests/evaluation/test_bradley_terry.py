"""Promises of the Bradley-Terry model, against published figures."""

import numpy as np
import pytest

from hoi_assets.evaluation.bradley_terry import fit_bradley_terry

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


def test_bradley_terry_strengths_are_the_published_ones() -> None:
    found = fit_bradley_terry(BASEBALL, prior_ties=0)
    assert found is not None
    assert found - found[-1] == pytest.approx(BASEBALL_STRENGTHS, abs=0.006)


def test_prior_pulls_a_little_towards_equal() -> None:
    plain, prior = fit_bradley_terry(BASEBALL, prior_ties=0), fit_bradley_terry(BASEBALL)
    assert plain is not None and prior is not None
    assert 0.85 < np.ptp(prior) / np.ptp(plain) < 1


def test_strengths_that_are_not_determined_are_none() -> None:
    never_lost = np.array([[0.0, 3.0], [0.0, 0.0]])
    assert fit_bradley_terry(never_lost, prior_ties=0) is None
    found = fit_bradley_terry(never_lost)
    assert found is not None and found[0] > found[1]
    apart = np.kron(np.eye(2), [[0, 1], [1, 0]])
    assert fit_bradley_terry(apart) is None


def test_strengths_satisfy_the_likelihood_equations_however_lopsided_the_wins() -> None:
    rng = np.random.default_rng(0)
    wins = rng.integers(0, 4, (6, 6)) * rng.choice([1, 1000], (6, 6)).astype(float)
    np.fill_diagonal(wins, 0)
    found = fit_bradley_terry(wins)
    assert found is not None and found.mean() == pytest.approx(0)
    total = wins + 0.5 * ((wins + wins.T) > 0)
    expected = (total + total.T) / (1 + np.exp(found[None, :] - found[:, None]))
    assert expected.sum(axis=1) == pytest.approx(total.sum(axis=1))
