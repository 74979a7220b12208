"""What a gate found: one result per expectation, as evidence for people and as JSON."""

import math
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from hoi_assets.publishing.metadata import as_text, table_markdown

FAILING_ROWS_CAP = 10
TEXT_CAP = 200  # characters of a failing row's field
ERROR_CAP = 1000  # characters of an exception's message
# Fields by their names in older evidence files.
_OLD_FIELDS = {"asked": "expected"}


@dataclass(frozen=True)
class ExpectationResult:
    """What one expectation found.

    Attributes:
        expectation: its type in snake case, e.g. `expect_column_values_to_not_be_null`.
        column: the column or columns it is about, or the name of what it measures.
        expected: its bounds or values, as text.
        observed: what was seen.
        blocking: False for a warning.
        rows: up to ten rows that fail.
        docs_page: the validation's Data Docs page, relative to the home.
    """

    table: str
    expectation: str
    column: str
    expected: str
    observed: str
    holds: bool
    blocking: bool = True
    rows: list[dict[str, Any]] = field(default_factory=list)
    docs_page: str | None = None

    def __str__(self) -> str:
        place = f"{self.table}.{self.column}" if self.column else self.table
        expected = f" ({self.expected})" if self.expected else ""
        return f"{self.expectation} on {place}{expected}: observed {self.observed}"


@dataclass(frozen=True)
class GateResult:
    """All results of one version's suites."""

    results: tuple[ExpectationResult, ...]

    @property
    def passed(self) -> bool:
        """Every blocking expectation holds."""
        return all(r.holds for r in self.results if r.blocking)

    @property
    def broken(self) -> list[ExpectationResult]:
        """Results that do not hold, blocking ones first."""
        return sorted((r for r in self.results if not r.holds), key=lambda r: not r.blocking)

    @property
    def docs_page(self) -> str | None:
        """Data Docs page (relative to the home) of the first broken result, or of the first table.

        None where no page was written: outside a home, or for a table that is missing.
        """
        first = (self.broken or list(self.results))[:1]
        return first[0].docs_page if first else None

    @property
    def summary(self) -> str:
        """One line: what is broken, or how many hold."""
        if not self.broken:
            return f"{len(self.results)} of {len(self.results)} expectations hold"
        rest = len(self.broken) - 1
        return str(self.broken[0]) + (f"; and {rest} more" if rest else "")

    def markdown(self) -> str:
        """All results as a table, broken ones first, then their failing rows."""
        listed = sorted(self.results, key=lambda r: r.holds)
        table = [
            {
                "": "holds" if r.holds else ("FAILED" if r.blocking else "warning"),
                "expectation": r.expectation,
                "table": r.table,
                "column": r.column,
                "expected": r.expected,
                "observed": r.observed,
            }
            for r in listed
        ]
        parts = [table_markdown(table, cap=len(table))]
        for result in listed:
            if not result.holds and result.rows:
                parts += [
                    f"**{as_text(str(result))}**",
                    table_markdown(result.rows, FAILING_ROWS_CAP),
                ]
        return "\n\n".join(parts)

    def as_json(self) -> list[dict[str, Any]]:
        """JSON-able; `from_json` reads it."""
        return [asdict(result) for result in self.results]

    @classmethod
    def from_json(cls, results: Sequence[Mapping[str, Any]]) -> "GateResult":
        """Read what `as_json` gave, in this edition or an earlier one."""
        return cls(
            tuple(
                ExpectationResult(**{_OLD_FIELDS.get(name, name): v for name, v in each.items()})
                for each in results
            )
        )

    @classmethod
    def of_crash(cls, error: Exception) -> "GateResult":
        """The result where the gate itself broke: a failed check with the error as evidence."""
        place = traceback.extract_tb(error.__traceback__)[-1:] or []
        where = "; ".join(f"{p.filename}:{p.lineno}" for p in place)
        expected = f"no exception at {where}"
        return cls(
            (ExpectationResult("", "the gate runs", "", expected, error_text(error), False),)
        )


def observed_text(found: Mapping[str, Any]) -> str:
    """The observed value, and for a condition how many rows meet it."""
    value, details = found.get("observed_value", ""), found.get("details") or {}
    if "rows_meeting" not in details:
        return number_text(value)
    rows = f"{details['rows_meeting']} of {details['of']} rows"
    return rows if value == details["rows_meeting"] else f"{number_text(value)} ({rows})"


def quantity_text(kwargs: Mapping[str, Any]) -> str:
    """What an `ExpectMeasureToBeBetween` measures, in words."""
    return str(kwargs.get("quantity") or kwargs["sql"]).replace("$where", kwargs.get("where") or "")


def bounds_text(kwargs: Mapping[str, Any]) -> str:
    """Bounds in words, e.g. `at least 1 and at most 3`."""
    low, high = kwargs.get("min_value"), kwargs.get("max_value")
    if low is not None and low == high:
        return f"exactly {number_text(low)}"
    parts = [] if low is None else [f"at least {number_text(low)}"]
    return " and ".join([*parts, *([] if high is None else [f"at most {number_text(high)}"])])


def number_text(value: Any) -> str:
    """Four significant digits for a fraction, anything else as it is."""
    if isinstance(value, float):
        return "nan" if math.isnan(value) else f"{value:.4g}"
    return str(value)


def short(value: Any) -> str:
    """A row's field as text of at most `TEXT_CAP` characters."""
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    text = str(value)
    return text if len(text) <= TEXT_CAP else text[: TEXT_CAP - 1] + "…"


def error_text(error: Exception) -> str:
    """An exception as `Type: message`, of at most `ERROR_CAP` characters."""
    return f"{type(error).__name__}: {error}"[:ERROR_CAP]
