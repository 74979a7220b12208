"""Promises of the agreement among raters, against published figures."""

from typing import Any

import numpy as np
import pytest

from hoi_assets.evaluation.human_agreement import krippendorff_alpha, measure_rater_agreement
from hoi_assets.statistics import Interval
from hoi_assets_tests.evaluation.vote_rows import compared, rated, table

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
    found = measure_rater_agreement(table(rows), samples=100).row(0, named=True)
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


def test_contradictory_raters_show_in_their_repeats() -> None:
    rows = []
    for n in range(4):
        rows.append(compared(f"p{n}", "x", "y", "a", rater="sure"))
        rows.append(compared(f"p{n}", "x", "y", "a", rater="sure", repeat=True))
        rows.append(compared(f"p{n}", "x", "y", "a", rater="guessing"))
        again = "a" if n == 0 else "b"
        rows.append(compared(f"p{n}", "x", "y", again, rater="guessing", repeat=True))
    found = measure_rater_agreement(table(rows), samples=50).filter(measure="self_agreement")
    shares = {row["rater"]: (row["value"], row["n"]) for row in found.to_dicts()}
    assert shares == {"sure": (1, 4), "guessing": (0.25, 4), None: (0.625, 8)}
