"""Scores of the benchmark suite `interacting`: every candidate is scored once; methods are reported
by what was selected, by the mean of the variants, and by an oracle.

The oracle takes a metric's best among the candidates by that metric itself, which is how the
published table of DetailScribe reads its variants. It is an upper bound, not a result.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from hoi_assets.evaluation.run_metrics import CARRIED, score_rows
from hoi_assets.progress import Log
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


# The judge is asked about these alone: a reply is paid for.
OF_SELECTED = ("judge_rating", "judge_yes")
CANDIDATE = (*CARRIED, "candidate", "selected", "denoiser_evaluations", "why")


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
            "satisfied": row["satisfied"],
        }
        for row in drawn.iter_rows(named=True)
    ]


def score_candidates(
    store: Store, settings: Settings, rows: Sequence[Mapping[str, Any]], log: Log
) -> pl.DataFrame:
    """Every metric of every candidate; a picture that several methods share is scored once.

    Where an endpoint is the critic, component accuracy is what it said when it chose; a picture
    that it was never shown has none.

    Returns:
        Long table: CANDIDATE, metric, value.
    """
    places = [(row["pixels"], row["evaluation_prompt_id"]) for row in rows]
    distinct = {place: dict(row) for place, row in zip(places, rows, strict=True)}
    values = score_rows(store, settings, list(distinct.values()), log)
    found = dict(zip(distinct, values, strict=True))
    if settings.critic.endpoint is not None:
        for place, row in zip(places, rows, strict=True):
            if row["satisfied"] is not None and row["questions"]:
                found[place]["component_accuracy"] = row["satisfied"] / len(row["questions"])
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
    of its variants as well; for it and for more seeds the oracle. The judge's metrics are of
    selected pictures alone, so they have neither mean nor oracle.

    Args:
        scores: of `score_candidates`.
    """
    of_all = scores.filter(~pl.col("metric").is_in(OF_SELECTED))
    detailscribe = of_all.filter(pl.col("method") == DETAILSCRIBE)
    alone = pl.col("candidate").max().over("evaluation_prompt_id") == 0
    mean = detailscribe.filter((pl.col("candidate") > 0) | alone)
    oracle = (
        of_all.filter(pl.col("method").is_in([DETAILSCRIBE, MULTI_SEED]))
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
        own[prompt] = own.get(prompt, 0) + row["denoiser_evaluations"]
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


def costs(candidates: pl.DataFrame, seconds: Mapping[str, float]) -> pl.DataFrame:
    """What each method took to draw a prompt's pictures, as a mean over prompts.

    Args:
        candidates: CANDIDATE, a row per picture (and metric).
        seconds: wall time by image_id.

    Returns:
        Table of method, denoiser_evaluations, seconds (null where one was not measured).
    """
    pictures = candidates.unique(["method", "evaluation_prompt_id", "candidate"])
    spent = [seconds.get(image_id) for image_id in pictures["image_id"]]
    return (
        pictures.with_columns(seconds=pl.Series(spent, dtype=pl.Float64))
        .group_by("method", "evaluation_prompt_id")
        .agg(
            pl.col("denoiser_evaluations").sum(),
            pl.when(pl.col("seconds").is_not_null().all()).then(pl.col("seconds").sum()),
        )
        .group_by("method")
        .agg(
            pl.col("denoiser_evaluations").mean(),
            pl.when(pl.col("seconds").is_not_null().all()).then(pl.col("seconds").mean()),
        )
        .sort("denoiser_evaluations", "method")
    )
