"""The warm loop that `hoi run` and the job `regenerate` share.

Start-up and loading weights cost more than most steps, so the pipelines' jobs run one after the
other in this process, each as a Dagster run of its own. The loop bypasses Dagster's run queue: the
lock of (asset, partition) inside each step keeps two runs apart instead, and runs whose process
died are reported at the next start.
"""

import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, get_args

import dagster as dg

from hoi_assets.defs.dagster_private import execute_under, repository_of, was_interrupted
from hoi_assets.defs.executors import require_executor
from hoi_assets.defs.project import Project
from hoi_assets.defs.runs import DRIVER_TAG, process_tags, report_dead_runs
from hoi_assets.progress import Log
from hoi_assets.publishing.asset import FORCE_TAG, logged_to
from hoi_assets.publishing.data_docs import build_index
from hoi_assets.publishing.staleness import State, Status, status
from hoi_assets.text import aligned

Only = Literal["all", "stale", "failed", "missing"]
ONLY: tuple[Only, ...] = get_args(Only)
Place = tuple[str, str | None]  # asset, partition

WANTED: Mapping[Only, tuple[State, ...]] = {
    "all": get_args(State),
    "stale": ("stale", "missing", "blocked"),
    "failed": ("blocked",),
    "missing": ("missing",),
}


@dataclass(frozen=True)
class Done:
    """How one job ended for one category or scenario (or for all: `partition` None).

    Attributes:
        end: made; unchanged (its steps found nothing to do); skipped (`only` does not select it, or
            what it needs is blocked or missing); blocked (a step failed or its gate rejected).
        asset: the asset that failed.
    """

    job: str
    partition: str | None
    end: Literal["made", "unchanged", "skipped", "blocked"]
    seconds: float = 0.0
    run_id: str | None = None
    asset: str | None = None
    reason: str = ""


@dataclass
class Report:
    """What `run_pipelines` did."""

    done: list[Done] = field(default_factory=list)

    @property
    def blocked(self) -> list[Done]:
        return [one for one in self.done if one.end == "blocked"]

    @property
    def blocked_names(self) -> str:
        """The blocked partitions, or jobs without partitions, for a sentence."""
        return ", ".join(dict.fromkeys(one.partition or one.job for one in self.blocked))

    def table(self) -> str:
        """As aligned text, one line per job and partition."""
        rows = [("job", "partition", "end", "seconds", "reason")]
        for one in self.done:
            reason = f"{one.asset}: {one.reason}" if one.asset else one.reason
            rows.append(
                (
                    one.job,
                    one.partition or "",
                    one.end,
                    f"{one.seconds:.1f}" if one.run_id else "",
                    reason.splitlines()[0][:160] if reason else "",
                )
            )
        return aligned(rows)


def matches(one: Status, only: Only) -> bool:
    """Whether `only` selects an (asset, partition) in this state."""
    return one.state in WANTED[only] or (only == "failed" and one.failed_rows > 0)


def relevant_assets(project: Project, keys: Sequence[str]) -> set[str]:
    """Assets of these categories and scenarios, everything downstream, and all that those require.
    Assets of the other pipeline are not among them."""
    graph = project.graph
    own = [stage.name for stage in graph.stages if set(keys) & set(stage.partition_keys)]
    return graph.upstream(graph.downstream(own))


def run_pipelines(
    project: Project,
    instance: dg.DagsterInstance,
    keys: Sequence[str],
    *,
    only: Only = "all",
    force: bool = False,
    log: Log = print,
    parent_run_id: str | None = None,
    assets: Collection[str] | None = None,
    config: Mapping[str, Mapping[str, Any]] | None = None,
) -> Report:
    """Run the pipelines' jobs in order, the partitions one after the other, in this process.

    A partition whose step fails is blocked: it is named, left out of later jobs, and the others go
    on. Where a step without partitions fails, everything that requires it is left out.

    Args:
        keys: categories and scenarios; jobs that do not concern them are left out.
        only: `all`; `stale` (whatever is not fresh: changed, missing or blocked); `failed`
            (blocked, or with failed rows); `missing` (nothing published). What reads something
            made in this call runs as well.
        force: compute although inputs are unchanged.
        parent_run_id: the Dagster run this loop is part of; its children are tagged with it.
        assets: run no others; None runs all.
        config: of assets, as in the launchpad.

    Returns:
        What was done; `report.blocked` is empty when all went well.

    Raises:
        HoiError: the cluster of `HOI_EXECUTOR` does not answer.
    """
    require_executor()
    report_dead_runs(instance, log)
    tags = {**process_tags(), DRIVER_TAG: parent_run_id or str(uuid.uuid4())}
    if force:
        tags[FORCE_TAG] = "true"
    loop = _Loop(project, instance, tags, only, force, log, config or {})
    relevant = relevant_assets(project, keys)
    if assets is not None:
        relevant &= set(assets)
    for job in project.pipeline_jobs:
        names = tuple(name for name in project.assets_of(job) if name in relevant)
        if not names:
            continue
        partitions_def = project.partitions_of(job)
        units: Sequence[str | None] = [None]
        if partitions_def is not None:
            units = [key for key in partitions_def.get_partition_keys() if key in keys]
        for number, key in enumerate(units, start=1):
            where = f"{job.name} {key} ({number}/{len(units)})" if key else job.name
            loop.run(job.name, names, key, where)
    build_index(project.platform.store.home)
    return loop.report


