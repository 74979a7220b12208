"""Write, audit, publish: carries a stage out for one partition. No Dagster."""

import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hoi_assets.errors import HoiError
from hoi_assets.hashing import files_below
from hoi_assets.publishing import evidence
from hoi_assets.publishing.evidence import Attempt, Evidence
from hoi_assets.publishing.gate_result import GateResult
from hoi_assets.publishing.graph import Graph
from hoi_assets.publishing.metadata import plain
from hoi_assets.publishing.stage import Result, Stage, Work
from hoi_assets.publishing.validation import ValidationRun, evaluate
from hoi_assets.store.disk import FULL, DiskFull, writing
from hoi_assets.store.versions import Published, Staging

if TYPE_CHECKING:
    from collections.abc import Iterator

    import polars as pl

# The lock ends with the process that holds it, so a long wait is safe.
LOCK_TIMEOUT_S = 24 * 3600.0


@dataclass(frozen=True)
class Outcome:
    """How carrying out ended.

    Attributes:
        published: the version now in force; None where the gate held it back.
        unchanged: nothing was computed, the inputs being as before.
        quarantine: where the rejected output lies.
        seconds: time taken, of this machine.
    """

    published: Published | None
    unchanged: bool
    found: Evidence
    metadata: evidence.Metadata
    lineage: Sequence[Published]
    seconds: float = 0.0
    quarantine: Path | None = None

    @property
    def verdict(self) -> GateResult:
        return self.found.verdict


def carry_out(graph: Graph, stage: Stage, work: Work) -> Outcome:
    """Make the stage's output unless it is there, and publish it if its gate holds.

    Raises:
        HoiError: a parent is not published, or whatever the stage finds wrong. Nothing published
            is touched then; the attempt is noted, so that `hoi stale` shows it.
    """
    start = time.monotonic()
    store = work.store
    with _alone(work):
        # Read only now: another run may have published while this one waited.
        work = graph.work(
            stage,
            work.partition,
            work.settings,
            store,
            work.keys,
            run_id=work.run_id,
            force=work.force,
            log=work.log,
        )
        with _noting(work):
            lineage = graph.lineage(stage, work)
            inputs = graph.inputs(stage, work)
            current = store.current(stage.name, work.partition)
            place = (store, stage.name, work.partition)
            kept = None if current is None else evidence.find(*place, current.version)
            whole = current is not None and current.path.is_dir()
            if current is None or kept is None or kept.failed_rows or work.force or not whole:
                outcome = _make(graph, stage, work, inputs, lineage)
            elif current.inputs == inputs:
                _note(work, "unchanged")
                metadata = evidence.metadata_of(*place, current.version)
                outcome = Outcome(current, True, kept, metadata, lineage)
            elif _but_gate(current.inputs) == _but_gate(inputs) and kept.only_tables:
                outcome = _judge_again(graph, stage, work, inputs, lineage, current)
            else:
                outcome = _make(graph, stage, work, inputs, lineage)
    return replace(outcome, seconds=time.monotonic() - start)


def _alone(work: Work) -> ExitStack:
    """The lock of (asset, partition), held until the stack is closed; says that it waits."""
    place = (work.stage_name, work.partition)
    held = ExitStack()
    try:
        held.enter_context(work.store.lock(*place, timeout_s=1))
    except HoiError as error:
        work.log(f"waiting: {error.what}")
        held.enter_context(work.store.lock(*place, timeout_s=LOCK_TIMEOUT_S))
    return held


def _make(
    graph: Graph,
    stage: Stage,
    work: Work,
    inputs: dict[str, Any],
    lineage: Sequence[Published],
) -> Outcome:
    """Call the stage's function, audit, publish."""
    _note(work, "started")
    with work.store.stage(stage.name, work.partition) as out:
        try:
            result = stage(work, out)
        except OSError as error:
            if error.errno in FULL:
                raise DiskFull(out.path) from error
            raise
        return _audit(graph, stage, work, inputs, lineage, out, result)


def _judge_again(
    graph: Graph,
    stage: Stage,
    work: Work,
    inputs: dict[str, Any],
    lineage: Sequence[Published],
    current: Published,
) -> Outcome:
    """Only the gate's rules changed: ask them of a copy of the version in force."""
    work.log("inputs unchanged, gate changed: judging the version in force again")
    _note(work, "started")
    with work.store.stage(stage.name, work.partition) as out:
        with writing(out.path):
            for name, path in files_below(current.path):
                (out.path / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, out.path / name)
        metadata = evidence.metadata_of(work.store, stage.name, work.partition, current.version)
        return _audit(graph, stage, work, inputs, lineage, out, Result(), metadata)


def _audit(
    graph: Graph,
    stage: Stage,
    work: Work,
    inputs: dict[str, Any],
    lineage: Sequence[Published],
    out: Staging,
    result: Result,
    metadata: evidence.Metadata | None = None,
) -> Outcome:
    store = work.store
    if metadata is None:
        metadata = {name: plain(name, value) for name, value in result.metadata.items()}
    try:
        tables = {**_tables(out.path), **result.audit}
        run = ValidationRun(store.home, stage.name, work.partition, work.run_id)
        verdict = evaluate(tables, graph.rules(stage, work.settings), run)
        rows = {name: table.height for name, table in tables.items()}
    except Exception as error:
        verdict, rows = GateResult.of_crash(error), {}
    found = Evidence(
        verdict=verdict,
        rows=rows,
        failed_rows=sum(row["status"] == "failed" for row in work.recorded),
        only_tables=not result.audit,
    )
    if not verdict.passed:
        place = store.quarantine(
            out,
            {
                "summary": verdict.summary,
                "findings": verdict.as_json(),
                "inputs": inputs,
                "run_id": work.run_id,
            },
        )
        _note(work, "rejected", f"gate: {verdict.summary}", {"quarantine": str(place)})
        _enter_rows(work, None)
        return Outcome(None, False, found, metadata, lineage, quarantine=place)
    version = out.version()
    # Before publishing: a version in force without its evidence would be made again.
    evidence.keep(store, stage.name, work.partition, version, found, metadata)
    parents = {parent.name: parent.version for parent in lineage}
    published = store.publish(out, inputs, work.run_id, parents)
    _enter_rows(work, version)
    _note(work, "published")
    return Outcome(published, False, found, metadata, lineage)


def _tables(folder: Path) -> dict[str, "pl.DataFrame"]:
    import polars as pl

    return {p.stem: pl.read_parquet(p, glob=False) for p in sorted(folder.glob("*.parquet"))}


def _enter_rows(work: Work, version: str | None) -> None:
    """Rows of a rejected version stay as they ended; they bear no version."""
    place = {"stage": work.stage_name, "partition": work.partition, "version": version}
    if work.recorded:
        work.store.ledger.record([{**place, **row} for row in work.recorded])


@contextmanager
def _noting(work: Work) -> "Iterator[None]":
    """Remember a failed attempt; its error goes on."""
    try:
        yield
    except Exception as error:
        _note(work, "failed", getattr(error, "what", f"{type(error).__name__}: {error}"))
        raise


def _note(
    work: Work,
    state: evidence.State,
    reason: str = "",
    detail: Mapping[str, Any] | None = None,
) -> None:
    attempt = Attempt(state, reason, work.run_id, detail or {})
    evidence.note(work.store, work.stage_name, work.partition, attempt)


def _but_gate(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in inputs.items() if name != "gate"}
