"""Jobs, the nightly schedule, backfills, and the warm loop that `hoi run` and Dagster share.

The loop (`drive`) runs one Dagster run per category or scenario, all in this process, so that
weights load once. It bypasses Dagster's run queue: the lock of (asset, partition) inside each step
keeps two runs apart instead, and runs whose process died are reported at the next start.
"""

import os
import socket
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, get_args

import dagster as dg
import psutil
from dagster import DagsterInstance, DagsterRunStatus
from dagster._core.events import RunFailureReason
from dagster._core.execution.plan.objects import ErrorSource

from hoi_assets.defs.resources import Platform
from hoi_assets.errors import HoiError
from hoi_assets.progress import Log
from hoi_assets.publishing.asset import FORCE_TAG, said_to
from hoi_assets.publishing.graph import Graph, Phase, State, Status
from hoi_assets.publishing.stage import Partitions

Only = Literal["all", "stale", "failed", "missing"]
ONLY: tuple[Only, ...] = get_args(Only)

PID_TAG, HOST_TAG, STARTED_TAG = "hoi/pid", "hoi/host", "hoi/process_started"
DRIVER_TAG = "hoi/driver"  # the run of `regenerate`, or one id per `hoi run`
IN_PROGRESS = (
    DagsterRunStatus.STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.CANCELING,
    DagsterRunStatus.NOT_STARTED,
)
JOB_NAMES = {
    (0, None): "line_head",
    (1, "hand_pose"): "hand_pose_line",
    (1, "scenario"): "scenario_line",
    (2, None): "line_dataset",
    (3, "hand_pose"): "hand_pose_evaluation",
    (4, None): "line_tail",
}
ONE_RUN_FOR = {
    None: "For all categories and scenarios at once: ",
    "hand_pose": "One hand-pose category: ",
    "scenario": "One scenario: ",
}
NIGHTLY_CRON = "0 3 * * *"
DAEMON_ALIVE_S = 120

# A fan-in follows its parents once they are at rest; `eager()` would wait for every partition.
FOLLOW = (
    dg.AutomationCondition.any_deps_updated().since_last_handled()
    & ~dg.AutomationCondition.any_deps_in_progress()
    & ~dg.AutomationCondition.in_progress()
)
FOLLOW_TOGETHER = FOLLOW | dg.AutomationCondition.any_deps_match(
    dg.AutomationCondition.will_be_requested()
)
FOLLOW_PER_CATEGORY = FOLLOW & ~dg.AutomationCondition.any_deps_missing()


@dataclass(frozen=True)
class Line:
    """The graph with what runs it.

    Attributes:
        defs: assets, one job per phase, resources.
    """

    graph: Graph
    platform: Platform
    defs: dg.Definitions


def job_name(phase: Phase) -> str:
    """Name of the job that runs a phase."""
    place = (phase.number, phase.partitions)
    return JOB_NAMES.get(place, f"{phase.partitions or 'line'}_phase_{phase.number}")


def phase_jobs(graph: Graph) -> list[Any]:
    """One asset job per phase."""
    return [
        dg.define_asset_job(
            job_name(phase),
            selection=dg.AssetSelection.assets(*[s.name for s in phase.stages]),
            executor_def=dg.in_process_executor,
            description=ONE_RUN_FOR[phase.partitions] + ", ".join(s.name for s in phase.stages),
        )
        for phase in graph.phases()
    ]


def conditions(graph: Graph) -> dict[str, dg.AutomationCondition]:
    """For every stage after the categories' chain: follow the parents (see `FOLLOW`)."""
    found: dict[str, dg.AutomationCondition] = {}
    for phase in graph.phases():
        if phase.number < 2:
            continue
        for stage in phase.stages:
            inside = any(dep in {s.name for s in phase.stages} for dep in stage.deps)
            if phase.partitions:
                found[stage.name] = FOLLOW_PER_CATEGORY
            else:
                found[stage.name] = FOLLOW_TOGETHER if inside else FOLLOW
    return found


def follow_sensor(names: Sequence[str]) -> dg.AutomationConditionSensorDefinition:
    """Runs what comes after the categories once a backfill is done; shipped stopped."""
    return dg.AutomationConditionSensorDefinition(
        "follow_categories",
        target=dg.AssetSelection.assets(*names),
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="After categories were made: the dataset, the fine-tuned model, the scores.",
    )


