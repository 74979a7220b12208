"""Great Expectations' extension points: two expectations, their metrics, and the Data Docs site.

The only module with `great_expectations` at its head (the import takes seconds): import it inside
functions. The batch is the table as pandas; `frame.attrs["polars"]` holds it as Polars, which the
metrics here read: pandas handles nulls and lists poorly and has no SQL.
"""

import math
import traceback
from functools import cache
from html import escape
from pathlib import Path
from typing import Any, ClassVar

import polars as pl
from great_expectations.core.metric_domain_types import MetricDomainTypes  # noqa: TID253
from great_expectations.data_context.types.resource_identifiers import (  # noqa: TID253
    ValidationResultIdentifier,
)
from great_expectations.execution_engine import PandasExecutionEngine  # noqa: TID253
from great_expectations.expectations.expectation import BatchExpectation  # noqa: TID253
from great_expectations.expectations.metrics.metric_provider import metric_value  # noqa: TID253
from great_expectations.expectations.metrics.table_metric_provider import (  # noqa: TID253
    TableMetricProvider,
)
from great_expectations.render import (  # noqa: TID253
    LegacyRendererType,
    RenderedStringTemplateContent,
    RenderedTableContent,
)
from great_expectations.render.renderer import ValidationResultsPageRenderer  # noqa: TID253
from great_expectations.render.renderer.content_block import (  # noqa: TID253
    ValidationResultsTableContentBlockRenderer,
)
from great_expectations.render.renderer.renderer import renderer  # noqa: TID253
from great_expectations.render.renderer_configuration import (  # noqa: TID253
    RendererConfiguration,
)
from great_expectations.render.view import DefaultJinjaPageView  # noqa: TID253
from jinja2 import ChoiceLoader, FileSystemLoader

from hoi_assets.publishing.data_docs import TEMPLATES, page_path, summarise_result, write_page
from hoi_assets.publishing.gate_result import (
    FAILING_ROWS_CAP,
    bounds_text,
    observed_text,
    quantity_text,
    short,
)

NOTHING = "nothing to measure"


class SqlMeasure(TableMetricProvider):
    """A number by a SQL expression, with rows that meet a condition as evidence."""

    metric_name = "table.sql_measure"
    value_keys = ("sql", "where")

    @metric_value(engine=PandasExecutionEngine)
    def _pandas(
        cls,
        execution_engine: Any,
        metric_domain_kwargs: dict,
        metric_value_kwargs: dict,
        **_: Any,
    ) -> dict[str, Any]:
        table = _polars(execution_engine, metric_domain_kwargs)
        sql, where = metric_value_kwargs["sql"], metric_value_kwargs.get("where")
        value = table.sql(f"select cast({sql} as double) as value from self").item()
        found = {"value": value, "rows": [], "count": None, "of": table.height}
        if where:
            meeting = table.sql(f"select * from self where {where}")
            rows = meeting.head(FAILING_ROWS_CAP).rows()
            found["rows"] = [[short(value) for value in row] for row in rows]
            found["columns"] = meeting.columns
            found["count"] = meeting.height
        return found


class ColumnTypes(TableMetricProvider):
    """Polars type of each column, as text."""

    metric_name = "table.polars_types"
    value_keys = ()

    @metric_value(engine=PandasExecutionEngine)
    def _pandas(cls, execution_engine: Any, metric_domain_kwargs: dict, **_: Any) -> dict[str, str]:
        schema = _polars(execution_engine, metric_domain_kwargs).schema
        return {name: str(dtype) for name, dtype in schema.items()}


def _polars(execution_engine: Any, domain_kwargs: dict) -> pl.DataFrame:
    frame, _, _ = execution_engine.get_compute_domain(
        domain_kwargs=domain_kwargs, domain_type=MetricDomainTypes.TABLE
    )
    return frame.attrs["polars"]


