"""Asks a suite of published-to-be tables; the only module that imports Great Expectations."""

import contextlib
import io
import logging
import math
import os
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from hoi_assets.publishing.expectations import Rule
from hoi_assets.publishing.metadata import table_markdown

if TYPE_CHECKING:
    import polars as pl

FAILING_ROWS_CAP = 10
TEXT_CAP = 200  # characters of a failing row's field


@dataclass(frozen=True)
class Finding:
    """What one rule found.

    Attributes:
        asked: the expectation's bounds or values, as text.
        observed: what was seen instead, or as asked.
        rows: up to ten rows that fail.
    """

    table: str
    expectation: str
    column: str
    asked: str
    observed: str
    holds: bool
    blocking: bool = True
    rows: list[dict[str, Any]] = field(default_factory=list)

    def __str__(self) -> str:
        place = f"{self.table}.{self.column}" if self.column else self.table
        return f"{self.expectation} on {place} ({self.asked}): observed {self.observed}"


@dataclass(frozen=True)
class Verdict:
    """All findings of one suite on one version."""

    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """No blocking rule is broken."""
        return all(f.holds for f in self.findings if f.blocking)

    @property
    def broken(self) -> list[Finding]:
        """Findings that do not hold, blocking ones first."""
        return sorted((f for f in self.findings if not f.holds), key=lambda f: not f.blocking)

    @property
    def summary(self) -> str:
        """One line: what is broken, or how many hold."""
        if not self.broken:
            return f"{len(self.findings)} of {len(self.findings)} expectations hold"
        rest = len(self.broken) - 1
        return str(self.broken[0]) + (f"; and {rest} more" if rest else "")

    def markdown(self) -> str:
        """All findings as a table, broken ones first, then their failing rows."""
        listed = sorted(self.findings, key=lambda f: f.holds)
        table = [
            {
                "": "holds" if f.holds else ("BROKEN" if f.blocking else "warning"),
                "expectation": f.expectation,
                "table": f.table,
                "column": f.column,
                "asked": f.asked,
                "observed": f.observed,
            }
            for f in listed
        ]
        parts = [table_markdown(table, cap=len(table))]
        for finding in listed:
            if not finding.holds and finding.rows:
                parts += [f"**{finding}**", table_markdown(finding.rows, FAILING_ROWS_CAP)]
        return "\n\n".join(parts)

    def as_json(self) -> list[dict[str, Any]]:
        """JSON-able; `from_json` reads it."""
        return [asdict(finding) for finding in self.findings]

    @classmethod
    def from_json(cls, findings: Sequence[Mapping[str, Any]]) -> "Verdict":
        return cls(tuple(Finding(**finding) for finding in findings))

    @classmethod
    def of_crash(cls, error: Exception) -> "Verdict":
        """The verdict where the gate itself broke: a failed check with the error as evidence."""
        place = traceback.extract_tb(error.__traceback__)[-1:] or []
        where = "; ".join(f"{p.filename}:{p.lineno}" for p in place)
        observed = f"{type(error).__name__}: {error}"[:1000]
        return cls((Finding("", "the gate runs", "", f"no exception at {where}", observed, False),))


def evaluate(tables: Mapping[str, "pl.DataFrame"], rules: Sequence[Rule]) -> Verdict:
    """Ask every rule (with its references resolved) of its table.

    A missing table or column, and an exception inside one rule, are findings that do not hold.
    """
    findings = []
    for rule in rules:
        try:
            findings.append(_ask(tables, rule))
        except Exception as error:
            findings.append(_finding(rule, f"{type(error).__name__}: {error}"[:1000], holds=False))
    return Verdict(tuple(findings))