# --- the warm loop -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Done:
    """How one phase ended for one category or scenario (or for all, `partition` None).

    Attributes:
        end: made; unchanged (its steps found nothing to do); skipped (not asked for by `only`, or
            what it needs is held); held (a step failed, or its gate did not hold).
        asset: the stage that failed.
    """

    job: str
    partition: str | None
    end: Literal["made", "unchanged", "skipped", "held"]
    seconds: float = 0.0
    run_id: str | None = None
    asset: str | None = None
    reason: str = ""


@dataclass
class Report:
    """What `drive` did."""

    done: list[Done] = field(default_factory=list)

    @property
    def held(self) -> list[Done]:
        return [d for d in self.done if d.end == "held"]

    def table(self) -> str:
        """As aligned text, one line per phase and partition."""
        rows = [("job", "partition", "end", "seconds", "what")]
        for d in self.done:
            what = f"{d.asset}: {d.reason}" if d.asset else d.reason
            seconds = f"{d.seconds:.1f}" if d.run_id else ""
            rows.append(
                (
                    d.job,
                    d.partition or "",
                    d.end,
                    seconds,
                    what.splitlines()[0][:160] if what else "",
                )
            )
        return aligned(rows)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text in columns; the first row is the head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])


def keys_in_use(line: Line) -> tuple[str, ...]:
    """Categories and scenarios that the profile runs, and those with anything published."""
    platform = line.platform
    named = platform.run_keys()
    made = {p for s in line.graph.stages if s.partitions for p in platform.store.partitions(s.name)}
    return tuple(
        k for own in platform.partition_keys.values() for k in own if k in made or k in named
    )


def drive(
    line: Line,
    instance: DagsterInstance,
    keys: Sequence[str],
    *,
    only: Only = "all",
    force: bool = False,
    log: Log = print,
    parent_run_id: str | None = None,
) -> Report:
    """Run the graph phase by phase, the partitions one after the other, in this process.

    A partition whose step fails is held: it is named, left out of later phases, and the others go
    on. A failure in a phase without partitions ends the run there.

    Args:
        keys: categories and scenarios; a phase runs for those of its own partitions.
        only: `all`; `stale` (whatever is not fresh: changed, missing or held); `failed` (held, or
            with failed rows); `missing` (nothing published). What follows from something made in
            this call runs as well.
        force: compute though inputs are unchanged.
        parent_run_id: the Dagster run this loop is part of; its children are tagged with it.

    Returns:
        What was done; `report.held` is empty when all went well.
    """
    report_dead_runs(instance, log)
    tags = {**process_tags(), DRIVER_TAG: parent_run_id or str(uuid.uuid4())}
    if force:
        tags[FORCE_TAG] = "true"
    report = Report()
    held: set[str] = set()
    touched: set[str | None] = set()  # partitions in which something was made; None: for all
    for phase in line.graph.phases():
        name = job_name(phase)
        units: Sequence[str | None] = [None]
        if phase.partitions:
            units = [key for key in keys if key in line.platform.partition_keys[phase.partitions]]
        for number, key in enumerate(units, start=1):
            where = f"{name} {key} ({number}/{len(units)})" if key else name
            if key in held:
                report.done.append(Done(name, key, "skipped", reason="held before"))
                continue
            follows = bool(touched) if key is None else bool({None, key} & touched)
            nothing = _nothing_to_read(line, phase)
            if nothing:
                report.done.append(Done(name, key, "skipped", reason=nothing))
                continue
            if not (force or only == "all" or follows) and not _asked_for(line, phase, key, only):
                report.done.append(Done(name, key, "skipped", reason=f"nothing {only}"))
                continue
            done = _run(line, instance, name, key, tags, partial(_said, log, where))
            log(f"{where}: {done.end} in {done.seconds:.1f} s" + _why(done))
            report.done.append(done)
            if done.end == "made":
                touched.add(key)
            if done.end == "held" and key is not None:
                held.add(key)
            if done.end == "held" and key is None:
                return report
    return report


