"""The catalogue: one DuckDB file over the versions in force, for queries in SQL.

Derived from the store and never the truth: it may be deleted at any time and is rebuilt when it
is older than the store. It holds, as tables:
    <asset>          the table `rows` of an asset, all partitions together
    <asset>_<table>  every other table of an asset (and a view `<asset>_rows` beside them)
    ledger           how every row ended (`Ledger.rows`)
    publications     every publication: asset, partition, version, current, run_id, published_at,
                     inputs and parents as JSON text
Asset tables begin with the columns partition (null where the asset has none), version and orphaned;
ledger and publications end with it. `orphaned` is true where the partition is gone, e.g. a category
that the taxonomy no longer has, and null where the caller does not say which there are.
"""

import hashlib
import tempfile
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from hoi_assets.errors import HoiError
from hoi_assets.hashing import canonical_json
from hoi_assets.store.disk import DiskFull, temporary_path, writing
from hoi_assets.store.places import is_orphan
from hoi_assets.store.versions import Published, Store

if TYPE_CHECKING:
    import duckdb
    import polars as pl

# What a build may take of memory; more goes to a temporary folder beside the file.
MEMORY_LIMIT = "2GB"
# Part of the freshness digest: raise it when the layout of the catalogue changes.
LAYOUT = "3"
LOCK_TIMEOUT_S = 300.0
MAIN_TABLE = "rows"
OWN_COLUMNS = ("partition", "version", "orphaned")
Known = Collection[str] | None  # the partitions that there are
READING = frozenset({"SELECT", "EXPLAIN", "PRAGMA", "MULTI"})  # MULTI is what PIVOT parses to
# What a user's SQL gets: no files, no network, no Python variables, no way to change that.
OFFLINE: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}
DAMAGED = "Corrupt database file"
GONE = "database does not exist"
LOCK_DOWN = "USE hoi; SET enable_external_access = false; SET lock_configuration = true"


def catalogue_path(store: Store) -> Path:
    """Where the catalogue is, or would be.

    Example:
        >>> catalogue_path(store)  # doctest: +SKIP
        PosixPath('data/out/hoi.duckdb')
    """
    return store.home / "hoi.duckdb"


def freshness(store: Store, known: Known = None) -> str:
    """Digest of all that the catalogue is made from: 64 hex digits.

    Example:
        >>> freshness(store) == freshness(store)  # doctest: +SKIP
        True
    """
    keys = None if known is None else sorted(known)
    hasher = hashlib.sha256(f"{LAYOUT} {store.ledger.changes()} {keys}\n".encode())
    for published in store.all_current():
        hasher.update(f"{canonical_json(published.as_record())}\n".encode())
    return hasher.hexdigest()


def rebuild(store: Store, known: Known = None) -> Path:
    """Build the catalogue anew and put it in place in one step. Returns its path.

    Args:
        known: partitions that there are; rows of others are marked as orphaned.

    Raises:
        HoiError: two tables of different assets would have the same name.
        Damaged: a version's files are not those that were published.
        DiskFull: no space left; the former catalogue stays.

    Example:
        >>> rebuild(store)  # doctest: +SKIP
        PosixPath('data/out/hoi.duckdb')
    """

    path = catalogue_path(store)
    partial = temporary_path(store.staging)
    try:
        _build(store, partial, path, known)
        with writing(path):
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
        partial.with_name(f"{partial.name}.wal").unlink(missing_ok=True)
    return path


def _build(store: Store, target: Path, path: Path, known: Known) -> None:
    """Build the catalogue in the file `target`; `path` is its name in messages."""
    import duckdb

    try:
        with (
            writing(path),
            duckdb.connect(str(target), config={"memory_limit": MEMORY_LIMIT}) as connection,
        ):
            # Taken first: what is published meanwhile makes the result stale, never falsely fresh.
            state = freshness(store, known)
            with store.moment():
                _fill(connection, store, state, known)
            # Closing writes what is left as well, but does not say that the disk was full.
            connection.execute("CHECKPOINT")
    except duckdb.Error as error:
        if "No space left" in str(error) or "File too large" in str(error):
            raise DiskFull(path) from error
        raise HoiError(
            f"catalogue {path} could not be built: {error}", "see the message"
        ) from error


