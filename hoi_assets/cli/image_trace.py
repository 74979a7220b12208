"""Finds an image by its id and traces it from prompt to verdict."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import polars as pl

from hoi_assets.errors import HoiError
from hoi_assets.store.lineage import lineage
from hoi_assets.store.versions import Published, Store

BENCHMARK_IN = ("initial_images", "refined_images", "baseline_images")
DRAWN_IN = ("candidate_images", "hoi_evaluation_images", *BENCHMARK_IN)
# In the order an image passes them; each has a table `rows` with image_id.
JUDGED_IN = ("verified_pairs", "hoi_dataset")
MIN_ID_LENGTH = 6


@dataclass(frozen=True)
class Found:
    """An image's row and the version it stands in."""

    row: dict[str, Any]
    published: Published


def find_image(store: Store, image_id: str) -> Found:
    """The row of an image, by its id or the beginning of one (6 digits or more).

    Versions in force are searched first, then older ones that are still kept.

    Raises:
        HoiError: no such image, or several begin alike.
    """
    wanted = image_id.strip().lower()
    if len(wanted) < MIN_ID_LENGTH:
        raise HoiError(f"image id {image_id!r} is too short", "give at least 6 of its digits")
    for published in _drawn(store):
        rows = published.table("rows").filter(pl.col("image_id").str.starts_with(wanted))
        ids = rows["image_id"].unique().to_list()
        if len(ids) > 1:
            raise HoiError(
                f"{len(ids)} images begin with {image_id!r}: {', '.join(sorted(ids)[:5])}",
                "give more digits",
            )
        if ids:
            return Found(rows.row(0, named=True), published)
    raise HoiError(
        f"no image {image_id!r} in {' or '.join(DRAWN_IN)}",
        'list ids with: hoi sql "select image_id, category, prompt from candidate_images"',
    )


def _drawn(store: Store) -> Iterator[Published]:
    places = [(asset, one) for asset in DRAWN_IN for one in store.partitions(asset)]
    newest = [store.current(asset, partition) for asset, partition in places]
    yield from (one for one in newest if one is not None)
    for asset, partition in places:
        yield from (one for one in store.history(asset, partition) if one.is_stored())


def trace_image(store: Store, image_id: str) -> list[tuple[str, dict[str, Any]]]:
    """What happened to an image, in order, with versions.

    PPV: prompt, drawing, verdict, dataset. DetailScribe: prompt, components, drawing, critique, and
    the methods that had it as a candidate.

    Returns:
        (title, facts) per step; facts say so where the image did not reach the step.

    Raises:
        HoiError: as `find_image`.
    """
    found = find_image(store, image_id)
    if found.published.asset in BENCHMARK_IN:
        return _trace_benchmark(store, found)
    row, drawn = found.row, found.published
    steps: list[tuple[str, dict[str, Any]]] = []
    category = row["category"]
    if row.get("prompt_id"):
        prompts = _version_read(store, drawn, "detailed_prompts", category)
        match = prompts.table("rows").filter(pl.col("prompt_id") == row["prompt_id"])
        steps.append(_step("prompt", prompts, match))
    steps.append((f"drawn ({drawn.name})", {"version": drawn.version} | _told(row)))
    if drawn.asset == "candidate_images":
        for asset in JUDGED_IN:
            judged = store.current(asset, category if asset == "verified_pairs" else None)
            if judged is None:
                steps.append((asset, {"state": "nothing published yet"}))
                continue
            rows = judged.table("rows").filter(pl.col("image_id") == row["image_id"])
            steps.append(_step(asset, judged, rows))
    made_from = {one.name: one.version for one in lineage(store, *_place(drawn))}
    steps.append(("made from", made_from))
    return steps


def _trace_benchmark(store: Store, found: Found) -> list[tuple[str, dict[str, Any]]]:
    row, drawn = found.row, found.published
    scenario, row_id = row["scenario"], row["row_id"]

    def rows_in(asset: str) -> list[tuple[str, dict[str, Any]]]:
        published = store.current(asset, scenario)
        if published is None:
            return [(asset, {"state": "nothing published yet"})]
        rows = published.table("rows").filter(pl.col("row_id") == row_id)
        return [_step(asset, published, rows)]

    steps = [*rows_in("interacting_prompts"), *rows_in("interaction_decompositions")]
    steps.append((f"drawn ({drawn.name})", {"version": drawn.version} | _told(row)))
    steps += rows_in("image_critiques")
    for asset in BENCHMARK_IN[1:]:
        published = store.current(asset, scenario)
        if published is None:
            continue
        rows = published.table("rows").filter(pl.col("image_id") == row["image_id"])
        for one in rows.iter_rows(named=True):
            names = (
                "candidate",
                "switch_step",
                "satisfied",
                "probability",
                "selected",
                "why",
                "reason",
            )
            steps.append((f"{asset}: {one['method']}", _told({name: one[name] for name in names})))
    made_from = {one.name: one.version for one in lineage(store, *_place(drawn))}
    return [*steps, ("made from", made_from)]


def _version_read(store: Store, child: Published, asset: str, partition: str) -> Published:
    """The version of a parent that `child` was made from."""
    version = (child.inputs | child.parents).get(f"{asset}/{partition}")
    if version is None:
        return store.require(asset, partition)
    return store.version(asset, partition, version)


def _place(published: Published) -> tuple[str, str | None, str]:
    return published.asset, published.partition, published.version


def _step(title: str, published: Published, rows: pl.DataFrame) -> tuple[str, dict[str, Any]]:
    if rows.is_empty():
        return title, {"version": published.version, "state": "not among its rows"}
    return title, {"version": published.version} | _told(rows.row(0, named=True))


def _told(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None}
