"""What spoils the files of a staged version."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    import torch

Change = Callable[[pl.DataFrame], pl.DataFrame]
Spoil = Callable[[Path], None]


def table(name: str, change: Change) -> Spoil:
    def spoil(folder: Path) -> None:
        path = folder / f"{name}.parquet"
        changed = change(pl.read_parquet(path))
        path.unlink()
        changed.write_parquet(path)

    return spoil


def every(column: str, value: object) -> Change:
    """Every row has the same value."""
    return lambda t: t.with_columns(pl.lit(value, dtype=t.schema[column]).alias(column))


def first_row(column: str, value: object) -> Change:
    """The first row has the value."""

    def change(t: pl.DataFrame) -> pl.DataFrame:
        first = pl.int_range(pl.len()) == 0
        spoiled = pl.when(first).then(pl.lit(value, dtype=t.schema[column])).otherwise(column)
        return t.with_columns(spoiled.alias(column))

    return change


def by_sql(column: str, expression: str) -> Change:
    return lambda t: t.with_columns(pl.sql_expr(expression).cast(t.schema[column]).alias(column))


def each_of(*changes: Change) -> Change:
    def change(t: pl.DataFrame) -> pl.DataFrame:
        for each in changes:
            t = each(t)
        return t

    return change


def twice(t: pl.DataFrame) -> pl.DataFrame:
    return pl.concat([t, t])


def no_row(t: pl.DataFrame) -> pl.DataFrame:
    return t.clear()


def one_picture(t: pl.DataFrame) -> pl.DataFrame:
    return t.with_columns(pl.col("pixels").drop_nulls().first())


def not_stored(t: pl.DataFrame) -> pl.DataFrame:
    return t.with_columns(pl.col("pixels").str.reverse())


def alternate_splits(t: pl.DataFrame) -> pl.DataFrame:
    even = pl.int_range(pl.len()) % 2 == 0
    return t.with_columns(split=pl.when(even).then(pl.lit("train")).otherwise(pl.lit("test")))


def delete(name: str) -> Spoil:
    return lambda folder: (folder / name).unlink()


def truncate(name: str) -> Spoil:
    """Half of the file."""

    def spoil(folder: Path) -> None:
        path = folder / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return spoil


def weights(pattern: str, change: Callable[..., object]) -> Spoil:
    """Every tensor of the files is changed."""

    def spoil(folder: Path) -> None:
        from safetensors import safe_open
        from safetensors.torch import save_file

        for path in folder.glob(pattern):
            with safe_open(path, "pt") as file:
                metadata = file.metadata()
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            changed = {name: change(tensor) for name, tensor in tensors.items()}
            path.unlink()
            save_file(changed, path, metadata)

    return spoil


def zero(tensor: "torch.Tensor") -> "torch.Tensor":
    return tensor * 0


def not_a_number(tensor: "torch.Tensor") -> "torch.Tensor":
    return tensor * float("nan")


def explode(tensor: "torch.Tensor") -> "torch.Tensor":
    return tensor.sign() * 6e4
