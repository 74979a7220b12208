"""How the rows of the versions in force ended, as their tables say: what a lost ledger is refilled
with."""

from collections.abc import Iterator

from hoi_assets.publishing.graph import Graph
from hoi_assets.store.ledger import LedgerRow
from hoi_assets.store.tables import Table
from hoi_assets.store.versions import Store

# Key of the tables of benchmark images; their stages record `row/method/candidate`.
IMAGE_KEY = ("row_id", "method", "candidate")


def published_rows(graph: Graph, store: Store) -> Iterator[LedgerRow]:
    """A ledger row per row of every published table that says how its rows ended.

    Votes (`human_ratings`) are left out: they are recorded again when that asset runs.

    Raises:
        Damaged: a table is not what was published.
    """
    tables = {stage.name: list(filter(_is_recorded, stage.tables)) for stage in graph.stages}
    for version in store.all_current():
        for table in tables.get(version.asset, []):
            if not (version.path / f"{table.name}.parquet").exists():
                continue
            for row in version.table(table.name).iter_rows(named=True):
                yield {
                    "stage": version.asset,
                    "partition": version.partition,
                    "row_id": "/".join(str(row[name]) for name in table.key),
                    "status": row["status"],
                    "reason": row.get("reason"),
                    "version": version.version,
                }


def _is_recorded(table: Table) -> bool:
    return "status" in table.schema and (len(table.key) == 1 or table.key == IMAGE_KEY)
