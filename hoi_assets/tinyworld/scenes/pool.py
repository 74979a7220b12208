"""Renders pools of scenes (`hoi_assets.store.scene_pool` reads them).

`python -m hoi_assets.tinyworld.scenes.pool --out FOLDER` writes shard by shard, each complete or
absent, so that a killed render goes on where it stopped and training may begin on the
first shards.
"""

import argparse
import io
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from queue import Empty
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from PIL import Image

from hoi_assets.errors import HoiError
from hoi_assets.hashing import digest_pixels
from hoi_assets.progress import Log, track
from hoi_assets.store.scene_pool import (
    INTERACTION_SCHEMA,
    PICTURE_SUFFIX,
    SCHEMA,
    STORED_TABLE,
    open_image,
    read_pool,
)

if TYPE_CHECKING:
    from hoi_assets.grammar.interactions import Item
    from hoi_assets.tinyworld.scenes.sample import Group, Scene, World

    Work = list[Group] | list[Item]

SHARD_SCENES = 250
WEBP_OPTIONS = {"quality": 90, "method": 6}
SHEET_COLUMNS, SHEET_ROWS = 8, 3
TAXONOMY = Path(__file__).resolve().parents[3] / "data" / "taxonomy"

MASKS = ("hand_mask", "object_mask")


