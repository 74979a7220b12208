"""Expectations as plain data, and short constructors for them. Nothing here is evaluated.

Constructors have Great Expectations' names without `expect_…_to_be_`: `not_null("prompt")` declares
an `ExpectColumnValuesToNotBeNull`. `validation.py` turns declarations into a real
`great_expectations.ExpectationSuite`; importing that library takes seconds, so declarations, which
stand beside the assets, do without it.

    CANDIDATES = suite(
        rows=[
            row_count(1),
            unique("image_id"),
            between("width", "${sampling.width}", "${sampling.width}"),
            share("failed_share", "status = 'failed'", "${gates.max_failed_share}"),
        ],
        summary=[row_count(1, 1)],
    )

A string `"${section.field}"` stands for a setting, which `resolve` replaces; `"${partition}"` for
the partition's key, which `for_partition` replaces. `"${section.field? text}"` stands for the text
where the setting is not null, else for nothing: without an option its gate stays the same.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Union

import polars as pl

from hoi_assets.errors import HoiError
from hoi_assets.settings import Settings
from hoi_assets.store.tables import Column, Table

PARTITION = "${partition}"
_REFERENCE = re.compile(r"\$\{((?!partition\})[a-z0-9_.]+)\}")
_OPTIONAL = re.compile(r"\$\{([a-z0-9_.]+)\?([^}]*)\}")

Number = int | float | str  # a string is a reference into the settings: "${gates.min_prompts}"


@dataclass(frozen=True)
class Expectation:
    """One Great Expectations expectation on one table.

    Args:
        type: name of the class, e.g. `ExpectColumnValuesToNotBeNull`: one of
            `great_expectations.expectations`, or of `gx_plugins.py`.
        kwargs: its arguments; `"${section.field}"` inside a string stands for the setting.
        blocking: False lets the version pass and shows a warning (severity `warning`, not
            `critical`).
        table: name of the Parquet file without its ending; `suite` fills it in.
    """

    type: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    blocking: bool = True
    table: str = ""

    def as_json(self) -> dict[str, Any]:
        """The declaration as JSON-able data, for digests."""
        return {
            "table": self.table,
            "type": self.type,
            "kwargs": dict(self.kwargs),
            "blocking": self.blocking,
        }


Suite = tuple[Expectation, ...]
Part = Union[Expectation, Iterable["Part"]]  # noqa: UP007  (a forward reference)


def suite(**tables: Iterable[Part]) -> Suite:
    """The expectations of one asset, by table; exact repeats are dropped.

    Example:
        >>> [e.table for e in suite(rows=[row_count(1), not_null("id")], log=[row_count()])]
        ['rows', 'rows', 'log']
    """
    found: list[Expectation] = []
    for table, parts in tables.items():
        for each in _flat(parts):
            placed = replace(each, table=table)
            if placed not in found:
                found.append(placed)
    return tuple(found)


def with_schemas(tables: Iterable[Table], declared: Suite) -> Suite:
    """What the declared tables promise, then the suite; exact repeats are dropped."""
    found: list[Expectation] = []
    for each in (*(e for table in tables for e in schema_expectations(table)), *declared):
        if each not in found:
            found.append(each)
    return tuple(found)


def schema_expectations(table: Table) -> Suite:
    """Columns in order, their Polars types, no null (or NaN) where not nullable, a unique key."""
    parts: list[Part] = [
        Expectation("ExpectTableColumnsToMatchOrderedList", {"column_list": list(table.schema)}),
        Expectation(
            "ExpectColumnTypesToMatch",
            {"types": {name: str(dtype) for name, dtype in table.schema.items()}},
        ),
    ]
    required = [column for column in table.columns if not column.nullable]
    if required:
        # One expectation for all columns: one for each takes 10 ms, and tables have dozens.
        names = ", ".join(column.name for column in required)
        condition = " or ".join(_is_null(column) for column in required)
        parts.append(
            unexpected_rows("required_columns_null", condition, f"rows with null in any of {names}")
        )
    if table.key:
        parts.append(unique(*table.key))
    return suite(**{table.name: parts})


def row_count(min_value: Number = 1, max_value: Number | None = None) -> Expectation:
    """The table's number of rows lies within bounds (both included)."""
    return Expectation("ExpectTableRowCountToBeBetween", _bounds(min_value, max_value))


def column_exists(*columns: str) -> Suite:
    """The columns exist."""
    return tuple(Expectation("ExpectColumnToExist", {"column": name}) for name in columns)


def not_null(*columns: str) -> Suite:
    """No value is null; NaN counts as null."""
    return tuple(Expectation("ExpectColumnValuesToNotBeNull", {"column": name}) for name in columns)


def unique(*columns: str) -> Expectation:
    """No two rows agree in all the columns."""
    if len(columns) == 1:
        return Expectation("ExpectColumnValuesToBeUnique", {"column": columns[0]})
    return Expectation("ExpectCompoundColumnsToBeUnique", {"column_list": list(columns)})


