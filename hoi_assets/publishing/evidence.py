"""What the gate found for each version, and how the latest attempt ended: `<home>/gates/…`.

Stored beside the versions, not inside: a version's hash covers its content alone, and the same
content may be audited again by other expectations. In `<asset>/<partition or _>/`:
`<version>.json`, `<version>.metadata.json` (apart, as its pictures are large) and `attempt.json`.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from hoi_assets.publishing.gate_result import GateResult
from hoi_assets.store.versions import Store

FOLDER = "gates"
State = Literal["started", "published", "unchanged", "rejected", "failed"]


@dataclass(frozen=True)
class Evidence:
    """What the gate found when a version passed.

    Attributes:
        gate: what its expectations found.
        rows: number of rows of each table.
        failed_rows: rows that ended failed and are to be tried again.
        only_tables: the gate looked at nothing but the version's own tables.
    """

    gate: GateResult
    rows: Mapping[str, int]
    failed_rows: int = 0
    only_tables: bool = True


@dataclass(frozen=True)
class Attempt:
    """How the latest attempt at (asset, partition) ended."""

    state: State
    reason: str = ""
    run_id: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


Metadata = Mapping[str, Mapping[str, Any]]


def keep(
    store: Store,
    asset: str,
    partition: str | None,
    version: str,
    found: Evidence,
    metadata: Metadata,
) -> None:
    """Write a version's evidence, and what the UI shows of it (as `metadata.plain` gives it)."""
    content = {
        "findings": found.gate.as_json(),
        "rows": found.rows,
        "failed_rows": found.failed_rows,
        "only_tables": found.only_tables,
    }
    _write(store, _folder(store, asset, partition) / f"{version}.metadata.json", metadata)
    _write(store, _folder(store, asset, partition) / f"{version}.json", content)


def find(store: Store, asset: str, partition: str | None, version: str) -> Evidence | None:
    """A version's evidence; None where there is none."""
    content = _read(store, _folder(store, asset, partition) / f"{version}.json")
    if content is None:
        return None
    return Evidence(
        gate=GateResult.from_json(content["findings"]),
        rows=content["rows"],
        failed_rows=content["failed_rows"],
        only_tables=content["only_tables"],
    )


def metadata_of(store: Store, asset: str, partition: str | None, version: str) -> Metadata:
    """What the UI shows of a version; empty where nothing is stored."""
    return _read(store, _folder(store, asset, partition) / f"{version}.metadata.json") or {}


def note(store: Store, asset: str, partition: str | None, attempt: Attempt) -> None:
    """Record the state of the latest attempt."""
    _write(store, _folder(store, asset, partition) / "attempt.json", asdict(attempt))


def latest(store: Store, asset: str, partition: str | None) -> Attempt | None:
    """The latest attempt; None where there was none."""
    content = _read(store, _folder(store, asset, partition) / "attempt.json")
    return None if content is None else Attempt(**content)


def _folder(store: Store, asset: str, partition: str | None) -> Path:
    return store.home / FOLDER / asset / (partition or "_")


def _write(store: Store, path: Path, content: Mapping[str, Any]) -> None:
    store.write_shared(path, json.dumps(content, indent=1).encode())


def _read(store: Store, path: Path) -> Any:
    data = store.read_shared(path)
    return None if data is None else json.loads(data)
