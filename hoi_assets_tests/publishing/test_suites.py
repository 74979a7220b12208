"""The suites of the pipelines: complete, resolvable, and able to refuse a collapsed version."""

import polars as pl
import pytest

from hoi_assets.defs.project import published_below
from hoi_assets.publishing.asset import stage_of
from hoi_assets.publishing.contents import CONTENTS
from hoi_assets.publishing.expectations import Suite, for_partition, resolve, with_schemas
from hoi_assets.publishing.validation import build_suite, evaluate
from hoi_assets.settings import Settings, load_settings
from hoi_assets_tests.evaluation.report_parents import verifier_tables

SETTINGS = load_settings("tiny")
STAGES = {stage.name: stage for stage in (stage_of(a) for a in published_below("hoi_assets.defs"))}
SUITES = {name: stage.suite for name, stage in STAGES.items()}


def rows_of(name: str, settings: Settings) -> Suite:
    """The expectations of the table `rows`, for the partition hook."""
    declared = for_partition(resolve(SUITES[name], settings), "hook")
    return tuple(each for each in declared if each.table == "rows")


def passes(name: str, **tables: pl.DataFrame) -> bool:
    declared = for_partition(resolve(SUITES[name], SETTINGS), "hook")
    declared = tuple(each for each in declared if each.table in tables)
    assert declared
    return evaluate(tables, declared).passed


def candidates(count: int = 20) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "image_id": [f"i{n}" for n in range(count)],
            "prompt_id": [f"p{n}" for n in range(count)],
            "category": "hook",
            "prompt": "a hand",
            "seed": range(count),
            "base_digest": "b",
            "lora_digest": "l",
            "lora_version": "v",
            "width": SETTINGS.sampling.width,
            "height": SETTINGS.sampling.height,
            "pixels": [f"{n:064x}" for n in range(count)],
            "pixel_std": 50.0,
            "cut_by": None,
            "prompt_cut": False,
            "status": "accepted",
        }
    )


def verdicts(accepted: int, count: int = 20) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "image_id": [f"i{n}" for n in range(count)],
            "category": "hook",
            "prompt": "a hand",
            "prompt_cut": False,
            "verifier_version": "v",
            "p_fidelity": 0.5,
            "p_alignment": 0.5,
            "defect_share": 0.1,
            "status": ["accepted" if n < accepted else "rejected" for n in range(count)],
            "reason": [None if n < accepted else "fidelity" for n in range(count)],
        },
        schema_overrides={"reason": pl.String},
    )


def test_every_asset_has_a_suite_and_its_tables_declared():
    assert [name for name, stage in STAGES.items() if not stage.suite or not stage.tables] == []
    for stage in STAGES.values():
        declared = {table.name for table in stage.tables}
        assert {one.table for one in stage.suite} <= declared | {CONTENTS.name}, stage.name


@pytest.mark.parametrize("profile", ["tiny", "full"])
def test_every_suite_is_one_that_great_expectations_takes_with_the_thresholds_of_the_profile(
    profile,
):
    settings = load_settings(profile)
    for name, stage in STAGES.items():
        build_suite(name, resolve(with_schemas(stage.tables, stage.suite), settings))


def test_good_candidates_pass():
    assert passes("candidate_images", rows=candidates())


@pytest.mark.parametrize(
    "collapse",
    [
        pl.lit("same").alias("pixels"),
        pl.lit(1.0).alias("pixel_std"),
        pl.lit("failed").alias("status"),
        pl.lit(64).alias("width"),
        pl.lit("i0").alias("image_id"),
        pl.lit(None, dtype=pl.String).alias("pixels"),
    ],
    ids=["duplicated", "flat", "failed", "wrong shape", "ids repeat", "no pixels"],
)
def test_collapsed_candidates_block(collapse):
    assert not passes("candidate_images", rows=candidates().with_columns(collapse))


def test_empty_candidates_block():
    assert not passes("candidate_images", rows=candidates(0))


