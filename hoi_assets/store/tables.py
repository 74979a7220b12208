"""Declarations of published tables: one per table, read by everything that needs its columns.

The writer builds the frame from it, the expectation suite checks names, types and nulls by it,
Dagster shows it as the column schema, and `docs/tables.md` is generated from it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

DType = pl.DataType | type[pl.DataType]

# Columns that versions published before the rename have under the name on the left.
FORMER_NAMES = {
    "passes": "denoiser_evaluations",
    "held": "satisfied",
    "holds": "satisfied",
}


def with_current_names(frame: pl.DataFrame) -> pl.DataFrame:
    """A published table with renamed columns under their current names.

    >>> with_current_names(pl.DataFrame({"passes": [56]})).columns
    ['denoiser_evaluations']
    """
    return frame.rename(FORMER_NAMES, strict=False)


@dataclass(frozen=True)
class Column:
    """One column.

    Args:
        meaning: what it holds, for people; one line.
        unit: e.g. "px", "s", "USD"; None for a number without a unit and for anything else.
        nullable: whether null (or NaN) is allowed.
    """

    name: str
    dtype: DType
    meaning: str
    unit: str | None = None
    nullable: bool = False


@dataclass(frozen=True)
class Table:
    """One Parquet file of a version, `<name>.parquet`.

    Args:
        meaning: what one row is.
        key: columns that no two rows share together; empty where there is no key.
        optional: written only under some settings.
    """

    name: str
    meaning: str
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ()
    optional: bool = False

    @property
    def schema(self) -> dict[str, DType]:
        """Column names and Polars types, in order."""
        return {column.name: column.dtype for column in self.columns}

    def frame(self, rows: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
        """The rows as a frame with exactly these columns.

        Raises:
            KeyError: a row lacks a column.
            polars exceptions: a value that does not fit its column.
        """
        names = [column.name for column in self.columns]
        return pl.DataFrame(
            [{name: row[name] for name in names} for row in rows], schema=self.schema
        )

    def with_columns(self, *columns: Column, name: str | None = None) -> "Table":
        """The same table with columns added, or replaced where the name is there already."""
        new = {column.name: column for column in columns}
        kept = [new.pop(column.name, column) for column in self.columns]
        return Table(name or self.name, self.meaning, (*kept, *new.values()), self.key)
