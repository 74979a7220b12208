"""Verdicts on candidates: accepted, or rejected with the reason and both probabilities."""

from typing import Any

import polars as pl

from hoi_assets.engines.vilt.pair_scores import cached_pair_scores, load_published_verifier
from hoi_assets.engines.vilt.verifier import decide
from hoi_assets.progress import Log
from hoi_assets.settings import Settings
from hoi_assets.store.versions import Published, Store

SCHEMA: dict[str, Any] = {
    "image_id": pl.String,
    "prompt_id": pl.String,
    "category": pl.String,
    "prompt": pl.String,
    "pixels": pl.String,
    "p_fidelity": pl.Float64,
    "p_alignment": pl.Float64,
    "p_pair": pl.Float64,
    "status": pl.String,
    "reason": pl.String,
    "verifier_version": pl.String,
}


def verify(
    store: Store, settings: Settings, candidates: pl.DataFrame, verifier: Published, log: Log
) -> pl.DataFrame:
    """One verdict per candidate; pairs scored before by the same verifier are not scored again.

    Args:
        candidates: rows of `candidate_images`.
        verifier: version of `verifier`.

    Returns:
        Table of `SCHEMA`, one row per candidate in order. A candidate that was never drawn is
        failed, with the reason it has there.
    """
    drawn = candidates.filter(pl.col("pixels").is_not_null())
    scores = cached_pair_scores(
        store, settings, list(zip(drawn["pixels"], drawn["prompt"], strict=True)), verifier, log
    )
    thresholds = None
    rows = []
    for row in candidates.iter_rows(named=True):
        record = {name: row[name] for name in ("image_id", "prompt_id", "category", "prompt")}
        record |= {"pixels": row["pixels"], "verifier_version": verifier.version}
        if row["pixels"] is None:
            record |= {"status": "failed", "reason": row["reason"]}
        else:
            thresholds = thresholds or load_published_verifier(settings, verifier).thresholds
            fidelity, alignment = scores[row["pixels"], row["prompt"]]
            ruling = decide(fidelity, alignment, thresholds)
            record |= {
                "p_fidelity": fidelity,
                "p_alignment": alignment,
                "p_pair": fidelity * alignment,
                "status": ruling.status,
                "reason": ruling.reason,
            }
        rows.append(record)
    return pl.DataFrame(rows, schema=SCHEMA)


def summarise(verdicts: pl.DataFrame, category: str, goal: int | None) -> pl.DataFrame:
    """One row: candidates, accepted, rejected, failed; the goal and what is missing to it."""
    counts = {
        status: verdicts.filter(pl.col("status") == status).height
        for status in ("accepted", "rejected", "failed")
    }
    return pl.DataFrame(
        [
            {
                "category": category,
                "candidates": verdicts.height,
                **counts,
                "goal": goal,
                "shortfall": None if goal is None else max(0, goal - counts["accepted"]),
            }
        ],
        schema_overrides={"goal": pl.Int64, "shortfall": pl.Int64},
    )
