"""Rules of a gate as plain data, and short ways to write them. Nothing here evaluates anything."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hoi_assets.errors import HoiError
from hoi_assets.settings import Settings

_REFERENCE = re.compile(r"\$\{([a-z_.]+)\}")

Number = int | float | str  # a string is a reference into the settings: "${gates.min_prompts}"


@dataclass(frozen=True)
class Rule:
    """One Great Expectations expectation on one table.

    Args:
        table: name of the Parquet file without its ending.
        expectation: name in snake case, e.g. `expect_column_values_to_not_be_null`.
        kwargs: its arguments; `"${section.field}"` is replaced by the setting when evaluated.
        measure: SQL expression over the table (`avg(case when …)`); the expectation is then asked
            of the one-row table holding its value, under the name `kwargs["column"]`. May hold
            references too.
        blocking: False lets the version pass and shows a warning.
    """

    table: str
    expectation: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    measure: str | None = None
    blocking: bool = True

    def as_json(self) -> dict[str, Any]:
        """The rule as JSON-able data, for digests."""
        return {
            "table": self.table,
            "expectation": self.expectation,
            "kwargs": dict(self.kwargs),
            "measure": self.measure,
            "blocking": self.blocking,
        }


def resolve(rules: Sequence[Rule], settings: Settings) -> list[Rule]:
    """The rules with every `${…}` replaced by the setting it names.

    Raises:
        HoiError: a reference to a setting that does not exist.
    """
    return [
        Rule(
            rule.table,
            rule.expectation,
            {name: _resolved(value, settings) for name, value in rule.kwargs.items()},
            rule.measure
            and _REFERENCE.sub(lambda found: str(_setting(found, settings)), rule.measure),
            rule.blocking,
        )
        for rule in rules
    ]


def _resolved(value: Any, settings: Settings) -> Any:
    match = _REFERENCE.fullmatch(value) if isinstance(value, str) else None
    return value if match is None else _setting(match, settings)


def _setting(match: re.Match[str], settings: Settings) -> Any:
    found: Any = settings
    for part in match.group(1).split("."):
        if not hasattr(found, part):
            raise HoiError(
                f"gate threshold {match.group()!r} names no setting",
                "use ${section.field} as in docs/configuration.md",
            )
        found = getattr(found, part)
    return found


def suite(*parts: Sequence[Rule]) -> list[Rule]:
    """One suite from the lists that the functions below give."""
    return [rule for part in parts for rule in part]


def rows(table: str, at_least: Number = 1, at_most: Number | None = None) -> list[Rule]:
    """The table's number of rows lies within bounds (both included)."""
    bounds = _bounds(at_least, at_most)
    return [Rule(table, "expect_table_row_count_to_be_between", bounds)]


def columns(table: str, *names: str) -> list[Rule]:
    """The columns exist."""
    return [Rule(table, "expect_column_to_exist", {"column": name}) for name in names]


def not_null(table: str, *names: str) -> list[Rule]:
    """No value is null; NaN counts as null."""
    return [Rule(table, "expect_column_values_to_not_be_null", {"column": n}) for n in names]


def unique(table: str, *names: str) -> list[Rule]:
    """No two rows agree in all the columns."""
    if len(names) == 1:
        return [Rule(table, "expect_column_values_to_be_unique", {"column": names[0]})]
    return [Rule(table, "expect_compound_columns_to_be_unique", {"column_list": list(names)})]


def one_of(table: str, column: str, values: Sequence[str]) -> list[Rule]:
    """Every value is there and is one of the values."""
    asked = {"column": column, "value_set": list(values)}
    return [
        *not_null(table, column),
        Rule(table, "expect_column_values_to_be_in_set", asked),
    ]


def between(
    table: str,
    column: str,
    low: Number | None = None,
    high: Number | None = None,
    *,
    nullable: bool = False,
    blocking: bool = True,
) -> list[Rule]:
    """Every value lies within bounds; without `nullable` none is null or NaN."""
    asked = {"column": column, **_bounds(low, high)}
    rule = Rule(table, "expect_column_values_to_be_between", asked, None, blocking)
    return [rule] if nullable else [*not_null(table, column), rule]


def measured(
    table: str,
    name: str,
    sql: str,
    low: Number | None = None,
    high: Number | None = None,
    *,
    blocking: bool = True,
) -> list[Rule]:
    """One number computed over the table lies within bounds, e.g. `count(distinct category)`.

    Null or NaN (an average over no rows) is outside them.
    """
    bounds = {"column": name, **_bounds(low, high)}
    return [Rule(table, "expect_column_values_to_be_between", bounds, sql, blocking)]


def share(table: str, name: str, where: str, at_most: Number, **more: Any) -> list[Rule]:
    """At most this share (0..1) of the rows meets a SQL condition; an empty table fails."""
    sql = f"avg(case when {where} then 1.0 else 0.0 end)"
    return measured(table, name, sql, None, at_most, **more)


def duplicates(table: str, column: str, at_most: Number, **more: Any) -> list[Rule]:
    """At most this share (0..1) of the non-null values repeats an earlier one."""
    sql = f"1.0 - cast(count(distinct {column}) as double) / count({column})"
    return measured(table, f"repeated_{column}_share", sql, None, at_most, **more)


def _bounds(low: Number | None, high: Number | None) -> dict[str, Number]:
    named = {"min_value": low, "max_value": high}
    return {name: value for name, value in named.items() if value is not None}
