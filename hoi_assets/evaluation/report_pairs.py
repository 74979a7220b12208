"""What every method draws from the same prompt and the same noise, side by side."""

from typing import Any

import polars as pl

from hoi_assets.evaluation.report_parts import Parents, find_partitions, webp_uri
from hoi_assets.evaluation.report_verdicts import THUMBNAIL_PX
from hoi_assets.evaluation.scorecards import METHODS
from hoi_assets.store.versions import Store

PAIRS_PER_CATEGORY = 2
SAME = ("category", "evaluation_prompt_id", "seed", "prompt")


def describe_pairs(store: Store, parents: Parents) -> list[dict[str, Any]]:
    """Per hand pose a few held-out prompts with one picture per method; the first by id.

    The ids are hashes, so no score chooses. Empty where fewer than two methods drew a prompt.
    """
    pairs = []
    for published in find_partitions(parents, "hoi_evaluation_images").values():
        drawn = published.table("rows").filter(
            (pl.col("suite") == "hoi") & pl.col("pixels").is_not_null()
        )
        groups = (
            drawn.group_by(SAME)
            .agg("method", "pixels")
            .filter(pl.col("method").list.len() > 1)
            .sort(SAME)
            .unique("evaluation_prompt_id", keep="first", maintain_order=True)
        )
        for row in groups.head(PAIRS_PER_CATEGORY).iter_rows(named=True):
            by_method = dict(zip(row["method"], row["pixels"], strict=True))
            pairs.append(
                {
                    "prompt": row["prompt"],
                    "pictures": [
                        {
                            "method": method,
                            "src": webp_uri(store.images.open(by_method[method]), THUMBNAIL_PX),
                        }
                        for method in METHODS
                        if method in by_method
                    ],
                }
            )
    return pairs
