"""The stages as one graph: order, what each reads, and the inputs that determine its output."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hoi_assets.errors import HoiError
from hoi_assets.hashing import canonical_json, digest
from hoi_assets.progress import Log
from hoi_assets.publishing.context import Parent, StageContext
from hoi_assets.publishing.expectations import Suite, resolve, with_schemas
from hoi_assets.publishing.stage import Stage
from hoi_assets.settings import FORMER_NAMES, ModelRef, Settings, digested
from hoi_assets.store.versions import Published, Store
from hoi_assets.store.weights import model_digest

if TYPE_CHECKING:
    import dagster as dg

# Keys of a version's inputs that are not parents; stored with every version, so they stay.
CODE_VERSION, SETTINGS, EXTERNAL, GATE = "code_version", "settings", "stated", "gate"


class Graph:
    """Stages in topological order.

    Args:
        stages: in any order, bound to their settings (`Stage.bound`).

    Raises:
        HoiError: a name twice, an unresolved or cyclic dependency, or a stage without a suite.
    """

    def __init__(self, stages: Iterable[Stage]) -> None:
        by_name: dict[str, Stage] = {}
        for stage in stages:
            if by_name.setdefault(stage.name, stage) is not stage:
                raise HoiError(f"two assets are named {stage.name!r}", "rename one of them")
        self._by_name = by_name
        self.stages = tuple(self._ordered())
        without = [stage.name for stage in self.stages if not stage.suite]
        if without:
            raise HoiError(
                f"no expectation suite for {', '.join(without)}", "give suite= to published_asset"
            )

    def __getitem__(self, name: str) -> Stage:
        if name not in self._by_name:
            raise HoiError(f"no asset {name!r}", f"name one of: {', '.join(self._by_name)}")
        return self._by_name[name]

    def _ordered(self) -> Iterator[Stage]:
        done: set[str] = set()
        waiting = list(self._by_name.values())
        while waiting:
            ready = [stage for stage in waiting if set(stage.deps) <= done]
            if not ready:
                lacks = {stage.name: sorted(set(stage.deps) - done) for stage in waiting}
                raise HoiError(
                    f"unresolved or cyclic dependencies: {lacks}",
                    "correct the names in deps=, or break the cycle",
                )
            yield from ready
            done |= {stage.name for stage in ready}
            waiting = [stage for stage in waiting if stage.name not in done]

    def upstream(self, names: Iterable[str]) -> set[str]:
        """The named assets and everything they require, at any depth."""
        found: set[str] = set()
        pending = list(names)
        while pending:
            name = pending.pop()
            if name not in found:
                found.add(name)
                pending += self[name].required
        return found

    def downstream(self, names: Iterable[str]) -> set[str]:
        """The named assets and everything that reads them, at any depth."""
        found = set(names)
        for stage in self.stages:
            if found & set(stage.deps):
                found.add(stage.name)
        return found

    def partitions_read(
        self, stage: Stage, dep: str, partition: str | None
    ) -> tuple[str | None, ...]:
        """Which partitions of a dependency a stage reads for one partition of its own."""
        parent = self[dep]
        if parent.partitions_def is not None and parent.partitions_def == stage.partitions_def:
            return (partition,)
        return parent.partition_keys

    def context(
        self,
        stage: Stage,
        partition: str | None,
        settings: Settings,
        store: Store,
        *,
        run_id: str | None = None,
        force: bool = False,
        log: Log = print,
        dagster: "dg.AssetExecutionContext | None" = None,
    ) -> StageContext:
        """What the stage may read: a snapshot of the versions in force now."""
        parents: dict[str, Parent] = {}
        keys: dict[str, tuple[str, ...]] = {}
        for dep in stage.deps:
            own = self[dep].partitions_def
            if own is None:
                parents[dep] = store.current(dep)
                continue
            keys[dep] = tuple(own.get_partition_keys())
            if own == stage.partitions_def:
                parents[dep] = store.current(dep, partition)
            else:
                found = {key: store.current(dep, key) for key in keys[dep]}
                parents[dep] = {key: one for key, one in found.items() if one is not None}
        return StageContext(
            asset=stage.name,
            partition=partition,
            settings=settings,
            store=store,
            parents=parents,
            parent_keys=keys,
            run_id=run_id,
            force=force,
            log=log,
            dagster=dagster,
        )

    def inputs(self, stage: Stage, context: StageContext) -> dict[str, Any]:
        """All that determines the stage's output, and the gate's expectations.

        Raises:
            HoiError: a required parent is not published; weights are missing; whatever
                `external_inputs` finds wrong.
        """
        return json.loads(
            canonical_json(
                {
                    CODE_VERSION: stage.code_version,
                    **own_inputs(stage, context.settings),
                    **_external_inputs(stage, context),
                    **{one.name: one.version for one in self.lineage(stage, context)},
                    GATE: gate_digest(stage, context.settings),
                }
            )
        )

    def lineage(self, stage: Stage, context: StageContext) -> list[Published]:
        """Every parent's version in force, as the stage reads them. Raises as `inputs`."""
        found: list[Published] = []
        for dep in stage.deps:
            declared = context.parents[dep]
            if isinstance(declared, dict):
                found += declared.values()
            elif declared is not None or dep not in stage.optional:
                found.append(context.parent(dep))
        return found


def _external_inputs(stage: Stage, context: StageContext) -> dict[str, str]:
    found = dict(stage.external_inputs(context)) if stage.external_inputs is not None else {}
    return {EXTERNAL: digest(found)} if found else {}


def own_inputs(
    stage: Stage, settings: Settings, weights_digest: Callable[[ModelRef], str] = model_digest
) -> dict[str, Any]:
    """Digests of the settings and weights that determine the stage's output.

    Raises:
        HoiError: weights are missing, or a section that does not exist is named.
    """
    found: dict[str, Any] = {}
    if stage.settings:
        found[SETTINGS] = settings_digest(settings, stage.settings)
    for name in stage.models:
        ref = getattr(settings.models, name)
        if ref is not None:  # left out, so that an option that is added changes nothing
            found[f"weights of {name}"] = weights_digest(ref)
    return found


def expectations_of(stage: Stage, settings: Settings) -> Suite:
    """What the declared tables promise and the stage's suite, with these settings' thresholds."""
    return resolve(with_schemas(stage.tables, stage.suite), settings)


def gate_digest(stage: Stage, settings: Settings) -> str:
    """Hash of the stage's expectations with their thresholds."""
    return digest([one.as_json() for one in expectations_of(stage, settings)])


def settings_digest(settings: Settings, names: Sequence[str]) -> str:
    """Hash of the named sections or fields of the settings; one that is null is left out.

    Raises:
        HoiError: no such section.
    """
    dumped = digested(settings)
    unknown = [name for name in names if name not in dumped]
    if unknown:
        raise HoiError(
            f"no settings section {', '.join(unknown)}", f"name one of: {', '.join(dumped)}"
        )
    given = [name for name in names if dumped[name] is not None]
    return digest({FORMER_NAMES.get(name, name): dumped[name] for name in given})


def without_gate(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs that determine the content, less the gate's expectations."""
    return {name: value for name, value in inputs.items() if name != GATE}
