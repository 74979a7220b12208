"""Runs expectation suites on staged tables: declarations, suite, checkpoint, result, Data Docs.

1. *Declarations* (`expectations.py`) stand beside each asset as plain data; `resolve` puts the
   settings' thresholds in.
2. *Suite.* `build_suite` makes a `great_expectations.ExpectationSuite` of one table's declarations,
   named `<asset>.<table>`. Most are the library's own expectations; a number by SQL and the Polars
   column types are custom ones (`gx_plugins.py`). `blocking=False` becomes severity `warning`.
3. *Checkpoint.* `evaluate` runs one checkpoint per table (a checkpoint gives all its validations
   the same frame), in an ephemeral context that lives for the call. No configuration is on disk, so
   any number of processes may validate on one home.
4. *Result.* A `GateResult`: one `ExpectationResult` per declaration, with what was observed and up
   to ten failing rows. What cannot be evaluated is a result too, and does not hold: a missing table
   or column, an exception, a mean over no rows. The version passes if every blocking one holds.
5. *Data Docs.* Given an `Audit`, the checkpoint's action writes each validation's page below
   `<home>/data_docs` (`data_docs.py` says where); every result names its page.

The library is imported inside functions only: it takes seconds, and loading the definitions must
not wait for it.
"""

import contextlib
import io
import logging
import math
import os
import re
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hoi_assets.errors import HoiError
from hoi_assets.publishing.data_docs import RESULTS, page_path, run_name
from hoi_assets.publishing.expectations import Expectation
from hoi_assets.publishing.metadata import table_markdown
from hoi_assets.store.disk import writing

if TYPE_CHECKING:
    import great_expectations
    import polars as pl

FAILING_ROWS_CAP = 10
TEXT_CAP = 200  # characters of a failing row's field
ERROR_CAP = 1000  # characters of an exception's message
NO_ASSET = "tables"  # what suites are named after outside a home
# Names of the fields in evidence files written before 0.2.
_OLD_FIELDS = {"asked": "expected"}


@dataclass(frozen=True)
class Audit:
    """Which version is validated, and for which home the Data Docs pages are written."""

    home: Path
    asset: str
    partition: str | None = None
    run_id: str | None = None


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
                parts += [f"**{result}**", table_markdown(result.rows, FAILING_ROWS_CAP)]
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
        return cls((ExpectationResult("", "the gate runs", "", expected, _error(error), False),))


def evaluate(
    tables: Mapping[str, "pl.DataFrame"],
    expectations: Sequence[Expectation],
    audit: Audit | None = None,
) -> GateResult:
    """Run every table's expectations (with their references resolved).

    Args:
        tables: by name.
        expectations: of one asset, in the order of the results.
        audit: where given, Data Docs pages are written.

    Raises:
        HoiError: the home's Data Docs cannot be written.
    """
    found: dict[int, ExpectationResult] = {}
    runnable: dict[str, dict[int, Expectation]] = {}
    for number, each in enumerate(expectations):
        if each.table in tables:
            runnable.setdefault(each.table, {})[number] = each
        else:
            there = ", ".join(sorted(tables)) or "none"
            found[number] = _result(each, f"no such table; there are: {there}", holds=False)
    if runnable:
        found.update(_run(tables, runnable, audit))
    return GateResult(tuple(found[number] for number in range(len(expectations))))


def build_suite(
    name: str, expectations: Sequence[Expectation]
) -> "great_expectations.ExpectationSuite":
    """The declarations of one table as a Great Expectations suite, in order.

    Args:
        name: `<asset>.<table>`.
        expectations: with their references resolved.

    Raises:
        HoiError: a declaration whose type or arguments Great Expectations does not know.
    """
    gx = _great_expectations()
    return gx.ExpectationSuite(name=name, expectations=[_build(each) for each in expectations])


