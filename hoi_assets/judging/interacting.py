"""Scores of the benchmark suite `interacting`: every candidate is scored once; methods are reported
by what was selected, by the mean of the variants, and by an oracle.

The oracle takes a metric's best among the candidates by that metric itself, which is how the
published table of DetailScribe reads its variants. It is an upper bound, not a result.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from hoi_assets.judging.scoring import CARRIED, score_rows
from hoi_assets.progress import Say
from hoi_assets.settings import Settings
from hoi_assets.store.versions import Store

SUITE = "interacting"
PLAIN, DETAILSCRIBE, MULTI_SEED, ENDPOINT = "plain", "detailscribe", "multi_seed", "endpoint"
MEAN, ORACLE = "_mean", "_oracle"
AGAINST = ("plain", "multi_seed", "multi_seed_clip", "rewrite", "refine", "endpoint", "craft")
PAIRS = (
    *((DETAILSCRIBE, other) for other in AGAINST),
    ("craft", PLAIN),
    (MULTI_SEED, PLAIN),
    (DETAILSCRIBE + MEAN, PLAIN),
    (DETAILSCRIBE + ORACLE, MULTI_SEED + ORACLE),
)
Texts = Mapping[str, Sequence[str]]
ORACLE_RULE = "oracle: the best candidate by the metric itself"
MEAN_RULE = "none: mean of the variants"


CANDIDATE = (*CARRIED, "candidate", "selected", "passes", "why")


def candidates(
    images: Sequence[pl.DataFrame], questions: Texts, phrases: Texts
) -> list[dict[str, Any]]:
    """Rows for `score_candidates`: all pictures that were drawn, by whichever method.

    Args:
        images: rows of `initial_images`, `refined_images` and `baseline_images`.
        questions, phrases: of each benchmark row, by row_id; a row without is not scored.
    """
    drawn = pl.concat(images).filter(
        (pl.col("status") == "accepted") & pl.col("row_id").is_in(list(questions))
    )
    return [
        {name: row.get(name) for name in CANDIDATE}
        | {
            "suite": SUITE,
            "evaluation_prompt_id": row["row_id"],
            "prompt": row["prompt"],
            "questions": list(questions[row["row_id"]]),
            "phrases": list(phrases[row["row_id"]]),
        }
        for row in drawn.iter_rows(named=True)
    ]


def score_candidates(
    store: Store, settings: Settings, rows: Sequence[Mapping[str, Any]], say: Say
) -> pl.DataFrame:
    """Every metric of every candidate; a picture that several methods share is scored once.

    Returns:
        Long table: CANDIDATE, metric, value.
    """
    places = [(row["pixels"], row["evaluation_prompt_id"]) for row in rows]
    distinct = {place: dict(row) for place, row in zip(places, rows, strict=True)}
    values = score_rows(store, settings, list(distinct.values()), say)
    found = dict(zip(distinct, values, strict=True))
    return pl.DataFrame(
        [
            {name: row[name] for name in CANDIDATE} | {"metric": metric, "value": value}
            for place, row in zip(places, rows, strict=True)
            for metric, value in found[place].items()
        ],
        infer_schema_length=None,
    )


def reported(scores: pl.DataFrame) -> pl.DataFrame:
    """What the scorecard is made of: the selected picture of each method; for DetailScribe the mean
    of its variants as well; for it and for more seeds the oracle.

    Args:
        scores: of `score_candidates`.
    """
    detailscribe = scores.filter(pl.col("method") == DETAILSCRIBE)
    alone = pl.col("candidate").max().over("evaluation_prompt_id") == 0
    mean = detailscribe.filter((pl.col("candidate") > 0) | alone)
    oracle = (
        scores.filter(pl.col("method").is_in([DETAILSCRIBE, MULTI_SEED]))
        .sort("value", descending=True, nulls_last=True, maintain_order=True)
        .unique(["method", "evaluation_prompt_id", "metric"], keep="first", maintain_order=True)
    )
    return pl.concat(
        [
            scores.filter("selected"),
            mean.with_columns(method=pl.col("method") + MEAN),
            oracle.with_columns(method=pl.col("method") + ORACLE),
        ]
    ).sort("method", "evaluation_prompt_id", "metric", maintain_order=True)


def said_of_methods(rows: Sequence[Mapping[str, Any]]) -> tuple[dict[str, str], dict[str, str]]:
    """By method as `reported` names it: how pictures are selected, and what a prompt costs."""
    rules: dict[str, str] = {}
    passes: dict[str, dict[str, int]] = {}
    for row in rows:
        method, prompt = row["method"], row["evaluation_prompt_id"]
        own = passes.setdefault(method, {})
        own[prompt] = own.get(prompt, 0) + row["passes"]
        if row["selected"] and row["why"]:
            rules.setdefault(method, row["why"].partition(";")[0])
    compute = {
        method: f"{sum(own.values()) / len(own):.0f} denoiser passes a prompt"
        for method, own in passes.items()
    }
    if ENDPOINT in compute:
        compute[ENDPOINT] = "an image endpoint"
    for method, rule in ((MEAN, MEAN_RULE), (ORACLE, ORACLE_RULE)):
        for base in (DETAILSCRIBE, MULTI_SEED):
            if base in compute:
                rules[base + method], compute[base + method] = rule, compute[base]
    return rules | {PLAIN: "none: one picture"}, compute
