"""Makes the Dagster asset of a stage: translates `carry.Outcome` into events, nothing else."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import dagster as dg

from hoi_assets.errors import HoiError
from hoi_assets.progress import Log
from hoi_assets.publishing.execution import Outcome, carry_out
from hoi_assets.publishing.graph import Graph
from hoi_assets.publishing.stage import Partitions, Stage

CHECK = "gate"
FORCE_TAG = "hoi/force"

_terminal: ContextVar[Log | None] = ContextVar("terminal", default=None)


@contextmanager
def said_to(log: Log) -> Iterator[None]:
    """Inside, whatever stages say goes to `say` as well as to Dagster's log."""
    token = _terminal.set(log)
    try:
        yield
    finally:
        _terminal.reset(token)


def asset_of(
    stage: Stage,
    graph: Graph,
    partitions: Mapping[Partitions, dg.StaticPartitionsDefinition],
    condition: dg.AutomationCondition | None = None,
) -> dg.AssetsDefinition:
    """The stage as a Dagster asset with its gate as a blocking check, per partition."""
    own = partitions[stage.partitions] if stage.partitions else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)  # partitions_def of a check is a preview
        check = dg.AssetCheckSpec(
            CHECK,
            asset=stage.name,
            blocking=True,
            partitions_def=own,
            description="Its Great Expectations suite; a version that fails it is not published.",
        )

    @dg.asset(
        name=stage.name,
        deps=list(stage.deps),
        partitions_def=own,
        code_version=stage.code_version,
        group_name=stage.group,
        description=stage.description,
        kinds=set(stage.kinds),
        check_specs=[check],
        required_resource_keys={"platform"},
        config_schema={
            "force": dg.Field(
                bool, default_value=False, description="Compute though the inputs are unchanged."
            )
        },
        automation_condition=condition,
    )
    def step(context: dg.AssetExecutionContext) -> Iterator[Any]:
        platform = context.resources.platform
        terminal = _terminal.get()

        def log(line: str) -> None:
            context.log.info(line)
            if terminal is not None:
                terminal(line)

        try:
            work = graph.work(
                stage,
                context.partition_key if stage.partitions else None,
                platform.settings,
                platform.store,
                platform.partition_keys,
                run_id=context.run.run_id,
                force=context.op_execution_context.op_config["force"]
                or context.run.tags.get(FORCE_TAG) == "true",
                log=log,
            )
            outcome = carry_out(graph, stage, work)
        except HoiError as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        yield from events(stage, outcome)

    return step


def events(stage: Stage, outcome: Outcome) -> Iterator[Any]:
    """The order matters: a check yielded through the materialisation targets that version.

    Raises:
        dg.Failure: the gate held the version back.
    """
    verdict = outcome.verdict
    evidence: dict[str, Any] = {
        "summary": verdict.summary,
        "findings": dg.MetadataValue.md(verdict.markdown()),
    }
    # A warning must not block; a broken blocking rule must.
    severity = dg.AssetCheckSeverity.WARN if verdict.passed else dg.AssetCheckSeverity.ERROR
    check = dg.AssetCheckResult(
        check_name=CHECK,
        asset_key=stage.name,
        passed=not verdict.broken,
        severity=severity,
        description=verdict.summary,
        metadata=evidence,
    )
    if outcome.published is None:
        yield check
        raise dg.Failure(
            f"gate of {stage.name}: {verdict.summary}\n  the output is kept aside in "
            f"{outcome.quarantine}; what was published before stays in force",
            metadata={**evidence, "quarantine": dg.MetadataValue.path(str(outcome.quarantine))},
            allow_retries=False,
        )
    published = outcome.published
    yield dg.MaterializeResult(
        data_version=dg.DataVersion(published.version),
        check_results=[check],
        metadata={
            **shown(outcome.metadata),
            "version": published.version,
            "path": dg.MetadataValue.path(str(published.path)),
            "dagster/row_count": max(outcome.found.rows.values(), default=0),
            "rows": dict(outcome.found.rows),
            "made from": {p.name: p.version for p in outcome.lineage},
            "unchanged": outcome.unchanged,
            "seconds": round(outcome.seconds, 2),
        },
    )


def shown(metadata: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Metadata of a stage as Dagster shows it."""
    return {
        name: dg.MetadataValue.md(item["value"])
        if item["kind"] == "markdown"
        else (dg.MetadataValue.null() if item["value"] is None else item["value"])
        for name, item in metadata.items()
    }