def test_single_failed_candidate_does_not_block():
    one = pl.col("image_id") == "i0"
    table = candidates().with_columns(
        status=pl.when(one).then(pl.lit("failed")).otherwise("status"),
        pixels=pl.when(one).then(None).otherwise("pixels"),
    )
    assert passes("candidate_images", rows=table)


def cut(count: int) -> pl.DataFrame:
    """Candidates, of which the prompts of so many are longer than the model reads."""
    table = candidates().with_row_index()
    return table.with_columns(prompt_cut=pl.col("index") < count).drop("index")


def test_cut_prompts_warn_and_block_where_they_are_most_of_a_partition():
    declared = rows_of("candidate_images", SETTINGS)
    whole, one, most = (evaluate({"rows": cut(count)}, declared) for count in (0, 1, 11))
    assert whole.passed and not whole.broken
    assert one.passed and not most.passed
    (warning,) = one.broken
    assert warning.column == "cut_text_share" and not warning.blocking
    assert [row["image_id"] for row in warning.rows] == ["i0"]
    assert most.broken[0].column == "mostly_cut_share"


def test_threshold_of_cut_prompts_is_a_setting():
    gates = SETTINGS.gates.model_copy(update={"max_cut_share": 1.0, "warn_cut_share": 1.0})
    settings = SETTINGS.model_copy(update={"gates": gates})
    declared = rows_of("candidate_images", settings)
    found = evaluate({"rows": cut(20)}, declared)
    assert found.passed and not found.broken


def test_judges_that_cut_every_prompt_warn_and_do_not_block():
    declared = rows_of("verified_pairs", SETTINGS)
    found = evaluate({"rows": verdicts(3).with_columns(prompt_cut=True)}, declared)
    assert found.passed and [one.column for one in found.broken] == ["cut_text_share"]


def test_category_without_an_accepted_pair_blocks():
    assert passes("verified_pairs", rows=verdicts(3))
    assert not passes("verified_pairs", rows=verdicts(0))


def test_verdict_without_a_reason_blocks():
    table = verdicts(3).with_columns(reason=pl.lit(None, dtype=pl.String))
    assert not passes("verified_pairs", rows=table)


@pytest.mark.parametrize(
    ("on_validation", "on_test", "kept"),
    [(True, 0.97, True), (True, 0.70, False), (False, 0.97, False), (True, None, False)],
)
def test_target_precision_counts_as_met_only_where_both_splits_meet_it(
    on_validation, on_test, kept
):
    summary = verifier_tables(target_met=on_validation)["summary"].with_columns(
        precision=pl.lit(on_test, pl.Float64),
        auc_fidelity=pl.lit(0.9),
        auc_alignment=pl.lit(0.9),
        threshold_fidelity=pl.lit(0.5),
        threshold_alignment=pl.lit(0.5),
    )
    declared = [each for each in resolve(SUITES["verifier"], SETTINGS) if each.table == "summary"]
    found = evaluate({"summary": summary}, declared)
    assert found.passed  # a warning, never a block
    assert (found.broken == []) == kept


def dataset(split: list[str], prompt: list[str]) -> pl.DataFrame:
    count = SETTINGS.gates.min_dataset_rows
    return pl.DataFrame(
        {
            "image_id": [f"i{n}" for n in range(count)],
            "base_prompt_id": [prompt[n % len(prompt)] for n in range(count)],
            "category": "hook",
            "prompt": "a hand",
            "pixels": [f"{n:064x}" for n in range(count)],
            "split": [split[n % len(split)] for n in range(count)],
            "status": "accepted",
        }
    )


def test_base_prompt_in_two_splits_blocks():
    assert passes("hoi_dataset", rows=dataset(["train", "test"], ["a", "b"]))
    assert not passes("hoi_dataset", rows=dataset(["train", "test"], ["a"]))


def test_dataset_too_small_blocks():
    assert not passes("hoi_dataset", rows=dataset(["train"], ["a"]).head(3))


def test_diverged_training_blocks():
    log = pl.DataFrame({"step": [1, 2], "loss": [0.5, float("nan")]})
    assert not passes("category_loras", log=log)
    assert passes("category_loras", log=log.head(1))
