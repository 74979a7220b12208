"""Packs the shards of a stream into few files, pictures included."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from hoi_assets.errors import HoiError
from hoi_assets.progress import Log

MAX_FILE_BYTES = 60 * 2**20
# Of what is packed before compression, which gains nothing on pictures but may cost a little.
FILL_BYTES = 54 * 2**20


def pack(folder: Path, split: str, out: Path, log: Log = print) -> list[Path]:
    """Write the finished shards of a split as `<out>/<split>-<number>.parquet`, up to 60 MiB each.

    A picture that lies in a file of its own goes into the column `picture`; `read_pool` and
    `open_image` read the packed folder like the other.

    Raises:
        HoiError: when there is no shard, or a picture is missing.
    """
    shards = sorted(folder.glob(f"{split}-?????.parquet"))
    if not shards:
        raise HoiError(
            f"no shard of split '{split}' in {folder}",
            f"Render it: python -m hoi_assets.tinyworld.scenes.pool --out {folder} --split {split}",
        )
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for number, rows in enumerate(_filled(folder, shards)):
        path = out / f"{split}-{number:05d}.parquet"
        staging = path.with_suffix(".part")
        rows.write_parquet(staging, compression="zstd", compression_level=9)
        size = staging.stat().st_size
        if size > MAX_FILE_BYTES:
            raise HoiError(f"{path} would have {size} bytes", "Lower FILL_BYTES in packing.py.")
        staging.replace(path)
        log(f"{path}: {len(rows)} rows, {size / 2**20:.1f} MiB")
        written.append(path)
    return written


def _filled(folder: Path, shards: list[Path]) -> Iterator[pl.DataFrame]:
    """Rows of the shards, in order, as many together as fit one file."""
    waiting: list[pl.DataFrame] = []
    filled = 0
    for shard in shards:
        rows = _with_pictures(folder, pl.read_parquet(shard))
        binary = [name for name, kind in rows.schema.items() if kind == pl.Binary]
        sizes = sum(int(rows[name].bin.size().sum()) for name in binary)
        if waiting and filled + sizes > FILL_BYTES:
            yield pl.concat(waiting)
            waiting, filled = [], 0
        waiting.append(rows)
        filled += sizes
    yield pl.concat(waiting)


def _with_pictures(folder: Path, rows: pl.DataFrame) -> pl.DataFrame:
    if "file" not in rows.columns:
        return rows
    try:
        pictures = [(folder / file).read_bytes() for file in rows["file"]]
    except OSError as error:
        raise HoiError(f"a picture cannot be read: {error}", "Render its shard anew.") from error
    return rows.with_columns(pl.Series("picture", pictures, pl.Binary))