class ExpectMeasureToBeBetween(BatchExpectation):
    """Expect a number, computed over the table by a SQL expression, to lie within bounds.

    Null or NaN (an average over no rows) lies outside.

    Args:
        name: what the number is, in snake case.
        sql: Polars SQL expression.
        quantity: what it is, in words, with `$where` for the condition; else the expression.
        where: SQL condition; rows that meet it are shown when the expectation fails.
        min_value: included, like `max_value`.
    """

    name: str
    sql: str
    quantity: str | None = None
    where: str | None = None
    min_value: float | None = None
    max_value: float | None = None

    metric_dependencies: ClassVar[tuple[str, ...]] = ("table.sql_measure",)
    success_keys: ClassVar[tuple[str, ...]] = (
        "name",
        "sql",
        "quantity",
        "where",
        "min_value",
        "max_value",
    )
    domain_keys: ClassVar[tuple[str, ...]] = ("batch_id",)

    def _validate(
        self, metrics: dict, runtime_configuration: Any = None, execution_engine: Any = None
    ) -> dict[str, Any]:
        found = metrics["table.sql_measure"]
        value = found["value"]
        if value is None or math.isnan(value):
            return {"success": False, "result": {"observed_value": NOTHING}}
        low = -math.inf if self.min_value is None else self.min_value
        high = math.inf if self.max_value is None else self.max_value
        success = low <= value <= high
        result: dict[str, Any] = {"observed_value": value}
        if found["count"] is not None:
            result["details"] = {"rows_meeting": found["count"], "of": found["of"]}
            if not success:
                result["details"] |= {"columns": found["columns"], "rows": found["rows"]}
        return {"success": success, "result": result}

    @classmethod
    def _prescriptive_template(
        cls, renderer_configuration: RendererConfiguration
    ) -> RendererConfiguration:
        kwargs = renderer_configuration.kwargs
        sentence = f"{kwargs['name']}: {quantity_text(kwargs)} must be {bounds_text(kwargs)}."
        renderer_configuration.template_str = sentence
        return renderer_configuration

    @classmethod
    @renderer(renderer_type=LegacyRendererType.PRESCRIPTIVE)
    def _prescriptive_renderer(
        cls,
        configuration: Any = None,
        result: Any = None,
        runtime_configuration: dict | None = None,
        **_: Any,
    ) -> list[RenderedStringTemplateContent]:
        kwargs = configuration.kwargs
        params = {"name": kwargs["name"], "bounds": bounds_text(kwargs)}
        params |= {name: kwargs[name] for name in ("sql", "where") if kwargs.get(name)}
        quantity = kwargs.get("quantity") or "$sql"
        template = f"$name: {quantity} must be $bounds."
        return [_text(template, params, runtime_configuration or {})]

    @classmethod
    @renderer(renderer_type="renderer.diagnostic.observed_value")
    def _diagnostic_observed_value_renderer(
        cls, configuration: Any = None, result: Any = None, **_: Any
    ) -> str:
        return observed_text(result.result if result is not None else {})

    @classmethod
    @renderer(renderer_type="renderer.diagnostic.unexpected_table")
    def _diagnostic_unexpected_table_renderer(
        cls, configuration: Any = None, result: Any = None, **_: Any
    ) -> list[RenderedTableContent] | None:
        details = (result.result or {}).get("details") if result is not None else None
        if not details or not details.get("rows"):
            return None
        return [
            RenderedTableContent(
                content_block_type="table",
                header_row=details["columns"],
                table=details["rows"],
                styling={"body": {"classes": ["table-bordered", "table-sm", "mt-3"]}},
            )
        ]


class ExpectColumnTypesToMatch(BatchExpectation):
    """Expect columns to have the declared Polars types.

    Args:
        types: Polars type by column, as text, e.g. `{"seed": "Int64"}`.
    """

    types: dict[str, str]

    metric_dependencies: ClassVar[tuple[str, ...]] = ("table.polars_types",)
    success_keys: ClassVar[tuple[str, ...]] = ("types",)
    domain_keys: ClassVar[tuple[str, ...]] = ("batch_id",)

    def _validate(
        self, metrics: dict, runtime_configuration: Any = None, execution_engine: Any = None
    ) -> dict[str, Any]:
        found = metrics["table.polars_types"]
        wrong = [
            f"{name} is {found.get(name, 'absent')}, not {dtype}"
            for name, dtype in self.types.items()
            if found.get(name) != dtype
        ]
        text = ", ".join(wrong) or f"{len(self.types)} columns as declared"
        return {"success": not wrong, "result": {"observed_value": text}}

    @classmethod
    def _prescriptive_template(
        cls, renderer_configuration: RendererConfiguration
    ) -> RendererConfiguration:
        renderer_configuration.template_str = "Columns must have their declared types."
        return renderer_configuration

    @classmethod
    @renderer(renderer_type=LegacyRendererType.PRESCRIPTIVE)
    def _prescriptive_renderer(
        cls,
        configuration: Any = None,
        result: Any = None,
        runtime_configuration: dict | None = None,
        **_: Any,
    ) -> list[RenderedStringTemplateContent]:
        types = configuration.kwargs["types"]
        params = {"types": ", ".join(f"{name} {dtype}" for name, dtype in types.items())}
        return [_text("Columns must have the types $types.", params, runtime_configuration or {})]


