"""`published_asset`: Dagster's `@asset` with write-audit-publish around the function.

    @published_asset(
        partitions_def=hand_pose,
        deps=["detailed_prompts", "category_loras"],
        group_name="prompt_propose_verify",
        kinds={"diffusers"},
        pool=GPU_POOL,
        code_version="1",
        suite=CANDIDATES_SUITE,
        tables=[CANDIDATE_ROWS],
        settings=["sampling", "candidates"],
        models=["base"],
    )
    def candidate_images(context: StageContext, staging: Staging) -> Result:
        prompts = context.parent("detailed_prompts").table("rows")
        ...
        staging.write_table("rows", rows)
        context.record("image_id", rows)
        return Result(metadata={"contact_sheet": Image.of(sheet), "candidates": rows.height})

The result is an ordinary `AssetsDefinition`. `execution.py` says what happens around the function;
a test calls it as `stage_of(candidate_images)(context, staging)`.
"""

import inspect
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any
from urllib.parse import quote

import dagster as dg

from hoi_assets.engines.batch_map import in_use
from hoi_assets.errors import HoiError
from hoi_assets.hashing import digest
from hoi_assets.progress import Log
from hoi_assets.publishing.config import PublishConfig
from hoi_assets.publishing.execution import Execution, execute
from hoi_assets.publishing.expectations import Expectation
from hoi_assets.publishing.graph import Graph, gate_digest, own_inputs
from hoi_assets.publishing.links import page_url, pages_url
from hoi_assets.publishing.stage import ExternalInputs, Stage, StageFunction
from hoi_assets.settings import Settings, chosen_executor
from hoi_assets.store.tables import Table
from hoi_assets.store.versions import Published
from hoi_assets.store.weights import model_fingerprint

CHECK = "gate"
FORCE_TAG = "hoi/force"
PLATFORM = "platform"
GPU_POOL = "gpu"
CODE_VERSION_DIGITS = 8

_terminal: ContextVar[Log | None] = ContextVar("terminal", default=None)


@contextmanager
def logged_to(log: Log) -> Iterator[None]:
    """Inside, whatever assets log goes to `log` as well as to Dagster's log."""
    token = _terminal.set(log)
    try:
        yield
    finally:
        _terminal.reset(token)


def published_asset(
    *,
    suite: Sequence[Expectation],
    code_version: str,
    deps: Sequence[str] = (),
    optional_deps: Sequence[str] = (),
    deps_when: Mapping[str, Callable[[Settings], bool]] | None = None,
    tables: Sequence[Table] = (),
    settings: Sequence[str] = (),
    models: Sequence[str] = (),
    external_inputs: ExternalInputs | None = None,
    config: type[PublishConfig] = PublishConfig,
    **asset_keywords: Any,
) -> Callable[[StageFunction], dg.AssetsDefinition]:
    """An asset whose output is audited before it is published.

    Args:
        suite: its expectation suite; a version that fails it is not published.
        code_version: raise it whenever the same inputs would now give another output.
        deps: keys of the assets it reads. A parent with other partitions is a fan-in.
        optional_deps: more of them, which may be unpublished.
        deps_when: more of them, each only under the settings for which its function says so.
        tables: declarations of the tables it writes.
        settings: sections (or fields) of `Settings` that determine the output.
        models: names of `settings.models` whose weights determine the output.
        external_inputs: further inputs, JSON-able, e.g. the digest of a folder outside the store.
        config: what can be set in the launchpad.
        asset_keywords: any other keyword of `dg.asset`, passed on unchanged.
    """

    def declare(function: StageFunction) -> dg.AssetsDefinition:
        stage = Stage(
            name=asset_keywords.get("name") or function.__name__,
            function=function,
            deps=(*deps, *optional_deps),
            optional=tuple(optional_deps),
            deps_when=dict(deps_when or {}),
            partitions_def=asset_keywords.get("partitions_def"),
            code_version=code_version,
            suite=tuple(suite),
            tables=tuple(tables),
            settings=tuple(settings),
            models=tuple(models),
            external_inputs=external_inputs,
            config=config,
            asset_keywords=asset_keywords,
        )
        return _definition(stage, code_version, lambda: Graph([stage]))

    return declare