def _nothing_to_read(line: Line, phase: Phase) -> str:
    """Why a phase without partitions has nothing to gather; empty where it has, or gathers none."""
    if phase.partitions is not None:
        return ""
    graph, platform = line.graph, line.platform
    inside = {stage.name for stage in phase.stages}
    kinds = {
        dep: partitions
        for stage in phase.stages
        for dep in stage.deps
        if dep not in inside and (partitions := graph[dep].partitions)
    }
    found = any(
        platform.store.current(dep, key) is not None
        for dep, partitions in kinds.items()
        for key in platform.partition_keys[partitions]
    )
    return "" if found or not kinds else f"no {' or '.join(sorted(set(kinds.values())))} is made"


def _said(log: Log, where: str, text: str) -> None:
    log(f"{where}: {text}")


def _why(done: Done) -> str:
    return f"\n  {done.asset}: {done.reason}" if done.end == "held" else ""


def _asked_for(line: Line, phase: Phase, partition: str | None, only: Only) -> bool:
    pairs = [(stage.name, partition) for stage in phase.stages]
    platform = line.platform
    found = line.graph.status(platform.settings, platform.store, platform.partition_keys, pairs)
    return any(matches(status, only) for status in found)


def matches(status: Status, only: Only) -> bool:
    """Whether `only` asks for a (stage, partition) that stands like this."""
    wanted: Mapping[Only, tuple[State, ...]] = {
        "all": ("fresh", "stale", "missing", "held"),
        "stale": ("stale", "missing", "held"),
        "failed": ("held",),
        "missing": ("missing",),
    }
    return status.state in wanted[only] or (only == "failed" and status.failed_rows > 0)