def _text(template: str, params: dict[str, Any], runtime: dict) -> RenderedStringTemplateContent:
    return RenderedStringTemplateContent(
        content_block_type="string_template",
        string_template={
            "template": template,
            "params": params,
            "styling": runtime.get("styling"),
        },
    )


class LocalSite:
    """Site builder that writes one page per validation, and no index (`data_docs.build_index`).

    Great Expectations' own builder walks all earlier results and copies 4 MB of pictures at every
    build, takes its style sheets from the network, and deletes pages that another process has just
    written. This one renders with the same renderers, atomically, into pages that need no network.
    """

    def __init__(self, data_context: Any, home: str) -> None:
        self.context = data_context
        self.home = Path(home)

    def build(
        self, resource_identifiers: Any = None, build_index: bool = False
    ) -> tuple[str, None]:
        """Write the pages of these validations."""
        store = self.context.validation_results_store
        for key in resource_identifiers or store.list_keys():
            if isinstance(key, ValidationResultIdentifier):
                try:
                    page = _page(store.get(key))
                except Exception:  # the result counts all the same
                    page = f"<h1>This page failed</h1><pre>{escape(traceback.format_exc())}</pre>"
                write_page(self.home, page_path(key.to_tuple()), page)
        return self.get_resource_url(), None

    def get_resource_url(self, resource_identifier: Any = None, only_if_exists: bool = True) -> str:
        """`file://` address of a validation's page, or of the index."""
        path = page_path(() if resource_identifier is None else resource_identifier.to_tuple())
        return (self.home / path).as_uri()


class ResultTable(ValidationResultsTableContentBlockRenderer):
    """The library's table of results, escaped, and "warning" where a failure does not block."""

    @classmethod
    def _get_content_block_fn(cls, expectation_type: str, expectation_config: Any = None) -> Any:
        rows_of = super()._get_content_block_fn(expectation_type, expectation_config)

        def safe_rows(result: Any = None, **kwargs: Any) -> list[Any]:
            rows = [_escaped(row) for row in rows_of(result=result, **kwargs)]
            if not result.success and result.expectation_config.severity == "warning":
                rows[0][0] = RenderedStringTemplateContent(
                    content_block_type="string_template",
                    string_template={"template": "warning", "styling": {"classes": ["warned"]}},
                )
            return rows

        return safe_rows


def _escaped(cell: Any) -> Any:
    """Text in a cell as HTML: the library escapes what sentences quote, not what tables hold."""
    if isinstance(cell, str):
        return escape(cell)
    if isinstance(cell, list):
        return [_escaped(each) for each in cell]
    if isinstance(cell, RenderedTableContent):
        cell.header_row, cell.table = _escaped(cell.header_row), _escaped(cell.table)
    return cell


def _page(result: Any) -> str:
    table = {"class_name": ResultTable.__name__, "module_name": __name__}
    section = {"class_name": "ValidationResultsColumnSectionRenderer", "table_renderer": table}
    document = ValidationResultsPageRenderer(column_section_renderer=section).render(result)
    # The overview is the template's own; sections with a failure come first.
    document.sections = sorted(document.sections[1:], key=_passed)
    return _view().render(document, overview=summarise_result(result.to_json_dict()))


def _passed(section: Any) -> bool:
    return "hide-succeeded-validations-column-section-target-child" in str(section.to_json_dict())


@cache
def _view() -> DefaultJinjaPageView:
    view = DefaultJinjaPageView()
    view._template = "data_docs_page.html.j2"
    view.env.loader = ChoiceLoader([FileSystemLoader(TEMPLATES), view.env.loader])
    return view