def _build(declared: Expectation) -> Any:
    from hoi_assets.publishing import gx_plugins

    gx = _great_expectations()
    made = getattr(gx_plugins, declared.type, None) or getattr(gx.expectations, declared.type, None)
    if made is None:
        raise HoiError(
            f"Great Expectations has no {declared.type!r}",
            "use a constructor of hoi_assets/publishing/expectations.py",
        )
    try:
        return made(**declared.kwargs, severity="critical" if declared.blocking else "warning")
    except ValueError as error:  # pydantic's
        raise HoiError(
            f"{declared.type} on table {declared.table!r}: {_error(error)}",
            "correct the arguments where it is declared, or the settings that it refers to",
        ) from error


def _run(
    tables: Mapping[str, "pl.DataFrame"],
    runnable: Mapping[str, Mapping[int, Expectation]],
    audit: Audit | None,
) -> dict[int, ExpectationResult]:
    """Results by the declaration's number."""
    found: dict[int, ExpectationResult] = {}
    with _quiet():
        context = _context(audit)
        for table, declared in runnable.items():
            built = {}
            for number, each in declared.items():
                try:
                    built[number] = _build(each)
                except HoiError as error:
                    found[number] = _result(each, error.what, holds=False)
            if not built:
                continue
            ids, results, page = _check(context, table, tables[table], list(built.values()), audit)
            for place, number in zip(ids, built, strict=True):
                result = _interpret(declared[number], tables[table], results[place])
                found[number] = replace(result, docs_page=page)
    return found


def _check(
    context: Any, name: str, table: "pl.DataFrame", expectations: list[Any], audit: Audit | None
) -> tuple[list[str], dict[str, Mapping[str, Any]], str | None]:
    """Run one table's checkpoint.

    Returns:
        The expectations' ids in order, results as JSON by id, and the Data Docs page.
    """
    gx = _great_expectations()
    asset = audit.asset if audit else NO_ASSET
    suite = context.suites.add(
        gx.ExpectationSuite(name=f"{asset}.{name}", expectations=expectations)
    )
    batch = context.data_sources.get(asset).add_dataframe_asset(name)
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(
            name=suite.name, data=batch.add_batch_definition_whole_dataframe("whole"), suite=suite
        )
    )
    checkpoint = gx.Checkpoint(
        name=suite.name,
        validation_definitions=[definition],
        actions=[gx.checkpoint.UpdateDataDocsAction(name="data_docs")] if audit else [],
        result_format={
            "result_format": "SUMMARY",
            "partial_unexpected_count": FAILING_ROWS_CAP,
        },
    )
    frame = table.to_pandas()
    frame.attrs["polars"] = table
    outcome = checkpoint.run(
        batch_parameters={"dataframe": frame},
        run_id=gx.RunIdentifier(
            run_name=run_name(audit.partition, audit.run_id) if audit else None,
            run_time=datetime.now(UTC),
        ),
    )
    ((key, validation),) = outcome.run_results.items()
    results = {r.expectation_config.id: r.to_json_dict() for r in validation.results}
    page = page_path(key.to_tuple())
    written = audit is not None and (audit.home / page).is_file()
    return [e.id for e in suite.expectations], results, page.as_posix() if written else None


def _interpret(
    declared: Expectation, table: "pl.DataFrame", answer: Mapping[str, Any]
) -> ExpectationResult:
    absent = [name for name in _columns(declared) if name not in table.columns]
    if absent:
        there = ", ".join(table.columns)
        return _result(declared, f"no column {', '.join(absent)}; there are: {there}", holds=False)
    info = answer.get("exception_info") or {}
    for each in [info] if "raised_exception" in info else list(info.values()):
        if isinstance(each, Mapping) and each.get("raised_exception"):
            return _result(declared, str(each.get("exception_message"))[:ERROR_CAP], holds=False)
    found = answer["result"]
    failing = found.get("partial_unexpected_index_list") or []
    rows = table[failing[:FAILING_ROWS_CAP]].to_dicts() if failing else []
    rows = [{name: short(value) for name, value in row.items()} for row in rows]
    details = found.get("details") or {}
    shown = details.get("rows") or []  # of a measure: the rows that meet its condition
    return _result(
        declared,
        _observed(found),
        holds=bool(answer["success"]),
        rows=rows or [dict(zip(details["columns"], row, strict=True)) for row in shown],
    )


