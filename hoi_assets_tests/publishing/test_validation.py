"""Expectations run on tables: what holds, what does not, and the evidence."""

import math
from collections.abc import Sequence

import polars as pl
import pytest

from hoi_assets.errors import HoiError
from hoi_assets.publishing.expectations import (
    Expectation,
    Suite,
    between,
    column_exists,
    duplicates,
    in_set,
    measure,
    not_null,
    resolve,
    row_count,
    schema_expectations,
    share,
    suite,
    unexpected_rows,
    unique,
    with_schemas,
)
from hoi_assets.publishing.gate_result import GateResult
from hoi_assets.publishing.validation import build_suite, evaluate
from hoi_assets.settings import load_settings
from hoi_assets.store.tables import Column, Table

TABLE = pl.DataFrame(
    {
        "name": ["a", "b", "b", None],
        "loss": [0.1, 0.2, math.nan, 0.3],
        "status": ["accepted", "failed", "accepted", "accepted"],
        "tags": [["x"], [], ["y"], ["z"]],
    }
)
EMPTY = TABLE.clear()
FAILED = "status = 'failed'"


def broken(expectations: Sequence[Expectation], table: pl.DataFrame = TABLE) -> list[str]:
    return [str(result) for result in evaluate({"rows": table}, expectations).broken]


def test_expectations_hold_where_they_should():
    declared = suite(
        rows=[
            row_count(2, 2),
            not_null("name", "loss"),
            unique("name"),
            unique("name", "status"),
            in_set("status", ["accepted", "failed"]),
            between("loss", 0.1, 0.2),
            column_exists("tags"),
            share("failed_share", FAILED, 0.5),
            unexpected_rows("nameless", "name is null"),
            duplicates("name", 0),
            measure("names", "count(distinct name)", 2, 2),
        ]
    )
    assert not broken(declared, TABLE.head(2))


@pytest.mark.parametrize(
    "declared",
    [
        suite(rows=[row_count(5)]),
        suite(rows=[row_count(0, 3)]),
        suite(rows=[row_count(5, 3)]),
        suite(rows=[not_null("name")]),
        suite(rows=[not_null("loss")]),
        suite(rows=[unique("name")]),
        suite(rows=[in_set("status", ["accepted"])]),
        suite(rows=[in_set("name", ["a", "b"])]),
        suite(rows=[between("loss", 0, 1)]),
        suite(rows=[column_exists("absent")]),
        suite(rows=[not_null("absent")]),
        suite(absent=[row_count()]),
        suite(rows=[share("failed_share", FAILED, 0.2)]),
        suite(rows=[unexpected_rows("nameless", "name is null")]),
        suite(rows=[duplicates("name", 0.3)]),
        suite(rows=[measure("names", "count(distinct name)", 3)]),
        suite(rows=[measure("wrong", "no_such_function(name)", 0)]),
        suite(rows=[Expectation("ExpectNothingInParticular")]),
    ],
    ids=lambda declared: f"{declared[-1].type}-{declared[-1].kwargs}",
)
def test_what_does_not_hold_or_cannot_be_evaluated_is_found(declared):
    assert len(broken(declared)) == 1


def test_what_cannot_be_evaluated_leaves_the_other_expectations_alone():
    declared = suite(rows=[measure("wrong", "no_such_function(name)", 0), row_count(4, 4)])
    wrong, count = evaluate({"rows": TABLE}, declared).results
    assert "no_such_function" in wrong.observed
    assert count.holds and count.observed == "4"


def test_a_table_that_great_expectations_cannot_take_fails_alone():
    wide = pl.DataFrame({"n": [1]}, schema={"n": pl.Int128})  # pandas has no such type
    declared = suite(wide=[not_null("n")], rows=[row_count(4, 4)])
    not_taken, count = evaluate({"wide": wide, "rows": TABLE}, declared).results
    assert not not_taken.holds and "ArrowInvalid" in not_taken.observed
    assert count.holds


@pytest.mark.parametrize(
    "declared",
    [
        share("failed_share", FAILED, 1),
        duplicates("name", 1),
        measure("mean_loss", "avg(loss)", 0),
    ],
    ids=["share", "duplicates", "mean"],
)
def test_an_empty_table_has_nothing_to_measure_and_fails(declared):
    assert "nothing to measure" in broken(suite(rows=[declared]), EMPTY)[0]


def test_an_empty_table_has_no_unexpected_rows():
    assert not broken(suite(rows=[unexpected_rows("failed", FAILED)]), EMPTY)


def test_nullable_column_lets_null_pass_but_no_value_outside():
    declared = suite(rows=[between("loss", 0, 0.25, nullable=True)])
    assert "1 of 4 rows fail" in broken(declared)[0]
    assert not broken(declared, TABLE.head(3))


def test_evidence_holds_expectation_observed_and_at_most_ten_rows():
    table = pl.DataFrame({"id": range(30), "text": ["x" * 500] * 30, "picture": [b"png"] * 30})
    gate = evaluate({"rows": table}, suite(rows=[between("id", 0, 9)]))
    (result,) = gate.broken
    assert not gate.passed
    assert result.expected == "at least 0 and at most 9"
    assert result.observed.startswith("20 of 30 rows fail")
    assert [row["id"] for row in result.rows] == [str(n) for n in range(10, 20)]
    assert len(result.rows[0]["text"]) == 200
    assert result.rows[0]["picture"] == "3 bytes"
    assert "FAILED" in gate.markdown()
    assert GateResult.from_json(gate.as_json()) == gate


