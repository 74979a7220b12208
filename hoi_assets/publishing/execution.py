"""Write-audit-publish: runs a stage for one partition. No Dagster events here.

In this order:

1. The lock of (asset, partition) is taken, so that two runs never compute the same thing at once.
2. The inputs are gathered: versions of all parents, `code_version`, the named settings, digests of
   the named models' weights, external inputs, and the gate's expectations. If the version in force
   was made from equal inputs and none of its rows failed, nothing is computed ("unchanged"); its
   files are checked against its name, and damage fails the step. If only the expectations changed,
   they are run on the version in force. `force` computes anyway.
3. The function writes into a staging folder. What it writes must follow from its inputs alone: no
   clock, no seconds, nothing of this machine (seconds go to the metadata).
4. The gate runs the expectation suite on every staged table, and on `Result.audit` where given.
5. If it passes, the folder is published under the hash of its content, which is Dagster's
   DataVersion. If not, the folder goes to quarantine with the evidence, the step fails, and the
   version published before stays in force for everything downstream.
"""

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hoi_assets.errors import HoiError
from hoi_assets.hashing import files_below
from hoi_assets.publishing import evidence
from hoi_assets.publishing.contents import CONTENTS, contents
from hoi_assets.publishing.context import Result, StageContext
from hoi_assets.publishing.data_docs import result_file
from hoi_assets.publishing.evidence import Attempt, Evidence
from hoi_assets.publishing.expectations import for_partition
from hoi_assets.publishing.gate_result import GateResult
from hoi_assets.publishing.graph import Graph, expectations_of, without_gate
from hoi_assets.publishing.ledger_rows import are_entered, note_entered, rows_of
from hoi_assets.publishing.metadata import plain
from hoi_assets.publishing.stage import Stage
from hoi_assets.publishing.validation import ValidationRun, evaluate
from hoi_assets.store.disk import DiskFull, is_full, writing
from hoi_assets.store.versions import Published, Staging, Store

if TYPE_CHECKING:
    import polars as pl

# The lock ends with the process that holds it, so a long wait is safe.
LOCK_TIMEOUT_S = 24 * 3600.0


@dataclass(frozen=True)
class Execution:
    """How a stage ended for one partition.

    Attributes:
        published: the version now in force; None where the gate rejected the output.
        unchanged: nothing was computed, because the inputs are as before.
        found: what the gate found.
        metadata: as `metadata.plain` gives it.
        lineage: the parents' versions that were read.
        seconds: wall-clock time on this machine.
        quarantine: where rejected output lies.
    """

    published: Published | None
    unchanged: bool
    found: Evidence
    metadata: evidence.Metadata
    lineage: Sequence[Published]
    seconds: float = 0.0
    quarantine: Path | None = None

    @property
    def gate(self) -> GateResult:
        """What the gate found."""
        return self.found.gate


def execute(graph: Graph, stage: Stage, context: StageContext) -> Execution:
    """Compute the stage's output unless it exists, and publish it if the gate passes.

    Raises:
        Damaged: the version in force, or what is read of a parent, is not what was published.
        HoiError: a parent is not published, or whatever the stage finds wrong. Nothing published
            is touched then; the attempt is noted, so that `hoi stale` shows it.
    """
    start = time.monotonic()
    store = context.store
    with _locked(context):
        # Read only now: another run may have published while this one waited.
        context = graph.context(
            stage,
            context.partition,
            context.settings,
            store,
            run_id=context.run_id,
            force=context.force,
            log=context.log,
            dagster=context.dagster,
        )
        with _noting(context):
            lineage = graph.lineage(stage, context)
            inputs = graph.inputs(stage, context)
            current = store.current(stage.name, context.partition)
            place = (store, stage.name, context.partition)
            kept = None if current is None else evidence.find(*place, current.version)
            whole = current is not None and current.is_stored()
            if current is None or kept is None or kept.failed_rows or context.force or not whole:
                outcome = _compute(graph, stage, context, inputs, lineage)
            elif current.inputs == inputs:
                current.verify_here()
                store.keep_manifest(current)
                _enter_missing_rows(stage, context, current)
                _note(context, "unchanged")
                metadata = evidence.metadata_of(*place, current.version)
                outcome = Execution(current, True, kept, metadata, lineage)
            elif without_gate(current.inputs) == without_gate(inputs) and kept.only_tables:
                outcome = _audit_again(graph, stage, context, inputs, lineage, current)
            else:
                outcome = _compute(graph, stage, context, inputs, lineage)
    return replace(outcome, seconds=time.monotonic() - start)


def _locked(context: StageContext) -> ExitStack:
    """The lock of (asset, partition), until the stack is closed; logs that it waits."""
    place = (context.asset, context.partition)
    stack = ExitStack()
    try:
        stack.enter_context(context.store.lock(*place, timeout_s=1))
    except HoiError as error:
        context.log(f"waiting: {error.what}")
        stack.enter_context(context.store.lock(*place, timeout_s=LOCK_TIMEOUT_S))
    return stack


def _compute(
    graph: Graph,
    stage: Stage,
    context: StageContext,
    inputs: dict[str, Any],
    lineage: Sequence[Published],
) -> Execution:
    """Call the asset's function, audit, publish."""
    _note(context, "started")
    _say_what_is_left_out(stage, context)
    with context.store.stage(stage.name, context.partition) as out:
        try:
            result = stage(context, out)
        except HoiError:
            raise
        except Exception as error:
            if is_full(error):
                raise DiskFull(out.path) from error
            raise
        return _audit(graph, stage, context, inputs, lineage, out, result)


