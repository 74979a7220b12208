"""Verdicts of all hand poses in one table, and pictures with their defects outlined."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import polars as pl

from hoi_assets.engines.vilt.decision import blames_fidelity, verdict_label
from hoi_assets.evaluation.report_parts import Parents, find_partitions, webp_uri
from hoi_assets.store.versions import Store

# A version made before one of them existed holds null there.
READ = {
    "image_id": pl.String,
    "prompt_id": pl.String,
    "prompt": pl.String,
    "pixels": pl.String,
    "p_fidelity": pl.Float64,
    "p_alignment": pl.Float64,
    "defect_map": pl.String,
    "defect_share": pl.Float64,
    "defect_kind": pl.String,
    "status": pl.String,
    "reason": pl.String,
    "verifier_version": pl.String,
}
ACCEPTED, REJECTED, FAILED = "accepted", "rejected", "failed"
THUMBNAIL_PX = 256
# Of 10,000 candidates a page of a few megabytes can hold this many.
GALLERY_IMAGES = 240


def read_verdicts(parents: Parents) -> pl.DataFrame:
    """READ of all hand poses with `category` and `label`; empty without verdicts.

    `label` is the verdict in a few words: accepted, or the reason with the kind of defect.
    """
    tables = [
        rows.select(
            pl.lit(category).alias("category"),
            *(
                pl.col(name).cast(kind) if name in rows.columns else pl.lit(None, kind).alias(name)
                for name, kind in READ.items()
            ),
        )
        for category, rows in (
            (category, published.table("rows"))
            for category, published in find_partitions(parents, "verified_pairs").items()
        )
    ]
    rows = pl.concat(tables) if tables else pl.DataFrame(schema={"category": pl.String, **READ})
    named = rows.select("status", "reason", "defect_kind").iter_rows()
    labels = pl.Series("label", [verdict_label(*row) for row in named], pl.String)
    return rows.with_columns(labels)


def choose_gallery(rows: pl.DataFrame, most: int = GALLERY_IMAGES) -> pl.DataFrame:
    """At most `most` drawn candidates: all, or as many of each category and label as fit.

    The order is that of the ids, which are hashes: a sample, not a selection.
    """
    place = pl.col("image_id").rank("ordinal").over("category", "label")
    drawn = rows.filter(pl.col("pixels").is_not_null())
    chosen = drawn.sort(place, "category", "label").head(most)
    return chosen.sort("image_id")


def choose_rejected(rows: pl.DataFrame, most: int) -> pl.DataFrame:
    """One picture per label, the most frequent label first, then a second one, and so on."""
    place = pl.col("image_id").rank("ordinal").over("label")
    drawn = rows.filter((pl.col("status") == REJECTED) & pl.col("pixels").is_not_null())
    ordered = drawn.with_columns(frequency=pl.len().over("label"), place=place)
    chosen = ordered.sort("place", pl.col("frequency") * -1, "label").head(most)
    return chosen.sort(pl.col("frequency") * -1, "label", "image_id").drop("frequency", "place")


def with_outlines(store: Store, rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with `src`, a thumbnail, and `outline`: its defects, to be laid over it.

    `outline` is None where the verdict is not about fidelity, or the verifier has no map.
    """
    return [
        row
        | {
            "src": webp_uri(store.images.open(row["pixels"]), THUMBNAIL_PX),
            "outline": _outline(store, row),
        }
        for row in rows
    ]


def _outline(store: Store, row: dict[str, Any]) -> str | None:
    from hoi_assets.map_overlay import outline_layer

    if row["defect_map"] is None or not blames_fidelity(row["reason"]):
        return None
    layer = outline_layer(store.images.open(row["defect_map"]), THUMBNAIL_PX)
    return None if layer.getbbox() is None else webp_uri(layer, THUMBNAIL_PX)


def count_rejections(rows: pl.DataFrame) -> dict[str, Counter[str]]:
    """By reason, the most frequent first, how often each kind of defect; "" where none is named."""
    counts: dict[str, Counter[str]] = {}
    rejected = rows.filter(pl.col("status") == REJECTED).sort("label")
    for label in rejected["label"]:
        reason, _, kind = label.partition(": ")
        counts.setdefault(reason, Counter())[kind] += 1
    return dict(sorted(counts.items(), key=lambda item: -item[1].total()))