def stage_of(asset: dg.AssetsDefinition) -> Stage:
    """The stage that `published_asset` declared.

    Raises:
        TypeError: the asset was not made by `published_asset`.
    """
    stage = getattr(_compute_function(asset), "stage", None)
    if not isinstance(stage, Stage):
        raise TypeError(f"{asset.keys} were not made by published_asset")
    return stage


def is_published_asset(value: object) -> bool:
    """Whether `published_asset` made it."""
    return isinstance(value, dg.AssetsDefinition) and hasattr(_compute_function(value), "stage")


OpTags = Callable[[Stage], Mapping[str, Any]]


def bind(
    assets: Iterable[dg.AssetsDefinition],
    settings: Settings,
    op_tags: OpTags = lambda stage: {},
) -> tuple[Graph, list[dg.AssetsDefinition]]:
    """The assets under these settings, in order of dependency, with their graph.

    Conditional dependencies are settled. The code version that Dagster sees covers the settings,
    weights and expectations that determine the output, so that the UI marks stale what `hoi stale`
    marks stale. On a CPU, or where Ray counts the GPUs, assets are in no pool.

    Args:
        op_tags: further tags of a stage's step, for the executor.

    Raises:
        HoiError: as `Graph`.
    """
    graph = Graph(stage_of(asset).bound(settings) for asset in assets)
    return graph, [
        _definition(
            stage, shown_code_version(stage, settings), lambda: graph, settings, op_tags(stage)
        )
        for stage in graph.stages
    ]


def shown_code_version(stage: Stage, settings: Settings) -> str:
    """`<code_version>-<digest>` of all that a profile sets for the stage: what Dagster compares."""
    try:
        own: Any = own_inputs(stage, settings, model_fingerprint)
    except HoiError as error:  # weights that are not there yet; the step says so when it runs
        own = error.what
    found = digest([own, gate_digest(stage, settings)])
    return f"{stage.code_version}-{found[:CODE_VERSION_DIGITS]}"


def _compute_function(asset: dg.AssetsDefinition) -> Any:
    return getattr(asset.op.compute_fn, "decorated_fn", None)


def _definition(
    stage: Stage,
    code_version: str,
    graph: Callable[[], Graph],
    settings: Settings | None = None,
    op_tags: Mapping[str, Any] | None = None,
) -> dg.AssetsDefinition:
    keywords = dict(stage.asset_keywords)
    if op_tags:
        keywords["op_tags"] = {**(keywords.get("op_tags") or {}), **op_tags}
    if settings is not None and keywords.get("pool") == GPU_POOL and not _on_gpu(settings):
        del keywords["pool"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)  # partitions_def of a check is a preview
        gate = dg.AssetCheckSpec(
            CHECK,
            asset=stage.name,
            blocking=True,
            partitions_def=stage.partitions_def,
            description="Its Great Expectations suite; a version that fails it is not published.",
        )

    def compute(context: dg.AssetExecutionContext, config: Any) -> Iterator[Any]:
        yield from _run(stage, graph(), context, config)

    compute.__annotations__["config"] = stage.config
    compute.stage = stage  # type: ignore[attr-defined]
    keywords.setdefault("name", stage.name)
    keywords.setdefault("description", inspect.getdoc(stage.function) or "")
    keywords["metadata"] = {**_static_metadata(stage), **(keywords.get("metadata") or {})}
    keywords["check_specs"] = [gate, *(keywords.get("check_specs") or ())]
    keywords["required_resource_keys"] = {
        PLATFORM,
        *(keywords.get("required_resource_keys") or ()),
    }
    return dg.asset(deps=list(stage.deps), code_version=code_version, **keywords)(compute)


def _on_gpu(settings: Settings) -> bool:
    if chosen_executor() == "ray":
        return False  # Ray counts the GPUs
    if settings.device == "auto":  # asking torch would cost two seconds when definitions load
        return Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi") is not None
    return settings.device != "cpu"