def in_set(column: str, values: Sequence[str]) -> Suite:
    """No value is null, and each is one of `values`."""
    kwargs = {"column": column, "value_set": list(values)}
    return (*not_null(column), Expectation("ExpectColumnValuesToBeInSet", kwargs))


def between(
    column: str,
    min_value: Number | None = None,
    max_value: Number | None = None,
    *,
    nullable: bool = False,
    blocking: bool = True,
) -> Suite:
    """Every value lies within bounds (both included); without `nullable`, none is null or NaN."""
    kwargs = {"column": column, **_bounds(min_value, max_value)}
    found = Expectation("ExpectColumnValuesToBeBetween", kwargs, blocking)
    return (found,) if nullable else (*not_null(column), found)


def measure(
    name: str,
    sql: str,
    min_value: Number | None = None,
    max_value: Number | None = None,
    *,
    blocking: bool = True,
) -> Expectation:
    """One number computed over the table lies within bounds, e.g. `count(distinct category)`.

    Null or NaN (an average over no rows) is outside them.

    Args:
        name: what the number is, in snake case.
        sql: Polars SQL expression over the table; may hold references to settings.
    """
    kwargs = {"name": name, "sql": sql, **_bounds(min_value, max_value)}
    return Expectation("ExpectMeasureToBeBetween", kwargs, blocking)


def share(name: str, where: str, at_most: Number, *, blocking: bool = True) -> Expectation:
    """At most this share (0..1) of the rows meets a SQL condition; an empty table fails.

    Where it fails, rows that meet the condition are the evidence.
    """
    kwargs = {
        "name": name,
        "quantity": "share of rows where $where",
        "sql": f"avg(case when {where} then 1.0 else 0.0 end)",
        "where": where,
        "max_value": at_most,
    }
    return Expectation("ExpectMeasureToBeBetween", kwargs, blocking)


def unexpected_rows(
    name: str, where: str, meaning: str = "rows where $where", *, blocking: bool = True
) -> Expectation:
    """No row meets a SQL condition; rows that do are the evidence. An empty table passes.

    Args:
        name: what is wrong with such rows, in snake case.
        where: Polars SQL condition; may hold references to settings.
        meaning: what such rows are, for people.
    """
    kwargs = {
        "name": name,
        "quantity": f"number of {meaning}",
        "sql": f"count(case when {where} then 1 end)",
        "where": where,
        "max_value": 0,
    }
    return Expectation("ExpectMeasureToBeBetween", kwargs, blocking)


def duplicates(column: str, at_most: Number, *, blocking: bool = True) -> Expectation:
    """At most this share (0..1) of the non-null values repeats an earlier one.

    A column without values fails.
    """
    kwargs = {
        "name": f"repeated_{column}_share",
        "quantity": f"share of {column} values that repeat an earlier one",
        "sql": f"1.0 - cast(count(distinct {column}) as double) / count({column})",
        "max_value": at_most,
    }
    return Expectation("ExpectMeasureToBeBetween", kwargs, blocking)


def resolve(expectations: Iterable[Expectation], settings: Settings) -> Suite:
    """The expectations with every `${…}` replaced by the setting it names.

    Raises:
        HoiError: a reference to a setting that does not exist.
    """
    return tuple(
        replace(each, kwargs={name: _resolved(v, settings) for name, v in each.kwargs.items()})
        for each in expectations
    )


def for_partition(expectations: Iterable[Expectation], partition: str | None) -> Suite:
    """The expectations with every `${partition}` replaced by the key."""
    key = partition or ""
    return tuple(
        replace(
            each,
            kwargs={
                name: value.replace(PARTITION, key) if isinstance(value, str) else value
                for name, value in each.kwargs.items()
            },
        )
        for each in expectations
    )


def _flat(parts: Iterable[Part]) -> Iterable[Expectation]:
    for part in parts:
        if isinstance(part, Expectation):
            yield part
        else:
            yield from _flat(part)


def _is_null(column: Column) -> str:
    condition = f'"{column.name}" is null'
    is_float = column.dtype in (pl.Float32, pl.Float64)
    return f"{condition} or \"{column.name}\" = cast('nan' as double)" if is_float else condition


def _resolved(value: Any, settings: Settings) -> Any:
    """A string that is one reference becomes the setting itself; inside longer text, its text."""
    if not isinstance(value, str):
        return value
    value = _OPTIONAL.sub(
        lambda match: "" if _setting(match, settings) is None else match.group(2), value
    )
    whole = _REFERENCE.fullmatch(value)
    if whole is not None:
        return _setting(whole, settings)
    return _REFERENCE.sub(lambda match: str(_setting(match, settings)), value)


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


def _bounds(min_value: Number | None, max_value: Number | None) -> dict[str, Number]:
    named = {"min_value": min_value, "max_value": max_value}
    return {name: value for name, value in named.items() if value is not None}
