"""The table `contents`: what a staged version holds beside its tables, for the gate alone.

It is made for stages whose suite names it and is not published. One row is a file, or a picture
that a table names in its column `pixels`. A LoRA of zeros, weights with NaN, a file cut short or a
picture that is nowhere stored show in no other table.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from hoi_assets.errors import HoiError
from hoi_assets.hashing import files_below
from hoi_assets.store.images import ImageStore
from hoi_assets.store.tables import Column, Table

if TYPE_CHECKING:
    import torch

CONTENTS = Table(
    "contents",
    "one file of the version, or one picture that its tables name",
    (
        Column("name", pl.String, "path in the version, or digest of the pixels"),
        Column("kind", pl.String, "file, weights, table or picture"),
        Column("bytes", pl.Int64, "size; null for a picture", "B", nullable=True),
        Column("problem", pl.String, "why it cannot be used; null: it can", nullable=True),
        Column("tensors", pl.Int64, "tensors of a weights file", nullable=True),
        Column("zero_tensors", pl.Int64, "those that are zero all over", nullable=True),
        Column("not_finite", pl.Int64, "values that are NaN or infinite", nullable=True),
        Column("largest", pl.Float64, "largest absolute value of the finite ones", nullable=True),
    ),
)
SUFFIXES = {".safetensors": "weights", ".parquet": "table"}


def contents(folder: Path, tables: Mapping[str, pl.DataFrame], images: ImageStore) -> pl.DataFrame:
    """Table `CONTENTS` of a staged version.

    Args:
        tables: of the version; a String column `pixels` names pictures.
        images: where pictures must be.
    """
    empty = dict.fromkeys(CONTENTS.schema)
    rows = [
        {**empty, "name": name, "bytes": path.stat().st_size, **_file(path)}
        for name, path in files_below(folder)
    ]
    for digest in sorted(_pictures(tables)):
        rows.append(
            {**empty, "name": digest, "kind": "picture", "problem": _missing(images, digest)}
        )
    return CONTENTS.frame(rows)


def _pictures(tables: Mapping[str, pl.DataFrame]) -> set[str]:
    named = [t["pixels"] for t in tables.values() if t.schema.get("pixels") == pl.String]
    return {digest for column in named for digest in column.drop_nulls().unique()}


def _missing(images: ImageStore, digest: str) -> str | None:
    try:
        return "not stored" if images.missing([digest]) else None
    except HoiError as error:
        return error.what


def _file(path: Path) -> dict[str, Any]:
    kind = SUFFIXES.get(path.suffix, "file")
    try:
        if kind == "weights":
            return {"kind": kind, **_weights(path)}
        if kind == "table":
            pl.read_parquet_schema(path)
    except Exception as error:  # each library has its own
        return {"kind": kind, "problem": f"{type(error).__name__}: {error}"[:200]}
    return {"kind": kind, "problem": None if path.stat().st_size else "empty"}


def _weights(path: Path) -> dict[str, Any]:
    """One tensor in memory at a time."""
    from safetensors import safe_open

    found = {"tensors": 0, "zero_tensors": 0, "not_finite": 0, "largest": 0.0}
    with safe_open(path, "pt") as file:
        for name in file.keys():  # noqa: SIM118
            _count(file.get_tensor(name), found)
    return {**found, "problem": None if found["tensors"] else "without tensors"}


def _count(tensor: "torch.Tensor", found: dict[str, Any]) -> None:
    found["tensors"] += 1
    if not tensor.numel() or not tensor.is_floating_point():
        return
    values = tensor.float()
    finite = values.isfinite()
    found["not_finite"] += int((~finite).sum())
    found["zero_tensors"] += int(not values.any())
    if finite.any():
        found["largest"] = max(found["largest"], float(values[finite].abs().max()))