def _static_metadata(stage: Stage) -> dict[str, Any]:
    """Column schemas, and a link to the asset's own function."""
    file, line = inspect.getsourcefile(stage.function), stage.function.__code__.co_firstlineno
    metadata: dict[str, Any] = {}
    if file is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", dg.BetaWarning)
            reference = dg.LocalFileCodeReference(
                file_path=file, line_number=line, label=stage.name
            )
            metadata["dagster/code_references"] = dg.CodeReferencesMetadataValue(
                code_references=[reference]
            )
    for number, table in enumerate(stage.tables):
        name = "dagster/column_schema" if number == 0 else f"columns of {table.name}"
        metadata[name] = dg.MetadataValue.table_schema(column_schema(table))
    return metadata


def column_schema(table: Table) -> dg.TableSchema:
    """The declared table as Dagster shows it."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=column.name,
                type=str(column.dtype),
                description=column.meaning + (f" ({column.unit})" if column.unit else ""),
                constraints=dg.TableColumnConstraints(
                    nullable=column.nullable, unique=table.key == (column.name,)
                ),
            )
            for column in table.columns
        ]
    )


def _run(
    stage: Stage, graph: Graph, context: dg.AssetExecutionContext, config: PublishConfig
) -> Iterator[Any]:
    platform = getattr(context.resources, PLATFORM)
    terminal = _terminal.get()

    def log(line: str) -> None:
        context.log.info(line)
        if terminal is not None:
            terminal(line)

    try:
        own = graph.context(
            stage,
            context.partition_key if stage.partitions_def is not None else None,
            config.apply(platform.settings),
            platform.store,
            run_id=context.run.run_id,
            force=config.force or context.run.tags.get(FORCE_TAG) == "true",
            log=log,
            dagster=context,
        )
        in_use().begin(stage.name)
        execution = execute(graph, stage, own)
    except HoiError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    yield from events(stage, execution)


def events(stage: Stage, execution: Execution) -> Iterator[Any]:
    """Dagster's events; a check yielded through the materialisation targets that version.

    Raises:
        dg.Failure: the gate rejected the output.
    """
    gate = execution.gate
    evidence: dict[str, Any] = {
        "summary": gate.summary,
        "expectations": len(gate.results),
        "failed": len(gate.broken),
        "findings": dg.MetadataValue.md(gate.markdown()),
    }
    if gate.docs_page is not None:
        evidence["data_docs"] = dg.MetadataValue.url(f"{pages_url()}/{quote(gate.docs_page)}")
    # A warning must not block; a broken blocking expectation must.
    severity = dg.AssetCheckSeverity.WARN if gate.passed else dg.AssetCheckSeverity.ERROR
    check = dg.AssetCheckResult(
        check_name=CHECK,
        asset_key=stage.name,
        passed=not gate.broken,
        severity=severity,
        description=gate.summary,
        metadata=evidence,
    )
    if execution.published is None:
        yield check
        raise dg.Failure(
            f"gate of {stage.name}: {gate.summary}\n  the output is in quarantine at "
            f"{execution.quarantine}; what was published before stays in force",
            metadata={**evidence, "quarantine": dg.MetadataValue.path(str(execution.quarantine))},
            allow_retries=False,
        )
    published = execution.published
    yield dg.MaterializeResult(
        data_version=dg.DataVersion(published.version),
        check_results=[check],
        metadata={
            **shown(execution.metadata, published),
            "version": published.version,
            "path": dg.MetadataValue.path(str(published.path)),
            "dagster/row_count": max(execution.found.rows.values(), default=0),
            "rows": dict(execution.found.rows),
            "made from": {one.name: one.version for one in execution.lineage},
            "unchanged": execution.unchanged,
            "seconds": round(execution.seconds, 2),
        },
    )


def shown(metadata: Mapping[str, Mapping[str, Any]], published: Published) -> dict[str, Any]:
    """A version's metadata as Dagster shows it."""

    def value(kind: str, found: Any) -> Any:
        if kind == "markdown":
            # It stands between single quotes of Python code.
            path = str(published.path).replace("'", "\\'")
            return dg.MetadataValue.md(found.replace("<path>", path))
        if kind == "page":
            home = published.path.parents[4]
            return dg.MetadataValue.url(page_url(home, published.path / found))
        return dg.MetadataValue.null() if found is None else found

    return {name: value(item["kind"], item["value"]) for name, item in metadata.items()}
