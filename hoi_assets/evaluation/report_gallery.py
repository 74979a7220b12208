"""The report's gallery: candidates with their verdicts, to be filtered and enlarged."""

from typing import Any

import polars as pl

from hoi_assets.evaluation.report_verdicts import (
    ACCEPTED,
    GALLERY_IMAGES,
    REJECTED,
    choose_gallery,
    with_outlines,
)
from hoi_assets.store.versions import Store


def describe_gallery(
    store: Store, verdicts: pl.DataFrame, most: int = GALLERY_IMAGES
) -> dict[str, Any]:
    """The pictures shown, and what one can filter by; empty without a drawn candidate.

    Args:
        verdicts: of `read_verdicts`.
    """
    chosen = choose_gallery(verdicts, most)
    if chosen.is_empty():
        return {}
    statuses = [name for name in (ACCEPTED, REJECTED) if name in chosen["status"]]
    rejected = chosen.filter(pl.col("status") == REJECTED)
    return {
        "pictures": with_outlines(store, chosen.to_dicts()),
        "drawn": verdicts["pixels"].is_not_null().sum(),
        "filters": {
            "category": chosen["category"].unique().sort().to_list(),
            "verdict": statuses,
            "reason": rejected["label"].unique().sort().to_list(),
        },
    }