def _ask(tables: Mapping[str, "pl.DataFrame"], rule: Rule) -> Finding:
    if rule.table not in tables:
        there = ", ".join(sorted(tables)) or "none"
        return _finding(rule, f"no such table; there are: {there}", holds=False)
    table = tables[rule.table]
    if rule.measure is not None:
        name = rule.kwargs["column"]
        table = table.sql(f"select cast({rule.measure} as double) as {name} from self")
        value = table.item()
        # Great Expectations passes over null, and so would pass an average over no rows.
        if value is None or math.isnan(value):
            return _finding(rule, "nothing to measure", holds=False)
    wanted = _columns(rule)
    absent = [name for name in wanted if name not in table.columns]
    if absent:
        there = ", ".join(table.columns)
        return _finding(rule, f"no column {', '.join(absent)}; there are: {there}", holds=False)
    # Only what is asked of: pandas has no good word for lists and pictures.
    asked = table.select(wanted) if wanted else table.with_row_index("row").select("row")
    result = _validate(asked, rule)
    failing = result["result"].get("unexpected_index_list") or []
    shown = table[failing[:FAILING_ROWS_CAP]].to_dicts() if failing and not rule.measure else []
    return _finding(
        rule,
        _observed(result, asked, rule),
        holds=bool(result["success"]),
        rows=[{k: _short(v) for k, v in row.items()} for row in shown],
    )


def _columns(rule: Rule) -> list[str]:
    if "column_list" in rule.kwargs:
        return list(rule.kwargs["column_list"])
    names = (rule.kwargs.get(k) for k in ("column", "column_A", "column_B"))
    return [name for name in names if name is not None]


def _finding(rule: Rule, observed: str, holds: bool, rows: Sequence[dict] = ()) -> Finding:
    asked = {k: v for k, v in rule.kwargs.items() if k not in ("column", "column_list")}
    return Finding(
        table=rule.table,
        expectation=rule.expectation,
        column=", ".join(_columns(rule)),
        asked=", ".join(f"{k} {_short(v)}" for k, v in asked.items()),
        observed=observed,
        holds=holds,
        blocking=rule.blocking,
        rows=list(rows),
    )


def _observed(result: Mapping[str, Any], table: "pl.DataFrame", rule: Rule) -> str:
    if rule.measure is not None:
        return _text(table.item())
    found = result["result"]
    if "unexpected_count" in found:
        of, bad = found["element_count"], found["unexpected_count"]
        examples = ", ".join(_short(v) for v in (found.get("partial_unexpected_list") or [])[:3])
        return f"{bad} of {of} rows fail" + (f", e.g. {examples}" if bad and examples else "")
    return _text(found.get("observed_value", ""))


def _text(value: Any) -> str:
    if isinstance(value, float):
        return "nan" if math.isnan(value) else f"{float(value):.4g}"
    return str(value)


def _short(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return str(value)
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    text = str(value)
    return text if len(text) <= TEXT_CAP else text[: TEXT_CAP - 1] + "…"


def _validate(table: "pl.DataFrame", rule: Rule) -> dict[str, Any]:
    gx, batches = _great_expectations()
    name = "".join(part.capitalize() for part in rule.expectation.split("_"))
    expectation = getattr(gx.expectations, name)(**rule.kwargs)
    with _quiet():
        batch = batches.get_batch({"dataframe": table.to_pandas()})
        result = batch.validate(expectation, result_format={"result_format": "COMPLETE"})
    answer = result.to_json_dict()
    info = answer.get("exception_info") or {}
    raised = [info] if "raised_exception" in info else list(info.values())
    for one in raised:
        if isinstance(one, Mapping) and one.get("raised_exception"):
            raise RuntimeError(str(one.get("exception_message")))
    return answer


@cache
def _great_expectations() -> tuple[Any, Any]:
    """The library and one in-memory data source; the import takes seconds, so once a process."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    with _quiet():
        import great_expectations as gx
        from great_expectations.data_context.types.base import ProgressBarsConfig

        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = ProgressBarsConfig(globally=False)
        source = context.data_sources.add_pandas("staging")
        asset = source.add_dataframe_asset("table")
        return gx, asset.add_batch_definition_whole_dataframe("whole")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
