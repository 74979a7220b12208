"""Human ratings stand in the scorecard's own columns, and count only for images in force."""

from typing import Any

import polars as pl
import pytest

from hoi_assets.defs.evaluation.scorecards import HOI_SCORECARDS_SUITE
from hoi_assets.evaluation.human_scorecard import score_votes
from hoi_assets.evaluation.metric_agreement import METRIC_AGREEMENT
from hoi_assets.evaluation.scorecards import SCORECARD
from hoi_assets.publishing.validation import evaluate
from hoi_assets_tests.evaluation.vote_rows import compared, rated, table

METHODS = ("base", "finetuned")


def scores_of(prompts: int, suite: str = "hoi", better: float = 1.0) -> pl.DataFrame:
    """A metric that ranks the second method's picture above the first's by `better`."""
    rows = [
        {
            "suite": suite,
            "method": method,
            "prompt_id": f"p{number}",
            "image": f"p{number}-{method}",
            "metric": "clip_score",
            "value": number / 100 + better * place,
        }
        for number in range(prompts)
        for place, method in enumerate(METHODS)
    ]
    return pl.DataFrame(rows)


def votes_of(prompts: int, **more: Any) -> pl.DataFrame:
    """Both modes: the second method is rated 4 against 2, and preferred each time."""
    common = {"suite": "hoi", "category": "hook", "scenario": None} | more
    rows = []
    for number in range(prompts):
        prompt = f"p{number}"
        rows += [
            rated(prompt, method, score, **common)
            for method, score in zip(METHODS, (2, 4), strict=True)
        ]
        rows.append(compared(prompt, *METHODS, "b", **common))
    return table(rows)


def test_ratings_and_win_rates_stand_in_the_scorecards_columns() -> None:
    found = score_votes(votes_of(6), scores_of(6), samples=100, compute={"base": "8 steps"})
    card = found.scorecard
    assert dict(card.schema) == SCORECARD.schema
    rows = {(r["method"], r["slice"], r["metric"]): r for r in card.to_dicts()}
    whole = rows["finetuned", "all", "human_rating_q"]
    assert (whole["suite"], whole["n"], whole["prompts"], whole["missing"]) == ("hoi", 6, 6, 0)
    assert whole["mean"] == 4 and whole["ci_low"] == whole["ci_high"] == 4
    assert rows["base", "all", "human_rating_q"]["compute"] == "8 steps"
    assert rows["finetuned", "hook", "human_win_rate_q"]["mean"] > 0.85
    assert rows["base", "all", "human_win_rate_q"]["mean"] < 0.15
    rules = [rule for rule in HOI_SCORECARDS_SUITE if rule.table == "scorecard"]
    # Votes alone make no CLIPScore, by which the suite counts methods and slices.
    of_scores = ("compared_methods", "slices", "slices_missing")
    asked = [
        rule
        for rule in rules
        if "$" not in str(rule.kwargs) and rule.kwargs.get("name") not in of_scores
    ]
    assert evaluate({"scorecard": card}, asked).passed


def test_question_that_pairwise_studies_ask_by_default_is_not_named_twice() -> None:
    votes = votes_of(3, question="better").filter(mode="pairwise")
    card = score_votes(votes, scores_of(3), samples=100).scorecard
    assert set(card["metric"]) == {"human_win_rate"}


def test_votes_on_images_that_were_replaced_are_missing_not_counted() -> None:
    now = scores_of(6).with_columns(
        pl.when(pl.col("prompt_id").is_in(["p0", "p1"]) & (pl.col("method") == "finetuned"))
        .then(pl.lit("replaced"))
        .otherwise("image")
        .alias("image")
    )
    found = score_votes(votes_of(6), now, samples=100)
    rows = {
        (r["method"], r["metric"]): r for r in found.scorecard.filter(slice_kind="all").to_dicts()
    }
    assert [rows["finetuned", "human_rating_q"][name] for name in ("n", "missing")] == [4, 2]
    assert [rows["base", "human_rating_q"][name] for name in ("n", "missing")] == [6, 0]
    # A comparison needs both of its pictures.
    assert [rows["base", "human_win_rate_q"][name] for name in ("n", "missing")] == [4, 2]
    gone = now.with_columns(pl.lit("another").alias("image"))
    for row in score_votes(votes_of(6), gone, samples=100).scorecard.to_dicts():
        assert row["n"] == 0 and row["mean"] is None and row["missing"] == 6


@pytest.mark.parametrize(("better", "accuracy"), [(1.0, 1.0), (-1.0, 0.0)])
def test_metric_agreement_is_measured_by_suite(better: float, accuracy: float) -> None:
    other = votes_of(4, suite="interacting", category=None, scenario="functional")
    votes = pl.concat([votes_of(6), other])
    scores = pl.concat([scores_of(6, better=better), scores_of(4, "interacting")])
    found = score_votes(votes, scores, samples=100).metric_agreement
    assert dict(found.schema) == METRIC_AGREEMENT.schema
    rows = {
        (r["suite"], r["mode"]): (r["value"], r["n"])
        for r in found.filter(measure="pairwise_accuracy").to_dicts()
    }
    assert rows["hoi", "pairwise"] == rows["hoi", "rating"] == (accuracy, 6)
    assert rows["interacting", "pairwise"] == (1.0, 4)


def test_suites_without_votes_and_votes_without_a_suite_give_nothing() -> None:
    for votes in (table([]), votes_of(3, suite=None), votes_of(3, suite="labels")):
        found = score_votes(votes, scores_of(3), samples=100)
        assert found.scorecard.height == found.metric_agreement.height == 0
