"""Rules asked of tables by Great Expectations: what holds, what does not, and the evidence."""

import math

import polars as pl
import pytest

from hoi_assets.errors import HoiError
from hoi_assets.publishing.expectations import (
    Rule,
    between,
    columns,
    duplicates,
    measured,
    not_null,
    one_of,
    resolve,
    rows,
    share,
    unique,
)
from hoi_assets.publishing.validation import Verdict, evaluate
from hoi_assets.settings import load_settings

TABLE = pl.DataFrame(
    {
        "name": ["a", "b", "b", None],
        "loss": [0.1, 0.2, math.nan, 0.3],
        "status": ["accepted", "failed", "accepted", "accepted"],
        "tags": [["x"], [], ["y"], ["z"]],
    }
)
EMPTY = TABLE.clear()


def broken(rules: list[Rule], table: pl.DataFrame = TABLE) -> list[str]:
    return [str(finding) for finding in evaluate({"rows": table}, rules).broken]


def test_rules_hold_where_they_should():
    table = TABLE.head(2)
    assert not broken(
        [
            *rows("rows", 2, 2),
            *not_null("rows", "name", "loss"),
            *unique("rows", "name"),
            *unique("rows", "name", "status"),
            *one_of("rows", "status", ["accepted", "failed"]),
            *between("rows", "loss", 0.1, 0.2),
            *columns("rows", "tags"),
            *share("rows", "failed_share", "status = 'failed'", 0.5),
            *duplicates("rows", "name", 0),
            *measured("rows", "names", "count(distinct name)", 2, 2),
        ],
        table,
    )


@pytest.mark.parametrize(
    "rules",
    [
        rows("rows", 5),
        rows("rows", 0, 3),
        not_null("rows", "name"),
        not_null("rows", "loss"),
        unique("rows", "name"),
        one_of("rows", "status", ["accepted"]),
        one_of("rows", "name", ["a", "b"]),
        between("rows", "loss", 0, 1),
        columns("rows", "absent"),
        not_null("rows", "absent"),
        rows("absent"),
        share("rows", "failed_share", "status = 'failed'", 0.2),
        duplicates("rows", "name", 0.3),
        measured("rows", "names", "count(distinct name)", 3),
        measured("rows", "wrong", "no_such_function(name)", 0),
    ],
    ids=lambda rules: f"{rules[-1].expectation}-{rules[-1].kwargs}",
)
def test_a_broken_rule_is_found(rules):
    assert broken(rules)


@pytest.mark.parametrize(
    "rules",
    [
        share("rows", "failed_share", "status = 'failed'", 1),
        duplicates("rows", "name", 1),
        measured("rows", "mean_loss", "avg(loss)", 0),
    ],
    ids=["share", "duplicates", "mean"],
)
def test_an_empty_table_has_nothing_to_measure_and_fails(rules):
    assert "nothing to measure" in broken(rules, EMPTY)[0]


def test_nullable_column_lets_null_pass_but_no_value_outside():
    rules = between("rows", "loss", 0, 0.25, nullable=True)
    assert "1 of 4 rows fail" in broken(rules)[0]
    assert not broken(rules, TABLE.head(3))


def test_evidence_holds_expectation_observed_and_at_most_ten_rows():
    table = pl.DataFrame({"id": range(30), "text": ["x" * 500] * 30, "picture": [b"png"] * 30})
    verdict = evaluate({"rows": table}, between("rows", "id", 0, 9))
    (finding,) = verdict.broken
    assert not verdict.passed
    assert finding.observed.startswith("20 of 30 rows fail")
    assert [row["id"] for row in finding.rows] == [str(n) for n in range(10, 20)]
    assert len(finding.rows[0]["text"]) == 200
    assert finding.rows[0]["picture"] == "3 bytes"
    assert "BROKEN" in verdict.markdown()
    assert Verdict.from_json(verdict.as_json()) == verdict


def test_a_rule_that_does_not_block_lets_the_version_pass_with_a_warning():
    verdict = evaluate({"rows": TABLE}, between("rows", "loss", 5, blocking=False)[1:])
    assert verdict.passed
    assert len(verdict.broken) == 1
    assert "warning" in verdict.markdown()


def test_thresholds_come_from_the_settings_in_arguments_and_in_sql():
    settings = load_settings("tiny")
    (rule,) = resolve(
        measured("rows", "n", "count(*) + ${gates.min_prompts}", low="${gates.min_prompts}"),
        settings,
    )
    assert rule.kwargs["min_value"] == settings.gates.min_prompts
    assert rule.measure == f"count(*) + {settings.gates.min_prompts}"


def test_an_unknown_threshold_is_named():
    with pytest.raises(HoiError, match="no_such"):
        resolve(rows("rows", "${gates.no_such}"), load_settings("tiny"))