def test_rows_that_meet_a_condition_are_its_evidence():
    declared = suite(
        rows=[share("failed_share", FAILED, 0.2), unexpected_rows("nameless", "name is null")]
    )
    failed, nameless = evaluate({"rows": TABLE}, declared).results
    assert failed.observed == "0.25 (1 of 4 rows)"
    assert failed.rows == [{"name": "b", "loss": "0.2", "status": "failed", "tags": "[]"}]
    assert nameless.observed == "1 of 4 rows"
    assert [row["status"] for row in nameless.rows] == ["accepted"]
    assert "number of rows where name is null, at most 0" in str(nameless)


def test_an_expectation_that_does_not_block_lets_the_version_pass_with_a_warning():
    gate = evaluate({"rows": TABLE}, suite(rows=[between("loss", 5, blocking=False)])[1:])
    assert gate.passed
    assert len(gate.broken) == 1
    assert "warning" in gate.markdown()


def test_evidence_of_an_earlier_edition_is_read():
    old = {
        "table": "rows",
        "expectation": "expect_table_row_count_to_be_between",
        "column": "",
        "asked": "min_value 5",
        "observed": "4",
        "holds": False,
        "blocking": True,
        "rows": [],
    }
    (result,) = GateResult.from_json([old]).broken
    assert (result.expected, result.observed, result.docs_page) == ("min_value 5", "4", None)


def test_thresholds_come_from_the_settings_in_arguments_and_in_sql():
    settings = load_settings("tiny")
    declared = measure("n", "count(*) + ${gates.min_prompts}", "${gates.min_prompts}")
    (resolved,) = resolve([declared], settings)
    assert resolved.kwargs["min_value"] == settings.gates.min_prompts
    assert resolved.kwargs["sql"] == f"count(*) + {settings.gates.min_prompts}"


def test_text_of_an_option_is_there_only_where_the_option_is():
    tiny = load_settings("tiny")
    declared = measure("n", "case 1${gates.min_prompts? when 2}${models.proposer? when 3} end")
    (resolved,) = resolve([declared], tiny)
    assert resolved.kwargs["sql"] == "case 1 when 2 end"
    with pytest.raises(HoiError, match="no_such"):
        resolve([measure("n", "1${models.no_such? when 2}")], tiny)


def test_an_unknown_threshold_is_named():
    with pytest.raises(HoiError, match="no_such"):
        resolve([row_count("${gates.no_such}")], load_settings("tiny"))


def test_declarations_become_a_great_expectations_suite():
    import great_expectations as gx

    declared = suite(rows=[row_count(1), unique("name"), measure("n", "count(*)", blocking=False)])
    built = build_suite("candidate_images.rows", declared)
    assert isinstance(built, gx.ExpectationSuite)
    assert built.name == "candidate_images.rows"
    assert isinstance(built.expectations[0], gx.expectations.ExpectTableRowCountToBeBetween)
    assert [e.severity for e in built.expectations] == ["critical", "critical", "warning"]


def test_a_declaration_that_great_expectations_does_not_know_is_named():
    with pytest.raises(HoiError, match="ExpectNothing"):
        build_suite("a.rows", [Expectation("ExpectNothing", table="rows")])
    with pytest.raises(HoiError, match=r"ExpectTableRowCountToBeBetween on table 'rows'"):
        build_suite("a.rows", suite(rows=[row_count(5, 2)]))


# --- declared tables ----------------------------------------------------------------------------

RUNS = Table(
    "rows",
    "one run",
    (
        Column("name", pl.String, "its name"),
        Column("loss", pl.Float64, "of the last step"),
        Column("tags", pl.List(pl.String), "free words", nullable=True),
    ),
    key=("name",),
)
GOOD = RUNS.frame(
    [{"name": "a", "loss": 0.1, "tags": None}, {"name": "b", "loss": 0.2, "tags": []}]
)


def test_a_table_as_declared_passes():
    assert not broken(schema_expectations(RUNS), GOOD)
    assert not broken(schema_expectations(RUNS), GOOD.clear())


@pytest.mark.parametrize(
    ("table", "named"),
    [
        (GOOD.select("loss", "name", "tags"), "ordered_list"),
        (GOOD.with_columns(extra=1), "ordered_list"),
        (GOOD.with_columns(pl.col("loss").cast(pl.Float32)), "loss is Float32, not Float64"),
        (GOOD.with_columns(loss=math.nan), "null in any of name, loss"),
        (GOOD.with_columns(name=None).cast({"name": pl.String}), "null in any of name, loss"),
        (GOOD.with_columns(name=pl.lit("a")), "to_be_unique"),
    ],
    ids=["order", "extra column", "type", "nan", "null", "key"],
)
def test_a_table_not_as_declared_is_found(table, named):
    assert any(named in each for each in broken(schema_expectations(RUNS), table))


def test_a_suite_and_its_tables_are_merged_without_repeats():
    own: Suite = suite(rows=[unique("name"), row_count(1)])
    merged = with_schemas([RUNS], own)
    assert len(merged) == len(schema_expectations(RUNS)) + 1
    assert merged[-1] == own[-1]
