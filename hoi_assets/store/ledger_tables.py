"""The ledger's tables and statements, in SQLAlchemy Core: the same for SQLite and Postgres.

Imported at the ledger's first use, as SQLAlchemy takes a while to load.
"""

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from hoi_assets.store.ledger_file import CHECKED, PRIMARY_KEY, checksum

ROWS_AT_ONCE = 50_000
POSTGRES = "postgresql"
# What Postgres refuses in a text, and the character that begins an escape. The order stays.
_REFUSED = re.compile("[\x00\x01\ud800-\udfff]")
_ESCAPED = re.compile("\x01(?:\x01|\x02|\x03(?P<code>d[89a-f][0-9a-f]{2}))")
_ESCAPES = {"\x00": "\x01\x01", "\x01": "\x01\x02"}
_CHARACTERS = {escape: character for character, escape in _ESCAPES.items()}


class Characters(sa.types.TypeDecorator[str]):
    """Text of any characters, ordered by their code points.

    Postgres takes neither NUL nor lone surrogates, which an LLM's reply may hold; they are escaped.
    """

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        plain = postgresql.TEXT(collation="C") if dialect.name == POSTGRES else sa.Text()
        return dialect.type_descriptor(plain)

    def bind_processor(self, dialect: sa.Dialect) -> Callable[[Any], Any] | None:
        return _encoded if dialect.name == POSTGRES else None

    def result_processor(self, dialect: sa.Dialect, coltype: object) -> Callable[[Any], Any] | None:
        return _decoded if dialect.name == POSTGRES else None


_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_metadata = sa.MetaData()
# What columns are for is said in migrations/versions.
made = sa.Table(
    "made",
    _metadata,
    sa.Column("kind", Characters, primary_key=True),
    sa.Column("key", Characters, primary_key=True),
    sa.Column("value", sa.Text),
    sa.Column("made_at", sa.Text),
    sa.Column("crc", _NUMBER),
)
rows = sa.Table(
    "rows",
    _metadata,
    sa.Column("stage", Characters, primary_key=True),
    sa.Column("partition", Characters, primary_key=True),
    sa.Column("row_id", Characters, primary_key=True),
    sa.Column("status", sa.Text),
    sa.Column("reason", Characters),
    sa.Column("version", Characters),
    sa.Column("attempts", _NUMBER),
    sa.Column("updated_at", sa.Text),
    sa.Column("crc", _NUMBER),
)
counter = sa.Table("counter", _metadata, sa.Column("changes", _NUMBER))
# Postgres only.
home = sa.Table("home", _metadata, sa.Column("id", sa.Text))
writes = sa.Table(
    "writes",
    _metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("written_at", sa.DateTime(timezone=True), server_default=sa.func.now()),
)
TABLES = {"made": made, "rows": rows}


def values_of(
    connection: sa.Connection, kind: str, keys: Sequence[str]
) -> dict[str, tuple[Any, Any]]:
    """Values and checksums by key, of those that there are."""
    found = connection.execute(
        sa.select(made.c.key, made.c.value, made.c.crc).where(
            made.c.kind == kind, _among(connection, made.c.key, keys)
        )
    )
    return {key: (value, crc) for key, value, crc in found}


def add_values(connection: sa.Connection, entries: list[dict[str, Any]]) -> None:
    """Enter values (columns of `made`); those that there are stay."""
    # Everyone in the same order, so that no two writers wait for each other.
    entries = sorted(entries, key=lambda entry: (entry["kind"], entry["key"]))
    if entries:
        connection.execute(insert(connection, made).on_conflict_do_nothing(), entries)


def delete_values(connection: sa.Connection, kind: str, keys: Sequence[str]) -> int:
    """Delete values; returns how many."""
    chosen = _among(connection, made.c.key, keys)
    return connection.execute(sa.delete(made).where(made.c.kind == kind, chosen)).rowcount


def record_rows(connection: sa.Connection, entries: list[dict[str, Any]]) -> None:
    """Enter how rows ended (columns of `rows` but attempts and crc); see `Ledger.record`."""
    key = rows.primary_key.columns.keys()
    entries = sorted(entries, key=lambda entry: [entry[name] for name in key])
    upsert = insert(connection, rows)
    new = upsert.excluded
    tried_again = sa.or_(
        new.status == "failed",
        new.status != rows.c.status,
        new.reason.is_distinct_from(rows.c.reason),
    )
    connection.execute(
        upsert.on_conflict_do_update(
            index_elements=key,
            set_={
                "attempts": rows.c.attempts + sa.case((tried_again, 1), else_=0),
                "status": new.status,
                "reason": new.reason,
                "version": sa.func.coalesce(new.version, rows.c.version),
                "updated_at": new.updated_at,
            },
        ),
        [{**entry, "attempts": 1} for entry in entries],
    )
    for (stage, partition), place in groupby(entries, lambda e: (e["stage"], e["partition"])):
        _set_checksums(connection, stage, partition, [entry["row_id"] for entry in place])
    count_change(connection)


def forget_rows(connection: sa.Connection, stage: str, partition: str) -> int:
    """Delete the rows of a place; returns how many."""
    chosen = rows.c.stage == stage, rows.c.partition == partition
    removed = connection.execute(sa.delete(rows).where(*chosen)).rowcount
    count_change(connection)
    return removed


