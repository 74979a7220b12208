"""Homes in which every asset of the real graph is published: with one row a table, or with many.

Nothing is computed: rows are made up from the declared columns, inputs are the real ones, so that
`hoi stale` finds every version fresh.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from hoi_assets.defs.project import Project, load_project
from hoi_assets.hashing import digest
from hoi_assets.publishing import evidence
from hoi_assets.publishing.gate_result import GateResult
from hoi_assets.publishing.stage import Stage
from hoi_assets.store.tables import Column, Table
from hoi_assets.store.versions import Staging, Store
from hoi_assets_tests.rating.conftest import picture

# Values that a column of this name has, whatever its table.
WORDS = {
    "status": "accepted",
    "suite": "hoi",
    "metric": "clip_score",
    "slice_kind": "all",
    "slice": "all",
    "mode": "rating",
    "method": "plain",
}
FILES = {
    "evaluation_report": ("report.html",),
    "hoi_dataset": ("dataset/README.md",),
    "finetuned_model": ("lora/pytorch_lora_weights.safetensors",),
}
# Empty until a round is asked for.
OF_ROUNDS = ("round_plan", "round_scorecards")
TIME = "2025-01-02T03:04:05+00:00"


def fill_home(
    home: Path, rows: int, keys: Sequence[str] | None = None, profile: str = "tiny"
) -> Project:
    """Publish every asset of the profile.

    Args:
        rows: of each table; with one row, every column that may be null is.
        keys: categories and scenarios; all where not given.
    """
    project = load_project(profile, home)
    store, settings = project.platform.store, project.platform.settings
    for stage in project.graph.stages:
        for key in stage.partition_keys:
            if key is not None and keys is not None and key not in keys:
                continue
            context = project.graph.context(stage, key, settings, store, log=lambda _: None)
            with store.stage(stage.name, key) as out:
                own = 0 if stage.name in OF_ROUNDS else rows
                for table in stage.tables:
                    out.write_table(table.name, made_up(table, store, stage, key, own))
                for name in FILES.get(stage.name, ()):
                    _write_file(out, name)
                inputs = project.graph.inputs(stage, context)
                parents = {one.name: one.version for one in project.graph.lineage(stage, context)}
                published = store.publish(out, inputs, None, parents)
            found = evidence.Evidence(GateResult(()), {})
            evidence.keep(store, stage.name, key, published.version, found, {})
    return project


def made_up(table: Table, store: Store, stage: Stage, key: str | None, rows: int) -> pl.DataFrame:
    """So many rows of a declared table, different in every asset and partition."""
    place = f"{stage.name}-{key}"
    return table.frame(
        {
            column.name: None
            if rows == 1 and column.nullable
            else _value(column, store, place, key, number)
            for column in table.columns
        }
        for number in range(rows)
    )


def image_id(asset: str, key: str, number: int = 0) -> str:
    """Id of a made-up image."""
    return digest([asset, key, number])[:16]


def _value(column: Column, store: Store, place: str, key: str | None, number: int) -> Any:
    name, kind = column.name, column.dtype
    if name == "image_id":
        asset, _, partition = place.partition("-")
        return image_id(asset, partition, number)
    if name in ("category", "scenario"):
        return key or "hook"
    if name == "pixels":
        return store.images.put(picture(number))
    if name in WORDS:
        return WORDS[name]
    if kind == pl.String:
        return f"{name} {place} {number}"
    if kind == pl.Boolean:
        return number % 2 == 0
    if kind in (pl.Int32, pl.Int64):
        return number + 1
    if kind == pl.Float64:
        return 0.5 + number / 100
    if kind == pl.Binary:
        return b"\x89PNG"
    if isinstance(kind, pl.List):
        inner = Column(name, kind.inner, "")
        return [_value(inner, store, place, key, number)]
    return pl.Series([TIME]).str.to_datetime(time_unit="us", time_zone="UTC")[0]


def _write_file(out: Staging, name: str) -> None:
    (out.path / name).parent.mkdir(parents=True, exist_ok=True)
    out.write_text(name, "made up")
