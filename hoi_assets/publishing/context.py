"""What an asset's function receives and returns."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hoi_assets.errors import HoiError
from hoi_assets.progress import Log
from hoi_assets.publishing.metadata import Value
from hoi_assets.settings import Settings
from hoi_assets.store.versions import Published, Store
from hoi_assets.taxonomy import Taxonomy, load_taxonomy

if TYPE_CHECKING:
    import dagster as dg
    import polars as pl

Parent = Published | dict[str, Published] | None


@dataclass(frozen=True)
class Result:
    """What an asset's function returns; its files lie in the staging folder.

    Args:
        metadata: shown with the asset in the UI. Pictures over 400 kB are scaled down.
        audit: tables for the gate that are not published, by name; they take precedence over
            `*.parquet` files of the same name.
    """

    metadata: Mapping[str, Value] = field(default_factory=dict)
    audit: Mapping[str, "pl.DataFrame"] = field(default_factory=dict)


@dataclass(frozen=True)
class StageContext:
    """What an asset's function may read.

    Attributes:
        asset: key of the asset.
        settings: the profile, with what the run's config overrides.
        parents: per dependency its version in force, or versions by partition for a fan-in, or
            None. `parent` and `partitions` raise with a remedy where something is missing.
        parent_keys: per partitioned dependency all of its partition keys.
        run_id: Dagster's run, for provenance only.
        force: compute although the inputs are unchanged.
        log: writes a line to Dagster's log and the terminal.
        dagster: Dagster's own context; None outside of a Dagster run.
        recorded: how rows ended, as given to `record`.
    """

    asset: str
    partition: str | None
    settings: Settings
    store: Store
    parents: Mapping[str, Parent]
    parent_keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    run_id: str | None = None
    force: bool = False
    log: Log = print
    dagster: "dg.AssetExecutionContext | None" = None
    recorded: list[dict[str, Any]] = field(default_factory=list)

    @property
    def partition_key(self) -> str:
        """The hand-pose category or scenario.

        Raises:
            TypeError: the asset has no partitions.
        """
        if self.partition is None:
            raise TypeError(f"{self.asset} has no partitions")
        return self.partition

    @cached_property
    def taxonomy(self) -> Taxonomy:
        """The taxonomy on disk; declare what the asset uses of it in `external_inputs=`."""
        return read_taxonomy(self.settings.taxonomy_folder)

    def parent(self, name: str) -> Published:
        """The version in force of a dependency: of the same partition, or of one without any.

        Raises:
            HoiError: nothing is published yet.
        """
        found = self._declared(name)
        if isinstance(found, dict):
            raise TypeError(f"{name} is partitioned: use partitions()")
        if found is None:
            return self.store.require(name, self.partition if name in self.parent_keys else None)
        return found

    def version(self, name: str) -> Published | None:
        """The version in force of an optional dependency; None where nothing is published, or the
        settings make it none."""
        found = self.parents.get(name)
        if isinstance(found, dict):
            raise TypeError(f"{name} is partitioned: use published()")
        return found

    def partitions(self, name: str) -> dict[str, Published]:
        """Fan-in: the versions in force of a partitioned dependency, by partition key.

        Raises:
            HoiError: not one partition is published.
        """
        found = self.published(name)
        if not found:
            raise HoiError(
                f"{name} is not published for any partition",
                f"materialise {name} for at least one of: {', '.join(self.parent_keys[name])}; "
                "see `hoi stale`",
            )
        return found

    def published(self, name: str) -> dict[str, Published]:
        """As `partitions`; empty where not one partition is published."""
        found = self._declared(name)
        if not isinstance(found, dict):
            raise TypeError(f"{name} has one version here: use parent()")
        return found

    def missing(self, name: str) -> list[str]:
        """Partition keys of a fan-in dependency without a published version."""
        found = self.published(name)
        return [key for key in self.parent_keys[name] if key not in found]

    def record(self, id_column: str, table: "pl.DataFrame") -> None:
        """Record in the ledger how each row ended, once the gate has decided.

        Rows `failed` are tried again by the next run although the inputs are unchanged.

        Args:
            id_column: identifies the row within (asset, partition).
            table: with a column `status` (accepted, rejected or failed) and, where rows can be
                rejected or fail, `reason`.
        """
        reasons = table["reason"] if "reason" in table.columns else [None] * table.height
        for row_id, status, reason in zip(table[id_column], table["status"], reasons, strict=True):
            self.recorded.append({"row_id": str(row_id), "status": status, "reason": reason})

    def _declared(self, name: str) -> Parent:
        if name not in self.parents:
            raise TypeError(f"{name} is not among the deps of {self.asset}")
        return self.parents[name]


def read_taxonomy(folder: Path) -> Taxonomy:
    """`load_taxonomy`, read once per state of the folder's files. Raises as it does."""
    # A link that leads nowhere is for `load_taxonomy` to name.
    files = sorted(path for path in folder.rglob("*.y*ml") if path.exists())
    states = [(path, path.stat()) for path in files]
    return _taxonomy(folder, tuple((p, s.st_size, s.st_mtime_ns) for p, s in states))


@lru_cache(maxsize=4)
def _taxonomy(folder: Path, state: tuple[tuple[Path, int, int], ...]) -> Taxonomy:
    return load_taxonomy(folder)
