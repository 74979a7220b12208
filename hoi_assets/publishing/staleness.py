"""Which (asset, partition) is out of date, and why; used by `hoi stale` and `regenerate`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hoi_assets.errors import HoiError
from hoi_assets.publishing import evidence
from hoi_assets.publishing.graph import CODE_VERSION, EXTERNAL, GATE, SETTINGS, Graph
from hoi_assets.publishing.stage import Stage
from hoi_assets.settings import Settings
from hoi_assets.store.integrity import Damaged
from hoi_assets.store.versions import Published, Store

State = Literal["fresh", "stale", "missing", "blocked"]

IN_WORDS = {
    CODE_VERSION: "code version",
    SETTINGS: "settings",
    EXTERNAL: "external inputs",
    GATE: "gate",
}


@dataclass(frozen=True)
class Status:
    """The state of one (asset, partition).

    Attributes:
        state: fresh; stale (its inputs changed, or a row failed); missing (nothing published);
            blocked (its latest attempt failed, was rejected by the gate, or was interrupted; or the
        files of its version in force are damaged).
        reasons: in words.
        published: the version in force, which may exist in every state but missing.
        failed_rows: rows of that version that failed and can be tried again.
    """

    asset: str
    partition: str | None
    state: State
    reasons: tuple[str, ...]
    published: Published | None
    failed_rows: int = 0


def status(
    graph: Graph,
    settings: Settings,
    store: Store,
    only: Iterable[tuple[str, str | None]] | None = None,
) -> list[Status]:
    """The state of every (asset, partition), in the order in which they run.

    An asset whose parent is stale is stale too: whether it changes is known once the parent is
    materialised.

    Args:
        only: pairs to report; all of them otherwise.
    """
    wanted = None if only is None else set(only)
    found: dict[tuple[str, str | None], Status] = {}
    with store.moment(evidence.FOLDER):
        for stage in graph.stages:
            for partition in stage.partition_keys:
                parents = [
                    found[dep, key]
                    for dep in stage.deps
                    for key in graph.partitions_read(stage, dep, partition)
                ]
                place = stage.name, partition
                check = wanted is None or place in wanted
                found[place] = _status(graph, stage, partition, settings, store, parents, check)
    return [one for place, one in found.items() if wanted is None or place in wanted]


def _status(
    graph: Graph,
    stage: Stage,
    partition: str | None,
    settings: Settings,
    store: Store,
    parents: Sequence[Status],
    check: bool,
) -> Status:
    """The status of one place.

    Args:
        check: whether the files are held against the version's name.
    """
    place = (store, stage.name, partition)
    current = store.current(stage.name, partition)
    gate = None if current is None else evidence.find(*place, current.version)
    failed_rows = 0 if gate is None else gate.failed_rows

    def report(state: State, *reasons: str) -> Status:
        return Status(stage.name, partition, state, reasons, current, failed_rows)

    attempt = evidence.latest(*place)
    if attempt is not None and attempt.state in ("rejected", "failed"):
        return report("blocked", attempt.reason)
    interrupted = attempt is not None and attempt.state == "started"
    if interrupted and not _running(store, stage.name, partition):
        return report("blocked", "its latest run was interrupted")
    if current is None:
        return report("missing", "nothing published")
    stored = not check or current.is_stored()
    try:
        if check and stored:
            current.verify_here()
    except Damaged as error:
        return report("blocked", error.what)
    # A blocked or missing parent gives nothing new to read, so it makes no child stale.
    reasons = [f"{_place(one)} is stale" for one in parents if one.state == "stale"]
    try:
        context = graph.context(stage, partition, settings, store, log=lambda _: None)
        reasons += changes(current.inputs, graph.inputs(stage, context))
    except HoiError as error:
        reasons.append(error.what)
    if not stored:
        reasons.append("its files are not all there")
    if gate is None:
        reasons.append("the gate's evidence is missing")
    elif failed_rows:
        reasons.append(f"{failed_rows} rows failed and can be tried again")
    return report("stale", *reasons) if reasons else report("fresh")


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two sets of inputs, one line each."""
    return [
        f"{IN_WORDS.get(name, name)} changed ({_short(before.get(name))} to "
        f"{_short(now.get(name))})"
        for name in dict.fromkeys([*before, *now])
        if before.get(name) != now.get(name)
    ]


def _running(store: Store, asset: str, partition: str | None) -> bool:
    try:
        with store.lock(asset, partition, timeout_s=0):
            return False
    except HoiError:
        return True


def _place(one: Status) -> str:
    return one.asset if one.partition is None else f"{one.asset}[{one.partition}]"


def _short(value: Any) -> str:
    return "none" if value is None else str(value)[:8]