def _say_what_is_left_out(stage: Stage, context: StageContext) -> None:
    """A fan-in reads the partitions that there are; name those published that are gone."""
    for dep, keys in context.parent_keys.items():
        gone = [key for key in context.store.partitions(dep) if key not in keys]
        if gone and isinstance(context.parents[dep], dict):
            context.log(
                f"{stage.name}: {dep} left out of partitions that are gone: {', '.join(gone)} "
                "(`hoi prune --orphans` removes them)"
            )


def _audit_again(
    graph: Graph,
    stage: Stage,
    context: StageContext,
    inputs: dict[str, Any],
    lineage: Sequence[Published],
    current: Published,
) -> Execution:
    """Only the expectations changed: run them on a copy of the version in force."""
    context.log("inputs unchanged, expectations changed: auditing the version in force again")
    current.verify()
    _note(context, "started")
    with context.store.stage(stage.name, context.partition) as out:
        with writing(out.path):
            for name, path in files_below(current.path):
                (out.path / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, out.path / name)
        metadata = evidence.metadata_of(
            context.store, stage.name, context.partition, current.version
        )
        return _audit(graph, stage, context, inputs, lineage, out, Result(), metadata)


def _audit(
    graph: Graph,
    stage: Stage,
    context: StageContext,
    inputs: dict[str, Any],
    lineage: Sequence[Published],
    out: Staging,
    result: Result,
    metadata: evidence.Metadata | None = None,
) -> Execution:
    store = context.store
    if metadata is None:
        metadata = {name: plain(name, value) for name, value in result.metadata.items()}
    try:
        tables = {**_tables(out.path), **result.audit}
        rows = {name: table.height for name, table in tables.items()}
        run = ValidationRun(store.home, stage.name, context.partition, context.run_id)
        absent = {table.name for table in stage.tables if table.optional} - tables.keys()
        expected = for_partition(expectations_of(stage, context.settings), context.partition)
        if any(one.table == CONTENTS.name for one in expected):
            tables[CONTENTS.name] = contents(out.path, tables, store.images)
        gate = evaluate(tables, [one for one in expected if one.table not in absent], run)
        _share_pages(store, gate)
    except HoiError:
        raise
    except Exception as error:
        if is_full(error):  # says nothing about the output
            raise DiskFull(store.home) from error
        gate, rows = GateResult.of_crash(error), {}
    found = Evidence(
        gate=gate,
        rows=rows,
        failed_rows=sum(row["status"] == "failed" for row in context.recorded),
        only_tables=not result.audit,
    )
    if not gate.passed:
        place = store.quarantine(
            out,
            {
                "summary": gate.summary,
                "findings": gate.as_json(),
                "inputs": inputs,
                "run_id": context.run_id,
            },
        )
        _note(context, "rejected", f"gate: {gate.summary}", {"quarantine": str(place)})
        _enter_rows(context, None)
        return Execution(None, False, found, metadata, lineage, quarantine=place)
    version = out.version()
    # Before publishing: a version in force without evidence would be computed again.
    evidence.keep(store, stage.name, context.partition, version, found, metadata)
    parents = {parent.name: parent.version for parent in lineage}
    published = store.publish(out, inputs, context.run_id, parents)
    _enter_rows(context, version)
    note_entered(store, published)
    _note(context, "published")
    return Execution(published, False, found, metadata, lineage)


def _share_pages(store: Store, gate: GateResult) -> None:
    """Data Docs of a home in a bucket are shown on every machine."""
    if store.remote is not None:
        pages = {store.home / one.docs_page for one in gate.results if one.docs_page is not None}
        results = {result_file(store.home, page) for page in pages}
        store.remote.push_files(path for path in (*pages, *results) if path.is_file())


def _tables(folder: Path) -> dict[str, "pl.DataFrame"]:
    import polars as pl

    return {p.stem: pl.read_parquet(p, glob=False) for p in sorted(folder.glob("*.parquet"))}


def _enter_rows(context: StageContext, version: str | None) -> None:
    """Rows of a rejected version stay as they ended, without a version."""
    place = {"stage": context.asset, "partition": context.partition, "version": version}
    if context.recorded:
        context.store.ledger.record([{**place, **row} for row in context.recorded])


def _enter_missing_rows(stage: Stage, context: StageContext, current: Published) -> None:
    """Enter the rows of the version in force where the ledger may hold none or others: a process
    was killed after publishing, a later attempt failed or was rejected, or another machine
    published, whose ledger may be its own."""
    store = context.store
    attempt = evidence.latest(store, context.asset, context.partition)
    lost = attempt is None or attempt.state not in ("published", "unchanged")
    if lost or not are_entered(store, current):
        store.ledger.record(rows_of(stage, current))
        note_entered(store, current)


@contextmanager
def _noting(context: StageContext) -> Iterator[None]:
    """Record a failed attempt; its error is raised again."""
    try:
        yield
    except Exception as error:
        _note(context, "failed", getattr(error, "what", f"{type(error).__name__}: {error}"))
        raise


def _note(
    context: StageContext,
    state: evidence.State,
    reason: str = "",
    detail: Mapping[str, Any] | None = None,
) -> None:
    attempt = Attempt(state, reason, context.run_id, detail or {})
    evidence.note(context.store, context.asset, context.partition, attempt)