class _Loop:
    """State of one call of `run_pipelines`."""

    def __init__(
        self,
        project: Project,
        instance: dg.DagsterInstance,
        tags: Mapping[str, str],
        only: Only,
        force: bool,
        log: Log,
        config: Mapping[str, Mapping[str, Any]],
    ) -> None:
        self.config = config
        self.project = project
        self.instance = instance
        self.tags = tags
        self.repository = repository_of(instance, tags[DRIVER_TAG])
        self.only = only
        self.force = force
        self.log = log
        self.report = Report()
        self.blocked_keys: set[str] = set()
        self.blocked_assets: set[str] = set()
        self.made: set[Place] = set()

    def run(self, job: str, names: Sequence[str], key: str | None, where: str) -> None:
        """Run one job for one partition, or note why not."""
        if key in self.blocked_keys:
            self._skip(job, key, "blocked before")
            return
        reasons = {name: self._cannot_run(name) for name in names}
        runnable = [name for name, reason in reasons.items() if not reason]
        if not runnable:
            self._skip(job, key, next(iter(reasons.values())))
            return
        if not (self.force or self.only == "all" or self._follows(runnable, key)):
            asked = status(
                self.project.graph,
                self.project.platform.settings,
                self.project.platform.store,
                [(name, key) for name in runnable],
            )
            if not any(matches(one, self.only) for one in asked):
                self._skip(job, key, f"nothing {self.only}")
                return
        done = self._execute(job, runnable, key, where)
        why = f"\n  {done.asset}: {done.reason}" if done.end == "blocked" else ""
        self.log(f"{where}: {done.end} in {done.seconds:.1f} s{why}")
        self.report.done.append(done)
        if done.end == "blocked":
            if key is None:
                self.blocked_assets.add(done.asset or job)
            else:
                self.blocked_keys.add(key)

    def _skip(self, job: str, key: str | None, reason: str) -> None:
        self.report.done.append(Done(job, key, "skipped", reason=reason))

    def _cannot_run(self, name: str) -> str:
        """Why an asset is left out: something that it requires is blocked or not there."""
        graph, store = self.project.graph, self.project.platform.store
        needed = graph.upstream([name])
        for stage in graph.stages:
            if stage.name not in needed:
                continue
            if stage.name in self.blocked_assets:
                return f"{stage.name} is blocked"
            for dep in stage.required:
                keys = graph.partitions_read(stage, dep, None)
                fan_in = graph[dep].partitions_def not in (None, stage.partitions_def)
                if fan_in and not any(store.current(dep, key) for key in keys):
                    return f"no partition of {dep} is published"
        return ""

    def _follows(self, names: Sequence[str], key: str | None) -> bool:
        """Whether something that these assets read was made in this call."""
        graph = self.project.graph
        return any(
            (dep, partition) in self.made
            for name in names
            for dep in graph[name].deps
            for partition in graph.partitions_read(graph[name], dep, key)
        )

    def _execute(self, job: str, names: Sequence[str], key: str | None, where: str) -> Done:
        start = time.monotonic()
        ops = {name: {"config": self.config[name]} for name in names if name in self.config}
        # The terminal is `log`'s; the run's log in the UI has every line regardless.
        loggers = {"console": {"config": {"log_level": "CRITICAL"}}}
        with logged_to(partial(_prefixed, self.log, where)):
            result = execute_under(
                self.repository,
                self.project.pipelines.resolve_job_def(job),
                self.instance,
                assets=[dg.AssetKey(name) for name in names],
                partition_key=key,
                tags=self.tags,
                run_config={"loggers": loggers, **({"ops": ops} if ops else {})},
            )
        seconds = time.monotonic() - start
        if was_interrupted(result):
            raise KeyboardInterrupt
        made = [asset for asset, unchanged in _materialised(result) if not unchanged]
        self.made.update((asset, key) for asset in made)
        if not result.success:
            asset, reason = _failure(result)
            return Done(job, key, "blocked", seconds, result.run_id, asset, reason)
        return Done(job, key, "made" if made else "unchanged", seconds, result.run_id)


def _prefixed(log: Log, where: str, text: str) -> None:
    log(f"{where}: {text}")


def _materialised(result: dg.ExecuteInProcessResult) -> list[tuple[str, bool]]:
    """(asset, unchanged) of every materialisation."""
    return [
        (one.asset_key.to_user_string(), bool(one.metadata["unchanged"].value))
        for event in result.all_events
        if event.is_step_materialization
        for one in [event.step_materialization_data.materialization]
    ]


def _failure(result: dg.ExecuteInProcessResult) -> tuple[str, str]:
    """The asset that failed first, and why, for people."""
    for event in result.all_events:
        if event.is_step_failure:
            data: Any = event.step_failure_data
            if data.user_failure_data is not None and data.user_failure_data.description:
                return event.step_key or "", data.user_failure_data.description
            error = _innermost(data.error)
            return event.step_key or "", error.to_string().strip() if error else "no reason given"
    # Dagster's own parts failed, such as its database.
    errors = [event.job_failure_data.error for event in result.all_events if event.is_job_failure]
    error = _innermost(errors[0]) if errors else None
    why = f": {error.message.strip().splitlines()[0]}" if error and error.message.strip() else ""
    return "run", f"failed outside its steps; see run {result.run_id} in the UI{why}"


def _innermost(error: Any) -> Any:
    while error is not None and error.cause is not None:
        error = error.cause
    return error