def contact_sheets(folder: Path, out: Path) -> list[Path]:
    """One sheet of clean pictures per category, `<out>/<category>.webp`, objects and views in turn.

    Returns:
        The sheets' paths; each shows up to 24 pictures and is at most 60 kB.
    """
    out.mkdir(parents=True, exist_ok=True)
    rows = read_pool(folder).filter(
        pl.col("fidelity") & pl.col("alignment") & pl.col("category").is_not_null()
    )
    turn = pl.int_range(pl.len()).over("category", "object", "view")
    rows = rows.with_columns(turn.alias("turn")).sort("turn", "object", "view", "scene_id")
    sheets = []
    for category in sorted(rows["category"].unique()):
        shown = rows.filter(pl.col("category") == category).head(SHEET_COLUMNS * SHEET_ROWS)
        shown = shown.sort("object", "view", "scene_id")
        pictures = [open_image(folder, row) for row in shown.iter_rows(named=True)]
        side = pictures[0].width
        lines = -(-len(pictures) // SHEET_COLUMNS)
        sheet = Image.new("RGB", (SHEET_COLUMNS * side, lines * side), "white")
        for place, picture in enumerate(pictures):
            across, down = place % SHEET_COLUMNS, place // SHEET_COLUMNS
            sheet.paste(picture, (across * side, down * side))
        path = out / f"{category}{PICTURE_SUFFIX}"
        sheet.save(path, "WEBP", quality=80, method=6)
        sheets.append(path)
    return sheets


# --- rendering ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Drawing:
    """How shards are drawn: pictures' side in pixels, samples per pixel, taxonomy folder."""

    size: int = 128
    samples_per_pixel: int = 16
    taxonomy: Path = TAXONOMY


def render_stream(
    out: Path,
    split: str,
    count: int,
    workers: int = 1,
    drawing: Drawing | None = None,
    shard_scenes: int = SHARD_SCENES,
    log: Log = print,
) -> list[Path]:
    """Render the first `count` pictures (whole shards) of a stream; finished shards are kept.

    Returns:
        The shards' tables, `<out>/<split>-<shard>.parquet`; pictures are in
        `<out>/images/<split>-<shard>/`.
    """
    from hoi_assets.grammar import interactions
    from hoi_assets.tinyworld.scenes import sample

    drawing = drawing or Drawing()
    streams = (*sample.STREAM_SPLITS, *interactions.SPLITS)
    if split not in streams:
        raise HoiError(
            f"no stream of scenes called '{split}'",
            f"Choose one of: {', '.join(streams)}; or leave --split out.",
        )
    shards: dict[str, Work] = {}
    for number in range(-(-count // shard_scenes)):
        first, name = number * shard_scenes, f"{split}-{number:05d}"
        if split in interactions.SPLITS:
            shards[name] = interactions.plan_interactions(split, first, shard_scenes)
        else:
            taxonomy = sample.load_world(drawing.taxonomy).taxonomy
            shards[name] = sample.plan_stream(taxonomy, split, first, shard_scenes)
    return _render_shards(out, shards, workers, drawing, log)


def render_stored(
    out: Path, workers: int = 1, drawing: Drawing | None = None, log: Log = print
) -> Path:
    """Render the pool that is stored with the project; returns `<out>/scenes.parquet`."""
    from hoi_assets.tinyworld.scenes import sample

    drawing = drawing or Drawing()
    groups = sample.plan_stored(sample.load_world(drawing.taxonomy).taxonomy)
    shards: dict[str, Work] = {}
    for split in sample.STORED_SPLITS:
        own = [group for group in groups if group.split == split]
        for start in range(0, len(own), 30):
            shards[f"{split}-{start // 30:05d}"] = own[start : start + 30]
    parts = out / "parts"
    tables = _render_shards(parts, shards, workers, drawing, log)
    pictures = out / "images"
    fresh = out / "images.new"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    rows = pl.concat([pl.read_parquet(table) for table in tables])
    for file in rows["file"]:
        shutil.copyfile(parts / file, fresh / Path(file).name)
    names = pl.col("file").str.split("/").list.last()
    rows = rows.with_columns(pl.lit("images/").add(names).alias("file"))
    shutil.rmtree(pictures, ignore_errors=True)
    fresh.replace(pictures)
    _write_table(rows, out / STORED_TABLE)
    shutil.rmtree(parts)
    return out / STORED_TABLE


def _render_shards(
    out: Path, shards: dict[str, "Work"], workers: int, drawing: Drawing, log: Log
) -> list[Path]:
    out.mkdir(parents=True, exist_ok=True)
    missing = {name: groups for name, groups in shards.items() if not _table(out, name).is_file()}
    done = len(shards) - len(missing)
    if done:
        log(f"scenes: {done} of {len(shards)} shards are there already")
    for abandoned in (out / "images").glob("*.part"):
        shutil.rmtree(abandoned, ignore_errors=True)
    total = sum(len(group.plans) for groups in missing.values() for group in groups)
    label = f"scenes in {out}"
    if workers == 1:
        pictures = (
            scene
            for name, groups in missing.items()
            for scene in _render_shard(out, name, groups, drawing)
        )
        for _ in track(pictures, label, total=total, log=log):
            pass
    elif missing:
        for _ in track(_in_processes(out, missing, workers, drawing), label, total=total, log=log):
            pass
    return [_table(out, name) for name in shards]


def _in_processes(
    out: Path, shards: dict[str, "Work"], workers: int, drawing: Drawing
) -> Iterator[str]:
    """Render shards in `workers` processes; yields each picture's id when it is drawn."""
    context = get_context("spawn")
    with context.Manager() as manager:
        drawn = manager.Queue()
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            work = partial(_render_shard_into, drawn, os.getpid())
            waiting: list[Future[None]] = [
                pool.submit(work, out, name, groups, drawing) for name, groups in shards.items()
            ]
            try:
                while waiting or not drawn.empty():
                    with suppress(Empty):
                        yield drawn.get(timeout=0.5)
                    for future in [future for future in waiting if future.done()]:
                        waiting.remove(future)
                        future.result()
            finally:
                for future in waiting:
                    future.cancel()


def _render_shard_into(
    drawn: Any, parent: int, out: Path, name: str, groups: "Work", drawing: Drawing
) -> None:
    for scene_id in _render_shard(out, name, groups, drawing):
        # A killed parent cannot stop its workers; they must not go on beside a resumed render.
        if os.getppid() != parent:
            os._exit(1)
        drawn.put(scene_id)


def _render_shard(out: Path, name: str, groups: "Work", drawing: Drawing) -> Iterator[str]:
    """Draw one shard beside its place and move it there when it is whole; table last."""
    from hoi_assets.grammar import interactions
    from hoi_assets.tinyworld.scenes import sample

    world = sample.load_world(drawing.taxonomy)
    folder = out / "images" / name
    staging = out / "images" / f"{name}.{os.getpid()}.part"
    staging.mkdir(parents=True)
    rows = []
    for group in groups:
        for scene in _drawn(world, group, drawing):
            scene_id = scene.row["scene_id"]
            path = staging / f"{scene_id}{PICTURE_SUFFIX}"
            scene.image.save(path, "WEBP", **WEBP_OPTIONS)
            rows.append(
                scene.row
                | {mask: _png(scene.row[mask]) for mask in MASKS if mask in scene.row}
                | {
                    "file": f"images/{name}/{path.name}",
                    "digest": digest_pixels(Image.open(path)),
                }
            )
            yield scene_id
    shutil.rmtree(folder, ignore_errors=True)
    staging.replace(folder)
    schema = INTERACTION_SCHEMA if groups[0].split in interactions.SPLITS else SCHEMA
    _write_table(pl.DataFrame(rows, schema=schema), _table(out, name))


def _drawn(world: "World", group: "Group | Item", drawing: Drawing) -> Iterator["Scene"]:
    from hoi_assets.grammar import interactions
    from hoi_assets.tinyworld.scenes import arrange, sample

    if isinstance(group, interactions.Item):
        yield arrange.draw_item(world, group, drawing.size, drawing.samples_per_pixel)
    else:
        yield from sample.draw_group(world, group, drawing.size, drawing.samples_per_pixel)


def _table(out: Path, name: str) -> Path:
    return out / f"{name}.parquet"


def _write_table(rows: pl.DataFrame, path: Path) -> None:
    staging = path.with_suffix(".part")
    rows.write_parquet(staging, compression="zstd", compression_level=9)
    staging.replace(path)


def _png(mask: NDArray[np.bool_]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(mask).convert("1").save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


# --- command --------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Render the stored pool (no --split), or a stream (--split); or write sheets."""
    parser = argparse.ArgumentParser(
        prog="python -m hoi_assets.tinyworld.scenes.pool", description=__doc__
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the pool")
    parser.add_argument("--split", help="a stream's name; left out: the stored pool")
    parser.add_argument("--count", type=int, default=8000, help="pictures of a stream")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument(
        "--samples", type=int, default=Drawing.samples_per_pixel, help="samples per pixel"
    )
    parser.add_argument("--sheets", type=Path, help="write contact sheets here; render nothing")
    parser.add_argument("--taxonomy", type=Path, default=TAXONOMY, help="taxonomy folder")
    given = parser.parse_args(arguments)
    if given.count < 1 or given.workers < 1 or given.samples < 1:
        parser.error("--count, --workers and --samples must be at least 1")
    drawing = Drawing(samples_per_pixel=given.samples, taxonomy=given.taxonomy)
    try:
        if given.sheets is not None:
            for sheet in contact_sheets(given.out, given.sheets):
                print(sheet)
        elif given.split is None:
            print(render_stored(given.out, given.workers, drawing))
        else:
            render_stream(given.out, given.split, given.count, given.workers, drawing)
    except HoiError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