def _columns(declared: Expectation) -> list[str]:
    """Columns that the expectation reads, as far as its arguments name them."""
    names = [declared.kwargs.get(name) for name in ("column", "column_A", "column_B")]
    if declared.type == "ExpectCompoundColumnsToBeUnique":
        names += declared.kwargs["column_list"]
    return [name for name in names if name is not None]


def _result(
    declared: Expectation, observed: str, holds: bool, rows: Sequence[dict] = ()
) -> ExpectationResult:
    kwargs = declared.kwargs
    expected = [quantity_text(kwargs)] if "sql" in kwargs else []
    expected += [bounds_text(kwargs)] if kwargs.keys() & {"min_value", "max_value"} else []
    if "value_set" in kwargs:
        expected.append(f"one of {short(', '.join(map(str, kwargs['value_set'])))}")
    if declared.type == "ExpectTableColumnsToMatchOrderedList":
        expected.append(f"exactly {short(', '.join(kwargs['column_list']))}")
    return ExpectationResult(
        table=declared.table,
        expectation=_snake(declared.type),
        column=kwargs.get("name") or ", ".join(_columns(declared)),
        expected=", ".join(expected),
        observed=observed,
        holds=holds,
        blocking=declared.blocking,
        rows=list(rows),
    )


def _observed(found: Mapping[str, Any]) -> str:
    if "unexpected_count" in found:
        of, bad = found["element_count"], found["unexpected_count"]
        examples = ", ".join(short(v) for v in (found.get("partial_unexpected_list") or [])[:3])
        return f"{bad} of {of} rows fail" + (f", e.g. {examples}" if bad and examples else "")
    return observed_text(found)


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


def _error(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:ERROR_CAP]


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _context(audit: Audit | None) -> Any:
    """A context without a configuration file; given an audit, its results go to the home.

    Raises:
        HoiError: the home cannot be written.
    """
    from great_expectations.data_context.types.base import DataContextConfig, ProgressBarsConfig

    memory = {"class_name": "InMemoryStoreBackend"}
    results: dict[str, Any] = memory
    sites = {}
    if audit is not None:
        folder = audit.home / RESULTS
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        results = {
            "class_name": "TupleFilesystemStoreBackend",
            "base_directory": str(folder),
            "suppress_store_backend_id": True,
        }
        sites["home"] = {
            "class_name": "LocalSite",
            "module_name": "hoi_assets.publishing.gx_plugins",
            "home": str(audit.home),
        }
    stores = {
        "ExpectationsStore": memory,
        "CheckpointStore": memory,
        "ValidationDefinitionStore": memory,
        "ValidationResultsStore": results,
    }
    context = _great_expectations().get_context(
        mode="ephemeral",
        project_config=DataContextConfig(
            config_version=4.0,
            expectations_store_name="expectations_store",
            checkpoint_store_name="checkpoint_store",
            validation_results_store_name="validation_results_store",
            stores={
                _snake(name): {"class_name": name, "store_backend": backend}
                for name, backend in stores.items()
            },
            data_docs_sites=sites,
            analytics_enabled=False,
            progress_bars=ProgressBarsConfig(globally=False),
        ),
    )
    context.data_sources.add_pandas(audit.asset if audit else NO_ASSET)
    return context


@cache
def _great_expectations() -> Any:
    """The library; the import takes seconds, once a process."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    with _quiet():
        import great_expectations as gx
        import great_expectations.checkpoint

        return gx


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