def query(store: Store, sql: str, known: Known = None) -> "pl.DataFrame":
    """Answer one SQL statement over the catalogue, which is rebuilt first when stale.

    The connection reads only, and reaches no file and no network.

    Args:
        known: as of `rebuild`.

    Raises:
        HoiError: a statement that writes, several statements or none, or DuckDB's own message.

    Example:
        >>> query(store, "select status, count(*) as n from verified_pairs group by all")
        ... # doctest: +SKIP
    """
    import duckdb
    import polars as pl

    try:
        return _answer(store, sql, known)
    except duckdb.Error as error:
        if "read-only mode" in str(error):
            raise _refusal(sql) from error
        remedy = "`show tables` and `describe <table>` list what there is"
        if isinstance(error, duckdb.PermissionException):
            remedy = "SQL here sees the tables of the catalogue only, no files and no network"
        raise HoiError(f"SQL: {error}", remedy) from error
    except pl.exceptions.PolarsError as error:
        raise HoiError(
            f"SQL: the answer has a column of a type that tables here lack: {error}",
            "cast that column, e.g. `cast(x as varchar)`",
        ) from error


def _answer(store: Store, sql: str, known: Known) -> "pl.DataFrame":
    import duckdb

    path = catalogue_path(store)
    if store.read_only and not _is_fresh(store, path, known):
        return _ask_apart(store, sql, known)
    try:
        return _ask(_fresh(store, known), sql)
    except duckdb.Error as error:
        if GONE in str(error):
            # Deleted since it was found fresh, as it may be at any time.
            return _ask_apart(store, sql, known)
        if DAMAGED not in str(error) or store.read_only:
            raise
        # DuckDB's own checksums say so: the catalogue is derived, so build it anew.
        return _ask(rebuild(store, known), sql)


def _ask_apart(store: Store, sql: str, known: Known) -> "pl.DataFrame":
    """Ask a catalogue that is built for this query alone."""
    path = catalogue_path(store)
    with tempfile.TemporaryDirectory(prefix="hoi-catalogue-") as folder:
        _build(store, Path(folder) / path.name, path, known)
        return _ask(Path(folder) / path.name, sql)


def _ask(path: Path, sql: str) -> "pl.DataFrame":
    with _reading(path) as connection:
        _check_reads(connection, sql)
        return connection.sql(sql).pl()


def _fresh(store: Store, known: Known) -> Path:
    path = catalogue_path(store)
    if _is_fresh(store, path, known):
        return path
    folder = store.locks / "catalogue"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "rebuild.lock", timeout=LOCK_TIMEOUT_S, thread_local=False):
        return path if _is_fresh(store, path, known) else rebuild(store, known)


def _is_fresh(store: Store, path: Path, known: Known) -> bool:
    import duckdb

    if not path.exists():
        return False
    try:
        with _reading(path) as connection:
            found = connection.execute("SELECT digest FROM hoi_state.freshness").fetchone()
    except duckdb.Error:
        # Damaged, or of another DuckDB's format: it is derived, so build it anew.
        return False
    return found is not None and found[0] == freshness(store, known)


@contextmanager
def _reading(path: Path) -> Iterator["duckdb.DuckDBPyConnection"]:
    import duckdb

    # Attached, not opened: within one process DuckDB answers a second opening of a path from the
    # file that had this name before.
    with duckdb.connect(config=OFFLINE) as connection:
        connection.execute(f"ATTACH {_text(path)} AS hoi (READ_ONLY)")
        connection.execute(LOCK_DOWN)
        yield connection


def _check_reads(connection: "duckdb.DuckDBPyConnection", sql: str) -> None:
    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        raise HoiError(
            f"SQL: {len(statements)} statements given", "give one statement at a time, in quotes"
        )
    if statements[0].type.name not in READING:
        raise _refusal(sql)


def _refusal(sql: str) -> HoiError:
    return HoiError(
        f"SQL: {sql.strip()!r} is not a query; the catalogue is read-only",
        "use SELECT; data changes by materialising assets, never by SQL",
    )