def _run(
    line: Line,
    instance: DagsterInstance,
    job: str,
    partition: str | None,
    tags: Mapping[str, str],
    log: Log,
) -> Done:
    start = time.monotonic()
    with said_to(log):
        result = line.defs.resolve_job_def(job).execute_in_process(
            partition_key=partition,
            instance=instance,
            raise_on_error=False,
            tags=dict(tags),
            # The terminal is `say`'s; the run's log in the UI has every line regardless.
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
    seconds = time.monotonic() - start
    if _interrupted(result):
        raise KeyboardInterrupt
    if not result.success:
        asset, reason = _failure(result)
        return Done(job, partition, "held", seconds, result.run_id, asset, reason)
    made = [
        event
        for event in result.all_events
        if event.is_step_materialization
        and event.step_materialization_data.materialization.metadata["unchanged"].value is False
    ]
    return Done(job, partition, "made" if made else "unchanged", seconds, result.run_id)


def _interrupted(result: dg.ExecuteInProcessResult) -> bool:
    """Whether Ctrl-C or a click on Terminate ended the run: Dagster keeps that to itself."""
    return any(
        (event.is_step_failure and event.step_failure_data.error_source == ErrorSource.INTERRUPT)
        or (
            event.is_job_failure
            and event.job_failure_data.failure_reason == RunFailureReason.UNEXPECTED_TERMINATION
        )
        for event in result.all_events
    )


def _failure(result: dg.ExecuteInProcessResult) -> tuple[str, str]:
    """Name of the step that failed first, and why, for people."""
    for event in result.all_events:
        if event.is_step_failure:
            data = event.step_failure_data
            if data.user_failure_data is not None and data.user_failure_data.description:
                return event.step_key or "", data.user_failure_data.description
            error = data.error
            while error is not None and error.cause is not None:
                error = error.cause
            return event.step_key or "", error.to_string().strip() if error else "no reason given"
    return "run", f"failed outside its steps; see run {result.run_id} in the UI"


# --- runs of this process, and of processes that died ------------------------------------------


def process_tags() -> dict[str, str]:
    """Tags by which a later start can tell whether this process still lives."""
    return {
        PID_TAG: str(os.getpid()),
        HOST_TAG: socket.gethostname(),
        STARTED_TAG: f"{psutil.Process().create_time():.2f}",
    }


def report_dead_runs(instance: DagsterInstance, log: Log = print) -> list[str]:
    """Report runs of `drive` whose process died as failed; returns their ids.

    Dagster's run monitoring cannot see them, and a run that stays STARTED blocks its category.
    """
    dead = []
    for run in instance.get_runs(filters=dg.RunsFilter(statuses=list(IN_PROGRESS))):
        if run.tags.get(HOST_TAG) == socket.gethostname() and not _alive(run.tags):
            message = f"its process {run.tags[PID_TAG]} ended without finishing it"
            instance.report_run_failed(run, message)
            log(f"run {run.run_id} of {run.job_name}: {message}; reported as failed")
            dead.append(run.run_id)
    return dead


def _alive(tags: Mapping[str, str]) -> bool:
    try:
        started = psutil.Process(int(tags[PID_TAG])).create_time()
    except (psutil.NoSuchProcess, KeyError, ValueError):
        return False
    except psutil.AccessDenied:
        return True
    return f"{started:.2f}" == tags.get(STARTED_TAG)


# --- jobs that loop ----------------------------------------------------------------------------


def loop_job(line: Line, name: str, only: Only, description: str) -> dg.JobDefinition:
    """A job of one op that runs `drive` in its own process."""

    @dg.op(
        name=f"{name}_loop",
        config_schema={
            "partitions": dg.Field(
                [str],
                default_value=[],
                description="Categories and scenarios; empty: the profile's and those made before.",
            ),
            "only": dg.Field(
                dg.Enum("Only", [dg.EnumValue(word) for word in ONLY]), default_value=only
            ),
            "force": dg.Field(bool, default_value=False),
        },
    )
    def loop(context: dg.OpExecutionContext) -> None:
        config: Any = context.op_config
        try:
            chosen = line.platform.chosen(config["partitions"]) or keys_in_use(line)
            report = drive(
                line,
                context.instance,
                chosen,
                only=config["only"],
                force=config["force"],
                log=context.log.info,
                parent_run_id=context.run_id,
            )
        except HoiError as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        table = {"report": dg.MetadataValue.md(f"```\n{report.table()}\n```")}
        if report.held:
            names = ", ".join(dict.fromkeys(d.partition or d.job for d in report.held))
            raise dg.Failure(f"held: {names}\n{report.table()}", metadata=table)
        context.add_output_metadata(table)

    @dg.job(name=name, executor_def=dg.in_process_executor, description=description)
    def job() -> None:
        loop()

    return job


def nightly(job_name: str) -> dg.ScheduleDefinition:
    """What changed, failed or is missing, every night; shipped stopped."""
    return dg.ScheduleDefinition(
        name="nightly_regeneration",
        job_name=job_name,
        cron_schedule=NIGHTLY_CRON,
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Makes again what changed, failed or is missing.",
    )


# --- backfills ---------------------------------------------------------------------------------


def launch_backfills(
    line: Line, instance: DagsterInstance, keys: Sequence[str], tags: Mapping[str, str]
) -> list[str]:
    """Ask Dagster's daemon to make the partitions' chain, one run per category or scenario.

    What comes after (the dataset and on) is not part of it: a fan-in is never launched by a
    backfill with a failed category. Run `hoi run`, or switch the sensor `follow_categories` on.

    Returns:
        The backfills' ids: one for hand poses, one for scenarios, as asked for.
    """
    chosen = {
        kind: [key for key in keys if key in own]
        for kind, own in line.platform.partition_keys.items()
    }
    return [
        _launch_backfill(line, instance, kind, own, tags) for kind, own in chosen.items() if own
    ]


def _launch_backfill(
    line: Line,
    instance: DagsterInstance,
    partitions: Partitions,
    keys: Sequence[str],
    tags: Mapping[str, str],
) -> str:
    # Imported here: a quarter of a second that loading the definitions need not pay.
    from dagster._core.execution.backfill import PartitionBackfill
    from dagster._core.utils import make_new_backfill_id

    phase = next(phase for phase in line.graph.phases() if phase.partitions == partitions)
    backfill_id = make_new_backfill_id()
    instance.add_backfill(
        PartitionBackfill.from_asset_partitions(
            backfill_id=backfill_id,
            asset_graph=line.defs.resolve_asset_graph(),
            partition_names=list(keys),
            asset_selection=[dg.AssetKey(stage.name) for stage in phase.stages],
            backfill_timestamp=time.time(),
            tags=dict(tags),
            dynamic_partitions_store=instance,
            all_partitions=False,
            title=f"hoi backfill: {', '.join(keys)}"[:100],
            description=None,
            run_config=None,
        )
    )
    return backfill_id


def daemon_alive(instance: DagsterInstance) -> bool:
    """Whether a daemon that runs backfills reported lately."""
    beat = instance.get_daemon_heartbeats().get("BACKFILL")
    return beat is not None and time.time() - beat.timestamp < DAEMON_ALIVE_S
