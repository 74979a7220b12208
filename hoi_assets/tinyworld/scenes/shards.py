"""Renders pools of scenes shard by shard.

A shard is complete or absent, so that a killed render resumes with the shard it was at.
"""

import io
import os
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from queue import Empty
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from PIL import Image

from hoi_assets.errors import HoiError
from hoi_assets.hashing import digest_pixels
from hoi_assets.progress import Log, track
from hoi_assets.settings import ROOT
from hoi_assets.store.scene_pool import (
    INTERACTION_SCENES,
    MASKS,
    PICTURE_SUFFIX,
    SCENES,
    STORED_TABLE,
    TWIN_SCENES,
    TWINS_TABLE,
)
from hoi_assets.tinyworld.scenes.groups import (
    JUDGE_COUNTS,
    SCENE_SPLITS,
    STREAM_SPLITS,
    TWIN_SPLITS,
    TWIN_STREAMS,
    Group,
    plan_judges,
    plan_stored,
    plan_stream,
    plan_twins,
)
from hoi_assets.tinyworld.scenes.interactions.picture import render_item
from hoi_assets.tinyworld.scenes.interactions.stream import (
    INTERACTION_SPLITS,
    StreamItem,
    plan_interactions,
)
from hoi_assets.tinyworld.scenes.render import FAST, STANDARD, Quality
from hoi_assets.tinyworld.scenes.sample import Scene, render_group
from hoi_assets.tinyworld.scenes.solving import World, load_world
from hoi_assets.tinyworld.scenes.twins.picture import render_twins

Work = list[Group] | list[StreamItem]

SHARD_SCENES = 250
SHARD_PAIRS = 100
WEBP_OPTIONS = {"quality": 90, "method": 6}
TAXONOMY = ROOT / "data" / "taxonomy"


@dataclass(frozen=True)
class RenderSettings:
    """How shards are rendered, and the taxonomy's folder.

    Attributes:
        quality: None: that of each split.
    """

    quality: Quality | None = None
    taxonomy: Path = TAXONOMY

    def quality_of(self, split: str | None) -> Quality:
        """How a split is rendered: twins fast, so that what is older keeps its pixels."""
        return self.quality or (FAST if split in TWIN_SPLITS else STANDARD)


def render_stream(
    out: Path,
    split: str,
    count: int,
    workers: int = 1,
    settings: RenderSettings | None = None,
    shard_scenes: int | None = None,
    log: Log = print,
) -> list[Path]:
    """Render the first `count` pictures or pairs (whole shards) of a stream; finished shards are
    kept.

    Returns:
        The shards' tables, `<out>/<split>-<shard>.parquet`; pictures are in
        `<out>/images/<split>-<shard>/`, those of twins in the tables themselves.
    """
    settings = settings or RenderSettings()
    streams = (*STREAM_SPLITS, *INTERACTION_SPLITS, *TWIN_STREAMS)
    if split not in streams:
        raise HoiError(
            f"no stream of scenes called '{split}'",
            f"Choose one of: {', '.join(streams)}; or leave --split out.",
        )
    if shard_scenes is None:
        shard_scenes = SHARD_PAIRS if split in TWIN_SPLITS else SHARD_SCENES
    shards: dict[str, Work] = {}
    for number in range(-(-count // shard_scenes)):
        first, name = number * shard_scenes, f"{split}-{number:05d}"
        if split in INTERACTION_SPLITS:
            shards[name] = plan_interactions(split, first, shard_scenes)
        else:
            plan = plan_twins if split in TWIN_SPLITS else plan_stream
            taxonomy = load_world(settings.taxonomy).taxonomy
            shards[name] = plan(taxonomy, split, first, shard_scenes)
    return _render_shards(out, shards, workers, settings, log)


def render_stored(
    out: Path, workers: int = 1, settings: RenderSettings | None = None, log: Log = print
) -> Path:
    """Render the pool that is stored with the project; returns `<out>/scenes.parquet`. The
    verifier's twins are beside it, in `<out>/twins.parquet`."""
    settings, parts = settings or RenderSettings(), out / "parts"
    known = load_world(settings.taxonomy).taxonomy

    def render(groups: list[Group], splits: Iterable[str]) -> list[Path]:
        shards: dict[str, Work] = {}
        for split in splits:
            own = [group for group in groups if group.split == split]
            for start in range(0, len(own), 30):
                shards[f"{split}-{start // 30:05d}"] = own[start : start + 30]
        return _render_shards(parts, shards, workers, settings, log)

    tables = render(plan_stored(known), SCENE_SPLITS)
    twins = render(plan_judges(known), JUDGE_COUNTS)
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
    _write_table(pl.concat([pl.read_parquet(table) for table in twins]), out / TWINS_TABLE)
    shutil.rmtree(parts)
    return out / STORED_TABLE


def _render_shards(
    out: Path, shards: dict[str, Work], workers: int, settings: RenderSettings, log: Log
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
            for scene in _render_shard(out, name, groups, settings)
        )
        for _ in track(pictures, label, total=total, log=log):
            pass
    elif missing:
        for _ in track(_in_processes(out, missing, workers, settings), label, total=total, log=log):
            pass
    return [_table(out, name) for name in shards]


def _in_processes(
    out: Path, shards: dict[str, Work], workers: int, settings: RenderSettings
) -> Iterator[str]:
    """Render shards in `workers` processes; yields each picture's id when it is rendered."""
    context = get_context("spawn")
    with context.Manager() as manager:
        rendered = manager.Queue()
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            work = partial(_render_shard_into, rendered, os.getpid())
            waiting: list[Future[None]] = [
                pool.submit(work, out, name, groups, settings) for name, groups in shards.items()
            ]
            try:
                while waiting or not rendered.empty():
                    with suppress(Empty):
                        yield rendered.get(timeout=0.5)
                    for future in [future for future in waiting if future.done()]:
                        waiting.remove(future)
                        future.result()
            finally:
                for future in waiting:
                    future.cancel()


def _render_shard_into(
    rendered: Any, parent: int, out: Path, name: str, groups: Work, settings: RenderSettings
) -> None:
    for scene_id in _render_shard(out, name, groups, settings):
        # A killed parent cannot stop its workers; they must not go on beside a resumed render.
        if os.getppid() != parent:
            os._exit(1)
        rendered.put(scene_id)


def _render_shard(out: Path, name: str, groups: Work, settings: RenderSettings) -> Iterator[str]:
    """Render one shard beside its place and move it there when it is whole; table last."""
    world = load_world(settings.taxonomy)
    quality = settings.quality_of(groups[0].split)
    rows: list[dict[str, Any]] = []
    if groups[0].split in TWIN_SPLITS:
        for group in groups:
            assert isinstance(group, Group)
            for _, row in render_twins(world, group, quality):
                rows.append(row)
                yield row["scene_id"]
        _write_table(TWIN_SCENES.frame(rows), _table(out, name))
        return
    folder = out / "images" / name
    staging = out / "images" / f"{name}.{os.getpid()}.part"
    staging.mkdir(parents=True)
    for group in groups:
        for scene in _render_pictures(world, group, quality):
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
    table = INTERACTION_SCENES if groups[0].split in INTERACTION_SPLITS else SCENES
    _write_table(table.frame(rows), _table(out, name))


def _render_pictures(world: World, group: Group | StreamItem, quality: Quality) -> Iterator[Scene]:
    if isinstance(group, StreamItem):
        yield render_item(world, group, quality)
    else:
        yield from render_group(world, group, quality)


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
