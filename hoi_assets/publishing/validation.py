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
   to ten failing rows. What cannot be evaluated counts as a failed expectation: a missing table
   or column, an exception, a mean over no rows. The version passes if every blocking one holds.
5. *Data Docs.* Given a `ValidationRun`, the checkpoint's action writes each validation's page below
   `<home>/data_docs` (`data_docs.py` says where); every result names its page.

The library is imported inside functions only: it takes seconds, and loading the definitions must
not wait for it.
"""

import contextlib
import io
import logging
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hoi_assets.errors import HoiError
from hoi_assets.publishing.data_docs import RESULTS, page_path, run_name
from hoi_assets.publishing.expectations import Expectation
from hoi_assets.publishing.gate_result import (
    ERROR_CAP,
    FAILING_ROWS_CAP,
    ExpectationResult,
    GateResult,
    bounds_text,
    error_text,
    observed_text,
    quantity_text,
    short,
)
from hoi_assets.store.disk import writing

if TYPE_CHECKING:
    import great_expectations
    import polars as pl

NO_ASSET = "tables"  # what suites are named after outside a home


@dataclass(frozen=True)
class ValidationRun:
    """Which version is validated, in which Dagster run, and the home that gets the Data Docs."""

    home: Path
    asset: str
    partition: str | None = None
    run_id: str | None = None


def evaluate(
    tables: Mapping[str, "pl.DataFrame"],
    expectations: Sequence[Expectation],
    run: ValidationRun | None = None,
) -> GateResult:
    """Run every table's expectations (with their references resolved).

    Args:
        tables: by name.
        expectations: of one asset, in the order of the results.
        run: where given, Data Docs pages are written.

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
        found.update(_run(tables, runnable, run))
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
            f"{declared.type} on table {declared.table!r}: {error_text(error)}",
            "correct the arguments where it is declared, or the settings that it refers to",
        ) from error


def _run(
    tables: Mapping[str, "pl.DataFrame"],
    runnable: Mapping[str, Mapping[int, Expectation]],
    run: ValidationRun | None,
) -> dict[int, ExpectationResult]:
    """Results by the declaration's number."""
    found: dict[int, ExpectationResult] = {}
    with _quiet():
        context = _context(run)
        for table, declared in runnable.items():
            built = {}
            for number, each in declared.items():
                try:
                    built[number] = _build(each)
                except HoiError as error:
                    found[number] = _result(each, error.what, holds=False)
            if not built:
                continue
            try:
                results, page = _check(context, table, tables[table], list(built.values()), run)
            except HoiError:
                raise
            except Exception as error:
                crashed = {n: _result(declared[n], error_text(error), holds=False) for n in built}
                found.update(crashed)
                continue
            for number, result in zip(built, results, strict=True):
                interpreted = _interpret(declared[number], tables[table], result)
                found[number] = replace(interpreted, docs_page=page)
    return found


def _check(
    context: Any,
    name: str,
    table: "pl.DataFrame",
    expectations: list[Any],
    run: ValidationRun | None,
) -> tuple[list[Mapping[str, Any]], str | None]:
    """Run one table's checkpoint.

    Returns:
        Results as JSON, in the order of the expectations, and the Data Docs page.

    Raises:
        HoiError: the home's Data Docs cannot be written.
    """
    gx = _great_expectations()
    asset = run.asset if run else NO_ASSET
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
        actions=[gx.checkpoint.UpdateDataDocsAction(name="data_docs")] if run else [],
        result_format={
            "result_format": "SUMMARY",
            "partial_unexpected_count": FAILING_ROWS_CAP,
        },
    )
    frame = table.to_pandas()
    frame.attrs["polars"] = table
    run_id = gx.RunIdentifier(
        run_name=run_name(run.partition, run.run_id) if run else None, run_time=datetime.now(UTC)
    )
    with writing(run.home / RESULTS) if run else contextlib.nullcontext():
        outcome = checkpoint.run(batch_parameters={"dataframe": frame}, run_id=run_id)
    ((key, validation),) = outcome.run_results.items()
    results = {r.expectation_config.id: r.to_json_dict() for r in validation.results}
    page = page_path(key.to_tuple()).as_posix() if run else None
    return [results[each.id] for each in suite.expectations], page


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


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _context(run: ValidationRun | None) -> Any:
    """A context without a configuration file; given a run, its results go to the home.

    Raises:
        HoiError: the home cannot be written.
    """
    from great_expectations.data_context.types.base import DataContextConfig, ProgressBarsConfig

    memory = {"class_name": "InMemoryStoreBackend"}
    results: dict[str, Any] = memory
    sites = {}
    if run is not None:
        folder = run.home / RESULTS
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
            "home": str(run.home),
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
    context.data_sources.add_pandas(run.asset if run else NO_ASSET)
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
