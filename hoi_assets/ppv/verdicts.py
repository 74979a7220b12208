"""Verdicts on candidates: accepted, or rejected with the reason and both probabilities."""

from typing import Any

import polars as pl

from hoi_assets.engines.vilt.verifier import (
    load_verifier,
    score_key,
    score_pairs,
    truncated,
    verdict,
)
from hoi_assets.progress import Say
from hoi_assets.settings import Settings
from hoi_assets.store.versions import Published, Store

KIND = "verifier_score"
CHUNK = 64

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
    store: Store, settings: Settings, candidates: pl.DataFrame, verifier: Published, say: Say
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
    scores = pair_scores(
        store, settings, list(zip(drawn["pixels"], drawn["prompt"], strict=True)), verifier, say
    )
    thresholds = None
    rows = []
    for row in candidates.iter_rows(named=True):
        record = {name: row[name] for name in ("image_id", "prompt_id", "category", "prompt")}
        record |= {"pixels": row["pixels"], "verifier_version": verifier.version}
        if row["pixels"] is None:
            record |= {"status": "failed", "reason": row["reason"]}
        else:
            thresholds = thresholds or _load(settings, verifier).thresholds
            fidelity, alignment = scores[row["pixels"], row["prompt"]]
            ruling = verdict(fidelity, alignment, thresholds)
            record |= {
                "p_fidelity": fidelity,
                "p_alignment": alignment,
                "p_pair": fidelity * alignment,
                "status": ruling.status,
                "reason": ruling.reason,
            }
        rows.append(record)
    return pl.DataFrame(rows, schema=SCHEMA)


def pair_scores(
    store: Store,
    settings: Settings,
    pairs: list[tuple[str, str]],
    verifier: Published,
    say: Say,
) -> dict[tuple[str, str], tuple[float, float]]:
    """Calibrated (fidelity, alignment) of (pixel digest, prompt) pairs, found or computed."""
    keys = {pair: score_key(pair[0], pair[1], verifier.version) for pair in pairs}
    known = store.ledger.made(KIND, keys.values())
    todo = [
        (slot, pair) for slot, pair in enumerate(dict.fromkeys(pairs)) if keys[pair] not in known
    ]
    if todo and (cut := truncated(_load(settings, verifier), [prompt for _, (_, prompt) in todo])):
        say(f"verifier: {len(cut)} prompts are longer than it reads; their ends are not judged")
    for start in range(0, len(todo), CHUNK):
        chunk = todo[start : start + CHUNK]
        found = score_pairs(
            _load(settings, verifier),
            [store.images.open(pixels) for _, (pixels, _) in chunk],
            [prompt for _, (_, prompt) in chunk],
            [slot for slot, _ in chunk],
        )
        known |= store.ledger.make(
            KIND,
            {
                keys[pair]: [float(fidelity), float(alignment)]
                for (_, pair), (fidelity, alignment) in zip(chunk, found, strict=True)
            },
        )
        say(f"verifier: {start + len(chunk)}/{len(todo)} pairs scored")
    return {pair: (known[key][0], known[key][1]) for pair, key in keys.items()}


def _load(settings: Settings, verifier: Published) -> Any:
    return load_verifier(verifier.file("model"), settings.device)


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
