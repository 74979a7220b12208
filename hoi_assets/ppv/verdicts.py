"""Verdicts on candidates: accepted, or rejected with the reason and both probabilities."""

import polars as pl

from hoi_assets.engines.text_tokens import PROMPT_CUT, PROMPT_TOKENS, prompt_values
from hoi_assets.engines.vilt.decision import decide
from hoi_assets.engines.vilt.pair_scores import (
    cached_pair_scores,
    count_verifier_tokens,
    published_thresholds,
)
from hoi_assets.progress import Log
from hoi_assets.settings import Settings
from hoi_assets.store.tables import Column, Table
from hoi_assets.store.versions import Published, Store

VERDICT_ROWS = Table(
    "rows",
    "the verdict on one candidate",
    (
        Column("image_id", pl.String, "the candidate, 16 hex digits"),
        Column("prompt_id", pl.String, "its detailed prompt, 16 hex digits"),
        Column("category", pl.String, "hand-pose category"),
        Column("prompt", pl.String, "the detailed prompt"),
        PROMPT_TOKENS,
        PROMPT_CUT,
        Column(
            "pixels", pl.String, "digest of the pixels; null where drawing failed", nullable=True
        ),
        Column(
            "p_fidelity",
            pl.Float64,
            "probability that it is free of defects",
            "0..1",
            nullable=True,
        ),
        Column(
            "p_alignment", pl.Float64, "probability that it agrees with the prompt", "0..1", True
        ),
        Column("p_pair", pl.Float64, "product of both probabilities", "0..1", nullable=True),
        Column(
            "defect_map",
            pl.String,
            "digest of a grey picture: how likely each cell is defective; null where the verifier "
            "has no defect head, as the next two",
            nullable=True,
        ),
        Column(
            "defect_share", pl.Float64, "share of cells that look defective", "0..1", nullable=True
        ),
        Column(
            "defect_kind", pl.String, "likeliest kind of defect, if there is one", nullable=True
        ),
        Column("status", pl.String, "accepted, rejected or failed (never drawn)"),
        Column("reason", pl.String, "why it was rejected or failed", nullable=True),
        Column("verifier_version", pl.String, "version of verifier"),
    ),
    key=("image_id",),
)
VERDICT_SUMMARY = Table(
    "summary",
    "the category's verdicts, counted",
    (
        Column("category", pl.String, "hand-pose category"),
        Column("candidates", pl.Int64, "all candidates"),
        Column("accepted", pl.Int64, "candidates that the verifier accepted"),
        Column("rejected", pl.Int64, "candidates that it rejected"),
        Column("failed", pl.Int64, "candidates that were never drawn"),
        Column("goal", pl.Int64, "candidates.accepted_goal; null where none is set", nullable=True),
        Column("shortfall", pl.Int64, "accepted images missing to the goal", nullable=True),
    ),
    key=("category",),
)


def verify_candidates(
    store: Store, settings: Settings, candidates: pl.DataFrame, verifier: Published, log: Log
) -> pl.DataFrame:
    """One verdict per candidate; pairs scored before by the same verifier are not scored again.

    Args:
        candidates: rows of `candidate_images`.
        verifier: version of `verifier`.

    Returns:
        Table `VERDICT_ROWS`, one row per candidate in order. A candidate that was never drawn is
        failed, with the candidate's reason.
    """
    drawn = candidates.filter(pl.col("pixels").is_not_null())
    scores = cached_pair_scores(
        store, settings, list(zip(drawn["pixels"], drawn["prompt"], strict=True)), verifier, log
    )
    counts = count_verifier_tokens(store, drawn["prompt"], verifier)
    thresholds = None
    rows = []
    for row in candidates.iter_rows(named=True):
        record = dict.fromkeys(VERDICT_ROWS.schema)
        for name in ("image_id", "prompt_id", "category", "prompt", "pixels"):
            record[name] = row[name]
        record["verifier_version"] = verifier.version
        if row["pixels"] is None:
            record |= {"status": "failed", "reason": row["reason"]}
        else:
            thresholds = thresholds or published_thresholds(verifier)
            score = scores[row["pixels"], row["prompt"]]
            ruling = decide(score.fidelity, score.alignment, thresholds)
            record |= prompt_values(counts[row["prompt"]]) | {
                "p_fidelity": score.fidelity,
                "p_alignment": score.alignment,
                "p_pair": score.fidelity * score.alignment,
                "defect_map": score.defect_map,
                "defect_share": score.defect_share,
                "defect_kind": score.defect_kind,
                "status": ruling.status,
                "reason": ruling.reason,
            }
        rows.append(record)
    return VERDICT_ROWS.frame(rows)


def summarise_verdicts(verdicts: pl.DataFrame, category: str, goal: int | None) -> pl.DataFrame:
    """Table `VERDICT_SUMMARY`: one row.

    Args:
        goal: how many accepted candidates are wanted; None where no goal is set.
    """
    counts = {
        status: verdicts.filter(pl.col("status") == status).height
        for status in ("accepted", "rejected", "failed")
    }
    return VERDICT_SUMMARY.frame(
        [
            {
                "category": category,
                "candidates": verdicts.height,
                **counts,
                "goal": goal,
                "shortfall": None if goal is None else max(0, goal - counts["accepted"]),
            }
        ]
    )