def _fill(connection: "duckdb.DuckDBPyConnection", store: Store, state: str, known: Known) -> None:
    taken = {"ledger": "the ledger", "publications": "the publications"}
    for asset, tables in sorted(_tables(store).items()):
        for table, sources in sorted(tables.items()):
            name = asset if table == MAIN_TABLE else f"{asset}_{table}"
            _claim(taken, name, f"table {table!r} of {asset}")
            connection.execute(f"CREATE TABLE {_quoted(name)} AS {_union(sources, known)}")
        if MAIN_TABLE in tables and len(tables) > 1:
            alias = f"{asset}_{MAIN_TABLE}"
            _claim(taken, alias, f"table {MAIN_TABLE!r} of {asset}")
            connection.execute(f"CREATE VIEW {_quoted(alias)} AS FROM {_quoted(asset)}")
    store.ledger.read_rows(lambda parts: _write(connection, "ledger", parts, known))
    _write(connection, "publications", [_publications(store)], known)
    connection.execute("CREATE SCHEMA hoi_state")
    connection.execute("CREATE TABLE hoi_state.freshness AS SELECT ? AS digest", [state])


def _write(
    connection: "duckdb.DuckDBPyConnection",
    name: str,
    parts: "Iterable[pl.DataFrame]",
    known: Known,
) -> None:
    """Make a table of frames of one schema, with the column `orphaned`."""
    import polars as pl

    statement = f"CREATE OR REPLACE TABLE {name} AS FROM incoming"
    for part in parts:
        marked = [_orphaned(partition, known) for partition in part["partition"]]
        orphaned = pl.Series("orphaned", marked, dtype=pl.Boolean)
        connection.register("incoming", part.with_columns(orphaned).to_arrow())
        connection.execute(statement)
        connection.unregister("incoming")
        statement = f"INSERT INTO {name} FROM incoming"


def _claim(taken: dict[str, str], name: str, owner: str) -> None:
    # DuckDB's names are case-insensitive.
    if name.lower() in taken:
        raise HoiError(
            f"catalogue: {owner} and {taken[name.lower()]} would both be called {name!r}",
            "rename one of the assets or tables",
        )
    taken[name.lower()] = owner


def _tables(store: Store) -> dict[str, dict[str, list[tuple[Published, Path]]]]:
    """Parquet files at the top of each version in force, by asset and table name."""
    found: dict[str, dict[str, list[tuple[Published, Path]]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for published in store.all_current():
        for path in published.tables():
            found[published.asset][path.stem].append((published, path))
    return found


def _union(sources: list[tuple[Published, Path]], known: Known) -> str:
    """SELECT over all sources by column name; columns whose types disagree become text."""
    import polars as pl

    schemas = [pl.read_parquet_schema(path) for _, path in sources]
    types: dict[str, set[str]] = defaultdict(set)
    for schema in schemas:
        for column, dtype in schema.items():
            if dtype != pl.Null:
                types[column].add("number" if dtype.is_numeric() else str(dtype))
    selects = []
    for (published, path), schema in zip(sources, schemas, strict=True):
        partition = "NULL::VARCHAR" if published.partition is None else _text(published.partition)
        orphaned = _orphaned(published.partition, known)
        columns = [f"{partition} AS partition", f"{_text(published.version)} AS version"]
        columns.append(f"{'NULL' if orphaned is None else orphaned}::BOOLEAN AS orphaned")
        columns += [
            f"CAST({_quoted(column)} AS VARCHAR) AS {_quoted(column)}"
            if len(types[column]) > 1
            else _quoted(column)
            for column in schema
            if column.lower() not in OWN_COLUMNS
        ]
        selects.append(f"SELECT {', '.join(columns)} FROM read_parquet([{_text(path)}])")
    return " UNION ALL BY NAME ".join(selects)


def _orphaned(partition: str | None, known: Known) -> bool | None:
    return None if known is None else is_orphan(partition, known)


def _publications(store: Store) -> "pl.DataFrame":
    import polars as pl

    rows = [
        {
            "asset": published.asset,
            "partition": published.partition,
            "version": published.version,
            "current": published == current,
            "run_id": published.run_id,
            "published_at": published.published_at,
            "inputs": canonical_json(published.inputs),
            "parents": canonical_json(published.parents),
        }
        for current in store.all_current()
        for published in store.history(current.asset, current.partition)
    ]
    names = ("asset", "partition", "version", "current", "run_id", "published_at", "inputs")
    schema = {name: pl.String for name in (*names, "parents")} | {"current": pl.Boolean}
    return pl.DataFrame(rows, schema=schema)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: object) -> str:
    return "'" + str(value).replace("'", "''") + "'"