def found_rows(connection: sa.Connection, filters: Mapping[str, str]) -> Iterator[Sequence[Any]]:
    """Rows as the columns of CHECKED, updated_at and crc, in portions, sorted by key."""
    columns = (*CHECKED["rows"], "updated_at", "crc")
    chosen = [rows.c[name] == value for name, value in filters.items()]
    query = sa.select(*(rows.c[name] for name in columns)).where(*chosen)
    # As Python's objects, rows take many times their size: never all at once.
    return portions(connection, query.order_by(*rows.primary_key.columns))


def entries_of(
    connection: sa.Connection, table: str, columns: Sequence[str]
) -> Iterator[Sequence[Any]]:
    """All entries of a table, in portions and in any order."""
    return portions(connection, sa.select(*(TABLES[table].c[name] for name in columns)))


def portions(connection: sa.Connection, query: sa.Select[Any]) -> Iterator[Sequence[Any]]:
    """The answer in portions; on a server, by its cursor."""
    options = {"yield_per": ROWS_AT_ONCE}
    return connection.execute(query, execution_options=options).partitions()


def count_change(connection: sa.Connection, changes: int = 1) -> None:
    """Advance the counter that says whether rows changed."""
    connection.execute(sa.update(counter).values(changes=counter.c.changes + changes))


def changes_of(connection: sa.Connection) -> Any:
    """The counter; None where it is lost."""
    return connection.execute(sa.select(counter.c.changes)).scalar()


def delete_altered(connection: sa.Connection) -> dict[str, int]:
    """Delete entries whose checksum does not hold; returns how many are left, by table."""
    kept = {}
    for name, columns in CHECKED.items():
        key = columns[: PRIMARY_KEY[name]]
        altered, kept[name] = [], 0
        for portion in entries_of(connection, name, (*columns, "crc")):
            for *entry, crc in portion:
                if checksum(*entry) == crc:
                    kept[name] += 1
                else:
                    altered.append(dict(zip((f"at_{part}" for part in key), entry, strict=False)))
        table = TABLES[name]
        chosen = [table.c[part] == sa.bindparam(f"at_{part}") for part in key]
        if altered:
            connection.execute(sa.delete(table).where(*chosen), altered)
    count_change(connection)
    return kept


def entries_to_copy(connection: sa.Connection, table: str) -> Iterator[list[dict[str, Any]]]:
    """All entries of a table, whole, in portions."""
    for portion in portions(connection, sa.select(TABLES[table])):
        yield [dict(row._mapping) for row in portion]


def add_entries(connection: sa.Connection, table: str, entries: list[dict[str, Any]]) -> None:
    """Enter entries as they are; those that there are stay."""
    connection.execute(insert(connection, TABLES[table]).on_conflict_do_nothing(), entries)


def owner_of(connection: sa.Connection) -> str | None:
    """The home that a database belongs to; None where it is nobody's."""
    return connection.execute(sa.select(home.c.id)).scalar()


def claim(connection: sa.Connection, home_id: str) -> None:
    """Make a database a home's."""
    connection.execute(sa.insert(home).values(id=home_id))


def insert(connection: sa.Connection, table: sa.Table) -> Any:
    """An INSERT that can say what happens on conflict."""
    is_server = connection.dialect.name == POSTGRES
    return postgresql.insert(table) if is_server else sqlite.insert(table)


def _set_checksums(
    connection: sa.Connection, stage: str, partition: str, row_ids: Sequence[str]
) -> None:
    place = rows.c.stage == stage, rows.c.partition == partition
    query = sa.select(*(rows.c[name] for name in CHECKED["rows"]))
    found = connection.execute(query.where(*place, _among(connection, rows.c.row_id, row_ids)))
    update = sa.update(rows).where(*place, rows.c.row_id == sa.bindparam("at_row_id"))
    connection.execute(
        update.values(crc=sa.bindparam("new_crc")),
        [{"at_row_id": row.row_id, "new_crc": checksum(*row)} for row in found],
    )


def _among(
    connection: sa.Connection, column: sa.Column[str], texts: Collection[str]
) -> sa.ColumnElement[bool]:
    """Whether a column's value is one of any number of texts, which are one parameter."""
    if connection.dialect.name == POSTGRES:
        listed = sa.literal(list(texts), postgresql.ARRAY(column.type))
        return column == sa.any_(listed)
    # SQLite's JSON ends a text at NUL.
    odd = [text for text in texts if "\x00" in text]
    each = sa.func.json_each(json.dumps(list(texts))).table_valued("value")
    return sa.or_(column.in_(sa.select(each.c.value)), *([column.in_(odd)] if odd else []))


def _encoded(text: str | None) -> str | None:
    return None if text is None else _REFUSED.sub(_escape, text)


def _decoded(text: str | None) -> str | None:
    return text if text is None or "\x01" not in text else _ESCAPED.sub(_unescape, text)


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    return _ESCAPES.get(character) or f"\x01\x03{ord(character):x}"


def _unescape(found: re.Match[str]) -> str:
    return chr(int(found["code"], 16)) if found["code"] else _CHARACTERS[found[0]]
