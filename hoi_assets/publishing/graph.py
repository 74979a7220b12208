"""The stages as one graph: order, phases, inputs, and what of it is out of date. No Dagster."""

import json
import pkgutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, get_args

from hoi_assets.errors import HoiError
from hoi_assets.hashing import canonical_json, digest
from hoi_assets.progress import Log
from hoi_assets.publishing import evidence
from hoi_assets.publishing.expectations import Expectation, resolve
from hoi_assets.publishing.stage import Keys, Partitions, Stage, Work
from hoi_assets.settings import Settings
from hoi_assets.store.versions import Published, Store
from hoi_assets.store.weights import model_digest

State = Literal["fresh", "stale", "missing", "held"]


@dataclass(frozen=True)
class Phase:
    """Stages that run together: once per key of their partitions, or once where they have none."""

    number: int
    partitions: Partitions | None
    stages: tuple[Stage, ...]


@dataclass(frozen=True)
class Status:
    """How one (stage, partition) stands.

    Attributes:
        state: fresh; stale (its inputs changed, or a row failed); missing (nothing published);
            held (its latest attempt failed, or was rejected by the gate, or was interrupted).
        reasons: in words, for people.
        published: the version in force, which may be there in every state but missing.
        failed_rows: rows of that version that failed and can be tried again.
    """

    stage: str
    partition: str | None
    state: State
    reasons: tuple[str, ...]
    published: Published | None
    failed_rows: int = 0


class Graph:
    """Stages in topological order, with their suites.

    Args:
        stages: in any order.
        suites: expectations by the stage's name.

    Raises:
        HoiError: a name twice, an unknown parent, a circle, or a stage without a suite.
    """

    def __init__(
        self, stages: Iterable[Stage], suites: Mapping[str, Sequence[Expectation]]
    ) -> None:
        by_name: dict[str, Stage] = {}
        for stage in stages:
            if by_name.setdefault(stage.name, stage) is not stage:
                raise HoiError(f"two stages are named {stage.name!r}", "rename one of them")
        self._by_name = by_name
        self.stages = tuple(self._ordered())
        self.suites = suites
        bare = [stage.name for stage in self.stages if not suites.get(stage.name)]
        if bare:
            raise HoiError(
                f"no gate for {', '.join(bare)}", "add its suite to hoi_assets/publishing/suites.py"
            )

    def __getitem__(self, name: str) -> Stage:
        if name not in self._by_name:
            raise HoiError(f"no stage {name!r}", f"name one of: {', '.join(self._by_name)}")
        return self._by_name[name]

    def _ordered(self) -> Iterator[Stage]:
        done: set[str] = set()
        waiting = list(self._by_name.values())
        while waiting:
            ready = [s for s in waiting if set(s.deps) <= done]
            if not ready:
                lacks = {s.name: sorted(set(s.deps) - done) for s in waiting}
                raise HoiError(
                    f"stages wait for parents that never come: {lacks}",
                    "mend the names in deps=, or the circle",
                )
            yield from ready
            done |= {s.name for s in ready}
            waiting = [s for s in waiting if s.name not in done]

    def phases(self) -> list[Phase]:
        """In the order in which they run; the number counts changes of partitions on the way."""
        number: dict[str, int] = {}
        for stage in self.stages:
            lowest = 1 if stage.partitions else 0
            after = [number[dep] + (self[dep].partitions != stage.partitions) for dep in stage.deps]
            number[stage.name] = max([lowest, *after])
        places: list[tuple[int, Partitions | None]] = [
            (n, partitions)
            for n in sorted(set(number.values()))
            for partitions in (None, *get_args(Partitions))
        ]
        phases = [
            Phase(
                n,
                partitions,
                tuple(s for s in self.stages if (number[s.name], s.partitions) == (n, partitions)),
            )
            for n, partitions in places
        ]
        return [phase for phase in phases if phase.stages]

    def rules(self, stage: Stage, settings: Settings) -> Sequence[Expectation]:
        """The stage's suite with the thresholds of these settings."""
        return resolve(self.suites[stage.name], settings)

    def work(
        self,
        stage: Stage,
        partition: str | None,
        settings: Settings,
        store: Store,
        keys: Keys,
        *,
        run_id: str | None = None,
        force: bool = False,
        log: Log = print,
    ) -> Work:
        """What the stage may read: a snapshot of the versions in force now."""
        parents: dict[str, Published | dict[str, Published] | None] = {}
        for dep in stage.deps:
            theirs = self[dep].partitions
            if theirs is None:
                parents[dep] = store.current(dep)
            elif stage.partitions == theirs:
                parents[dep] = store.current(dep, partition)
            else:
                found = {key: store.current(dep, key) for key in keys[theirs]}
                parents[dep] = {key: p for key, p in found.items() if p is not None}
        return Work(
            settings=settings,
            store=store,
            stage_name=stage.name,
            partition=partition,
            keys=keys,
            parents_in_force=parents,
            parents_partitions={dep: self[dep].partitions for dep in stage.deps},
            run_id=run_id,
            force=force,
            log=log,
        )

    def inputs(self, stage: Stage, work: Work) -> dict[str, Any]:
        """All that determines the stage's output, and the gate's rules.

        Raises:
            HoiError: a parent of the same partition, or without partitions, is not published;
                weights are missing; whatever `stage.inputs` finds wrong.
        """
        parents = {p.name: p.version for p in self.lineage(stage, work)}
        found: dict[str, Any] = {"code_version": stage.code_version}
        if stage.settings:
            found["settings"] = settings_digest(work.settings, stage.settings)
        for name in stage.models:
            ref = getattr(work.settings.models, name)  # an optional model may be None
            found[f"weights of {name}"] = None if ref is None else model_digest(ref)
        if stage.inputs is not None:
            found["stated"] = digest(dict(stage.inputs(work)))
        if stage.parents_in_inputs:
            found.update(parents)
        found["gate"] = digest([rule.as_json() for rule in self.rules(stage, work.settings)])
        return json.loads(canonical_json(found))

    def lineage(self, stage: Stage, work: Work) -> list[Published]:
        """Every parent's version in force, as the stage reads them. Raises as `inputs`."""
        found: list[Published] = []
        for dep in stage.deps:
            declared = work.parents_in_force[dep]
            if isinstance(declared, dict):
                found += declared.values()
            elif declared is not None or dep not in stage.optional:
                found.append(work.parent(dep))
        return found

    def status(
        self,
        settings: Settings,
        store: Store,
        keys: Keys,
        only: Iterable[tuple[str, str | None]] | None = None,
    ) -> list[Status]:
        """How every (stage, partition) stands, in the order in which they run.

        A stage whose parent is stale is stale too: whether it changes is known once the parent is
        made.

        Args:
            keys: of each kind of partitions.
            only: pairs to tell; all of them otherwise.
        """
        found: dict[tuple[str, str | None], Status] = {}
        for stage in self.stages:
            for partition in keys[stage.partitions] if stage.partitions else [None]:
                parents = [
                    (dep, p)
                    for dep in stage.deps
                    for p in self._partitions_read(stage, self[dep], partition, keys)
                ]
                above = [found[key] for key in parents]
                one = self._status(stage, partition, settings, store, keys, above)
                found[(stage.name, partition)] = one
        wanted = None if only is None else set(only)
        return [one for key, one in found.items() if wanted is None or key in wanted]

    @staticmethod
    def _partitions_read(
        stage: Stage, parent: Stage, partition: str | None, keys: Keys
    ) -> Sequence[str | None]:
        if parent.partitions is None:
            return [None]
        same = stage.partitions == parent.partitions
        return [partition] if same else keys[parent.partitions]

    def _status(
        self,
        stage: Stage,
        partition: str | None,
        settings: Settings,
        store: Store,
        keys: Keys,
        above: Sequence[Status],
    ) -> Status:
        current = store.current(stage.name, partition)
        kept = (
            None
            if current is None
            else evidence.find(store, stage.name, partition, current.version)
        )
        failed_rows = 0 if kept is None else kept.failed_rows

        def status(state: State, *reasons: str) -> Status:
            return Status(stage.name, partition, state, reasons, current, failed_rows)

        attempt = evidence.latest(store, stage.name, partition)
        if attempt is not None and attempt.state in ("rejected", "failed"):
            return status("held", attempt.reason)
        interrupted = attempt is not None and attempt.state == "started"
        if interrupted and not _running(store, stage.name, partition):
            return status("held", "its latest run was interrupted")
        if current is None:
            return status("missing", "nothing published")
        # Of a held or missing parent nothing new can be read, so it makes no child stale.
        unsettled = [_place(s.stage, s.partition) for s in above if s.state == "stale"]
        reasons = [f"{place} is stale" for place in unsettled if stage.parents_in_inputs]
        try:
            work = self.work(stage, partition, settings, store, keys, log=lambda _: None)
            reasons += changed(current.inputs, self.inputs(stage, work))
        except HoiError as error:
            reasons.append(error.what)
        if kept is None:
            reasons.append("its gate's evidence is gone")
        elif failed_rows:
            reasons.append(f"{failed_rows} rows failed and can be tried again")
        return status("stale", *reasons) if reasons else status("fresh")


def changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two sets of inputs, in words."""
    lines = []
    for name in dict.fromkeys([*before, *now]):
        old, new = before.get(name), now.get(name)
        if old != new:
            lines.append(f"{name} changed ({_brief(old)} to {_brief(new)})")
    return lines


def settings_digest(settings: Settings, names: Sequence[str]) -> str:
    """Hash of the named sections or fields of the settings.

    Raises:
        HoiError: no such section.
    """
    dumped = settings.model_dump(mode="json")
    unknown = [name for name in names if name not in dumped]
    if unknown:
        raise HoiError(
            f"no settings section {', '.join(unknown)}", f"name one of: {', '.join(dumped)}"
        )
    return digest({name: dumped[name] for name in names})


def stages_in(package: str) -> list[Stage]:
    """Every `Stage` at the top of a module of the package, in the modules' order of names."""
    folder = import_module(package)
    found: dict[str, Stage] = {}
    for info in pkgutil.walk_packages(folder.__path__, f"{package}."):
        module = import_module(info.name)
        for value in vars(module).values():
            if isinstance(value, Stage) and value.function.__module__ == module.__name__:
                found[value.name] = value
    return list(found.values())


def _running(store: Store, asset: str, partition: str | None) -> bool:
    try:
        with store.lock(asset, partition, timeout_s=0):
            return False
    except HoiError:
        return True


def _place(stage: str, partition: str | None) -> str:
    return stage if partition is None else f"{stage}[{partition}]"


def _brief(value: Any) -> str:
    return "none" if value is None else str(value)[:8]
