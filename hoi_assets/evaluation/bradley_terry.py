"""The Bradley-Terry (1952) model: strengths of methods from who beat whom how often."""

import numpy as np

from hoi_assets.statistics import Interval, bootstrap_counts, intervals_of_resamples

# Half a win to each side of every pair of methods that was compared: a method that never lost
# keeps a finite strength, as with one more vote, a tie.
PRIOR_TIES = 1.0
MAX_NEWTON_STEPS = 100
# Far from the maximum a full step can overshoot.
MAX_STEP = 2.0
STEP_TOLERANCE = 1e-10


def fit_bradley_terry(wins: np.ndarray, prior_ties: float = PRIOR_TIES) -> np.ndarray | None:
    """Maximum-likelihood strengths of the Bradley-Terry (1952) model.

    Args:
        wins: (k, k), how often the row's method beat the column's; a tie is 0.5 on both sides.
        prior_ties: ties added to every pair that met; 0 is plain maximum likelihood.

    Returns:
        (k,) logs of the parameters, mean 0; None where they are not determined: the pairs that met
        do not connect the methods, or, without a prior, one group of them never lost to the rest.

    >>> import numpy as np
    >>> a, b = fit_bradley_terry(np.array([[0.0, 3.0], [1.0, 0.0]]), prior_ties=0)
    >>> round(float(np.exp(a - b)), 6)
    3.0
    """
    total = wins + _prior(wins, prior_ties)
    return _maximise_likelihood(total[None])[0] if _connected(total) else None


def bradley_terry_intervals(
    wins: np.ndarray, samples: int, seed: int
) -> tuple[list[Interval], list[Interval]]:
    """Win rates and strengths of k methods with 95% bootstrap intervals over prompts.

    A method's win rate is its modelled chance against the others, each met equally often.

    Args:
        wins: (prompts, k, k), as in `fit_bradley_terry`, by prompt.

    Returns:
        k win rates and k strengths; without a value where the comparisons do not connect the
        methods.
    """
    prompts, methods = len(wins), wins.shape[1]
    total = wins.sum(axis=0)
    # The prior goes to pairs that met at all, so that no resample falls apart.
    prior = _prior(total)
    if not _connected(total + prior):
        nothing = [Interval(None, None, None, prompts)] * methods
        return nothing, nothing
    times, _ = bootstrap_counts(list(range(prompts)), samples, seed)
    strengths = _maximise_likelihood(np.tensordot(times, wins, axes=1) + prior)
    others = _win_chances(strengths).sum(axis=2) - 0.5
    return (
        intervals_of_resamples(others / (methods - 1), prompts),
        intervals_of_resamples(strengths, prompts),
    )


def _prior(wins: np.ndarray, ties: float = PRIOR_TIES) -> np.ndarray:
    """Half a win to each side for each of `ties`, for the pairs that met."""
    return ties / 2 * ((wins + wins.T) > 0)


def _maximise_likelihood(wins: np.ndarray) -> np.ndarray:
    """Strengths (n, k) of n tables of wins (n, k, k), each connected, all at once.

    Newton's method on the log-likelihood, which is concave; small libraries fit one table in
    milliseconds, which thousands of resamples make minutes.
    """
    methods = wins.shape[1]
    met, won = wins + wins.transpose(0, 2, 1), wins.sum(axis=2)
    strengths = np.zeros(won.shape)
    for _ in range(MAX_NEWTON_STEPS):
        chances = _win_chances(strengths)
        slope = won - (met * chances).sum(axis=2)
        curve = met * chances * (1 - chances)
        hessian = np.eye(methods) * curve.sum(axis=2)[:, :, None] - curve
        # Strengths are determined up to a constant: the added matrix of ones keeps their mean at 0.
        step = np.linalg.solve(hessian + 1 / methods, slope[:, :, None])[:, :, 0]
        strengths += np.clip(step, -MAX_STEP, MAX_STEP)
        if np.abs(step).max() < STEP_TOLERANCE:
            break
    return strengths - strengths.mean(axis=1, keepdims=True)


def _win_chances(strengths: np.ndarray) -> np.ndarray:
    """(n, k, k) modelled chance of the row's method against the column's, from (n, k)."""
    return 1 / (1 + np.exp(strengths[:, None, :] - strengths[:, :, None]))


def _connected(wins: np.ndarray) -> bool:
    """Whether every method beat every other one, directly or through others."""
    from scipy.sparse.csgraph import connected_components

    return int(connected_components(wins > 0, connection="strong")[0]) == 1
