"""Promises of the scorecard and the comparisons."""

import numpy as np
import polars as pl
import pytest

from hoi_assets.evaluation.scorecards import COMPARISONS, SCORECARD, compare_methods, make_scorecard
from hoi_assets.settings import Evaluation
from hoi_assets.statistics import mean_interval

CONFIG = Evaluation(bootstrap_samples=500)
LIFT = {"base": 0.0, "dreambooth": 0.1, "finetuned": 0.5}


def make_scores(prompts: int = 12, images: int = 2) -> pl.DataFrame:
    """Two categories with seen and unseen prompts, and a general suite; finetuned is better."""
    rng = np.random.default_rng(0)
    rows = []
    for suite in ("hoi", "general"):
        for number in range(prompts):
            hard = rng.normal()
            for method, lift in LIFT.items():
                for image in range(images):
                    rows.append(
                        {
                            "suite": suite,
                            "method": method,
                            "category": ("hook", "tripod")[number % 2],
                            "scenario": None,
                            "seen": number % 4 < 2 if suite == "hoi" else None,
                            "evaluation_prompt_id": f"{suite}-{number}",
                            "image_id": f"{suite}-{number}-{method}-{image}",
                            "metric": "clip_score",
                            "value": hard + lift + 0.1 * rng.normal(),
                        }
                    )
    return pl.DataFrame(rows)


def test_scorecard_has_all_slices_and_its_columns() -> None:
    card = make_scorecard(make_scores(), CONFIG)
    assert dict(card.schema) == SCORECARD.schema
    assert set(card.select("suite", "slice_kind", "slice").iter_rows()) == {
        ("hoi", "all", "all"),
        ("hoi", "category", "hook"),
        ("hoi", "category", "tripod"),
        ("hoi", "combination", "seen"),
        ("hoi", "combination", "unseen"),
        ("general", "all", "all"),
    }
    assert card["method"].unique(maintain_order=True).to_list() == list(LIFT)


def test_mean_and_interval_are_over_prompts_not_pictures() -> None:
    scores = make_scores()
    row = (
        make_scorecard(scores, CONFIG)
        .filter(suite="hoi", slice_kind="all", method="base")
        .row(0, named=True)
    )
    means = (
        scores.filter(suite="hoi", method="base")
        .group_by("evaluation_prompt_id", maintain_order=True)
        .agg(pl.col("value").mean())
        .sort("evaluation_prompt_id")["value"]
    )
    wanted = mean_interval(means.to_list(), 500)
    assert (row["n"], row["prompts"]) == (24, 12)
    assert (row["mean"], row["ci_low"], row["ci_high"]) == pytest.approx(
        (wanted.value, wanted.low, wanted.high)
    )


def test_doubling_the_pictures_of_a_prompt_does_not_narrow_the_interval() -> None:
    scores = make_scores(images=1)
    twice = pl.concat([scores, scores.with_columns(pl.col("image_id") + "b")])
    once, again = (
        make_scorecard(table, CONFIG).select("mean", "ci_low", "ci_high")
        for table in (scores, twice)
    )
    np.testing.assert_allclose(once.to_numpy(), again.to_numpy())


def test_a_prompt_without_a_picture_of_one_method_is_missing_there() -> None:
    scores = make_scores().filter(suite="hoi")
    prompts = scores["evaluation_prompt_id"].unique(maintain_order=True)
    of_three = pl.col("evaluation_prompt_id").is_in(prompts[:3].implode())
    kept = scores.filter((pl.col("method") != "base") | ~of_three)
    card = make_scorecard(kept, CONFIG).filter(slice_kind="all")
    missing = dict(card.select("method", "missing").rows())
    assert missing.pop("base") == 3
    assert set(missing.values()) == {0}


def test_failed_scores_are_counted_and_never_averaged() -> None:
    scores = make_scores()
    lost = (pl.col("image_id") == "hoi-0-base-0") | (pl.col("image_id") == "hoi-1-base-1")
    holed = scores.with_columns(
        pl.when(lost).then(float("nan")).otherwise(pl.col("value")).alias("value")
    )
    row = (
        make_scorecard(holed, CONFIG)
        .filter(suite="hoi", slice_kind="all", method="base")
        .row(0, named=True)
    )
    assert (row["n"], row["missing"], row["prompts"]) == (22, 2, 12)
    assert np.isfinite(row["mean"])


def test_percentile_needs_a_reference() -> None:
    scores = make_scores()
    assert make_scorecard(scores, CONFIG)["percentile"].is_null().all()
    card = make_scorecard(scores, CONFIG, reference={"clip_score": [-9.0, -8.0, 9.0, 10.0]})
    assert card["percentile"].to_list() == [50.0] * card.height


def test_one_prompt_gives_no_interval() -> None:
    row = make_scorecard(make_scores(prompts=1), CONFIG).row(0, named=True)
    assert (row["prompts"], row["ci_low"], row["ci_high"]) == (1, None, None)


def test_selection_rule_and_compute_are_said_by_method() -> None:
    card = make_scorecard(make_scores(), CONFIG, compute={"base": "16 steps"})
    assert set(card.filter(method="base")["compute"]) == {"16 steps"}
    assert set(card["selection_rule"]) == {"none: every picture drawn"}


def test_comparison_pairs_prompts_and_finds_the_better_method() -> None:
    table = compare_methods(make_scores(), CONFIG)
    assert dict(table.schema) == COMPARISONS.schema
    row = table.filter(suite="hoi", slice_kind="all", method_a="finetuned", method_b="base").row(
        0, named=True
    )
    assert row["difference"] == pytest.approx(0.5, abs=0.1)
    assert row["n"] == 12
    assert row["p"] < 0.001
    assert row["p"] <= row["p_holm"]
    assert 0.3 < row["ci_low"] < row["difference"] < row["ci_high"] < 0.7


def test_comparison_leaves_out_prompts_that_one_method_lacks() -> None:
    scores = make_scores().filter(
        ~((pl.col("method") == "base") & (pl.col("evaluation_prompt_id") == "hoi-3"))
    )
    table = compare_methods(scores, CONFIG).filter(suite="hoi", slice_kind="all")
    assert dict(table.group_by("method_b").agg(pl.col("n").min()).iter_rows()) == {
        "base": 11,
        "dreambooth": 12,
    }


def test_correction_counts_all_comparisons_of_a_metric() -> None:
    table = compare_methods(make_scores(), CONFIG).filter(suite="hoi")
    smallest = table.sort("p").row(0, named=True)
    assert smallest["p_holm"] == pytest.approx(min(1, smallest["p"] * table.height))


def test_order_of_rows_does_not_matter() -> None:
    scores = make_scores()
    shuffled = scores.sample(fraction=1, shuffle=True, seed=1)
    assert make_scorecard(scores, CONFIG).equals(make_scorecard(shuffled, CONFIG))
    assert compare_methods(scores, CONFIG).equals(compare_methods(shuffled, CONFIG))
