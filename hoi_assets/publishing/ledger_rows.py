"""How the rows of the versions in force ended, as their tables say: what a lost ledger is refilled
with."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hoi_assets.publishing.graph import Graph
from hoi_assets.publishing.stage import Stage
from hoi_assets.store.disk import replace_bytes
from hoi_assets.store.ledger import LedgerRow
from hoi_assets.store.places import folder_name
from hoi_assets.store.tables import Table
from hoi_assets.store.versions import Published, Store

# Key of the tables of benchmark images; their stages record `row/method/candidate`.
IMAGE_KEY = ("row_id", "method", "candidate")
# Key of the table of votes, a row per method; its stage records `study:line`.
VOTE_KEY = ("study", "line", "method_a", "method_b")


def published_rows(graph: Graph, store: Store) -> Iterator[LedgerRow]:
    """A ledger row per row of every published table that says how its rows ended.

    Raises:
        Damaged: a table is not what was published.
    """
    stages = {stage.name: stage for stage in graph.stages}
    for version in store.all_current():
        if version.asset in stages:
            yield from rows_of(stages[version.asset], version)


def rows_of(stage: Stage, version: Published) -> Iterator[LedgerRow]:
    """The ledger rows of one version in force."""
    names = version.names()
    for table in filter(_is_recorded, stage.tables):
        if f"{table.name}.parquet" not in names:
            continue
        rows = {_row_id(table, row): row for row in version.table(table.name).iter_rows(named=True)}
        for row_id, row in rows.items():
            yield {
                "stage": version.asset,
                "partition": version.partition,
                "row_id": row_id,
                "status": row["status"],
                "reason": row.get("reason"),
                "version": version.version,
            }


def are_entered(store: Store, version: Published) -> bool:
    """Whether `note_entered` was last called here for that version; of a folder's home, always.

    The ledger of a home in a bucket may be this machine's own: what others published is entered
    when a step here finds it unchanged.
    """
    path = _noted(store, version.asset, version.partition)
    if store.remote is None:
        return True
    return path.is_file() and path.read_text(encoding="ascii") == version.version


def note_entered(store: Store, version: Published) -> None:
    """Note that the ledger holds how a version's rows ended."""
    if store.remote is not None:
        path = _noted(store, version.asset, version.partition)
        data = version.version.encode()
        replace_bytes(path, data, store.staging, durable=False, mode=0o644)


def _noted(store: Store, asset: str, partition: str | None) -> Path:
    return store.home / "entered" / asset / folder_name(partition)


def _row_id(table: Table, row: Mapping[str, Any]) -> str:
    if table.key == VOTE_KEY:
        return f"{row['study']}:{row['line']}"
    return "/".join(str(row[name]) for name in table.key)


def _is_recorded(table: Table) -> bool:
    one = len(table.key) == 1 or table.key in (IMAGE_KEY, VOTE_KEY)
    return "status" in table.schema and one
