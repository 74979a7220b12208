"""Scores of InterActing's candidates: each is scored once; a method is reported by its selected
image, by the mean of its variants, and by an oracle.

The oracle takes a metric's best among all candidates, the initial image included, by that metric
itself. The published table of DetailScribe takes the best of its variants alone, against one image
of each baseline: that is `detailscribe_published`, reported where `evaluation.best_of_variants` is
set. Both are upper bounds, not results.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from hoi_assets.engines.text_tokens import PROMPT_CUT, PROMPT_TOKENS, prompt_values
from hoi_assets.evaluation.read_prompts import count_read_tokens
from hoi_assets.evaluation.run_metrics import CARRIED, score_rows
from hoi_assets.evaluation.scorecards import SCORES
from hoi_assets.progress import Log
from hoi_assets.settings import Settings
from hoi_assets.store.tables import Column, Table
from hoi_assets.store.versions import Store

SUITE = "interacting"
PLAIN, DETAILSCRIBE, MULTI_SEED, ENDPOINT = "plain", "detailscribe", "multi_seed", "endpoint"
MEAN, ORACLE, PUBLISHED = "_mean", "_oracle", "_published"
LOCAL_REPAIR, IMAGE_EDIT = "local_repair", "image_edit"
AGAINST = (
    "plain",
    "multi_seed",
    "multi_seed_clip",
    "rewrite",
    "refine",
    "endpoint",
    "craft",
    LOCAL_REPAIR,
    IMAGE_EDIT,
)
PAIRS = (
    *((DETAILSCRIBE, other) for other in AGAINST),
    ("craft", PLAIN),
    (LOCAL_REPAIR, PLAIN),
    (LOCAL_REPAIR, MULTI_SEED),
    (IMAGE_EDIT, PLAIN),
    (MULTI_SEED, PLAIN),
    (DETAILSCRIBE + MEAN, PLAIN),
    (DETAILSCRIBE + ORACLE, MULTI_SEED + ORACLE),
    *(
        (DETAILSCRIBE + PUBLISHED, other)
        for other in ("plain", "multi_seed_clip", "rewrite", "refine", "endpoint")
    ),
)
Texts = Mapping[str, Sequence[str]]
ORACLE_RULE = "oracle: the best candidate by the metric itself"
MEAN_RULE = "none: mean of the variants"
PUBLISHED_RULE = "best variant by the metric itself, as published; the initial picture not counted"

# The judge rates selected images only: a reply costs money.
VQA_SCORE, SOFT_TIFA = "vqa_score", "soft_tifa"
JUDGE_METRICS = ("judge_rating", "judge_yes", VQA_SCORE, SOFT_TIFA)
CANDIDATE = (*CARRIED, "candidate", "selected", "denoiser_evaluations", "why")
_SCORED = {column.name: column for column in SCORES.columns}
CANDIDATE_SCORES = Table(
    "candidates",
    "value of one metric for one candidate image of InterActing",
    (
        *(_SCORED[name] for name in CARRIED),
        Column("candidate", pl.Int64, "number among the method's candidates, from 0"),
        Column("selected", pl.Boolean, "whether the method selected it"),
        Column("denoiser_evaluations", pl.Int64, "denoiser evaluations (NFE) that it took"),
        Column("why", pl.String, "why it was selected; null elsewhere", nullable=True),
        _SCORED["metric"],
        _SCORED["value"],
        PROMPT_TOKENS,
        PROMPT_CUT,
    ),
    key=("method", "evaluation_prompt_id", "candidate", "metric"),
)


def list_candidates(
    images: Sequence[pl.DataFrame], questions: Texts, phrases: Texts
) -> list[dict[str, Any]]:
    """Rows for `score_candidates`: every image that was drawn, by whichever method.

    Args:
        images: rows of `initial_images`, `refined_images` and `baseline_images`.
        questions, phrases: by row_id of the benchmark, the components' questions and their noun
            phrases; a row without is not scored.
    """
    # Versions of different editions may lack each other's columns.
    drawn = pl.concat(images, how="diagonal_relaxed").filter(
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
    """Every metric of every candidate; an image that several methods share is scored once.

    Where an endpoint is the critic, component accuracy is its verdict at selection; an image that
    it was never shown has none.

    Returns:
        Table of CANDIDATE_SCORES.
    """
    places = [(row["pixels"], row["evaluation_prompt_id"]) for row in rows]
    distinct = {place: dict(row) for place, row in zip(places, rows, strict=True)}
    wanted = list(distinct.values())
    found = dict(zip(distinct, score_rows(store, settings, wanted, log), strict=True))
    read = dict(zip(distinct, count_read_tokens(store, settings, wanted), strict=True))
    if settings.critic.endpoint is not None:
        for place, row in zip(places, rows, strict=True):
            if row["satisfied"] is not None and row["questions"]:
                found[place]["component_accuracy"] = row["satisfied"] / len(row["questions"])
    return pl.DataFrame(
        [
            {name: row[name] for name in CANDIDATE}
            | {"metric": metric, "value": value}
            | prompt_values(read[place].get(metric))
            for place, row in zip(places, rows, strict=True)
            for metric, value in found[place].items()
        ],
        schema=CANDIDATE_SCORES.schema,
    )


def select_reported(
    scores: pl.DataFrame, best_of_variants: bool = False, every_candidate_rated: bool = False
) -> pl.DataFrame:
    """The scores that the scorecard summarises: of each method's selected image; of DetailScribe's
    variants (`detailscribe_mean`); of the oracle's choice for DetailScribe and for more seeds.

    Where the judge rates selected images only, its metrics have neither mean nor oracle.

    Args:
        scores: of `score_candidates`.
        best_of_variants: add `detailscribe_published`.
        every_candidate_rated: whether the judge rated every candidate.
    """
    of_all = scores
    if not every_candidate_rated:
        of_all = scores.filter(~pl.col("metric").is_in(JUDGE_METRICS))
    detailscribe = of_all.filter(pl.col("method") == DETAILSCRIBE)
    alone = pl.col("candidate").max().over("evaluation_prompt_id") == 0
    mean = detailscribe.filter((pl.col("candidate") > 0) | alone)
    oracle = _best_by_metric(of_all.filter(pl.col("method").is_in([DETAILSCRIBE, MULTI_SEED])))
    reported = [
        scores.filter("selected"),
        mean.with_columns(method=pl.col("method") + MEAN),
        oracle.with_columns(method=pl.col("method") + ORACLE),
    ]
    if best_of_variants:
        published = _best_by_metric(mean)
        reported.append(published.with_columns(method=pl.col("method") + PUBLISHED))
    return pl.concat(reported).sort("method", "evaluation_prompt_id", "metric", maintain_order=True)


def _best_by_metric(scores: pl.DataFrame) -> pl.DataFrame:
    """Of each method, prompt and metric the highest score, the first of equal ones."""
    return scores.sort("value", descending=True, nulls_last=True, maintain_order=True).unique(
        ["method", "evaluation_prompt_id", "metric"], keep="first", maintain_order=True
    )


def describe_methods(rows: Sequence[Mapping[str, Any]]) -> tuple[dict[str, str], dict[str, str]]:
    """Selection rules and compute costs a prompt, by method as `select_reported` names it."""
    rules: dict[str, str] = {}
    evaluations: dict[str, dict[str, int]] = {}
    for row in rows:
        method, prompt = row["method"], row["evaluation_prompt_id"]
        own = evaluations.setdefault(method, {})
        own[prompt] = own.get(prompt, 0) + row["denoiser_evaluations"]
        if row["selected"] and row["why"]:
            rules.setdefault(method, row["why"].partition(";")[0])
    compute = {
        method: f"{sum(own.values()) / len(own):.0f} denoiser evaluations (NFE) a prompt"
        for method, own in evaluations.items()
    }
    if ENDPOINT in compute:
        compute[ENDPOINT] = "an image endpoint"
    for method, rule in ((MEAN, MEAN_RULE), (ORACLE, ORACLE_RULE), (PUBLISHED, PUBLISHED_RULE)):
        for base in (DETAILSCRIBE, MULTI_SEED):
            if base in compute:
                rules[base + method], compute[base + method] = rule, compute[base]
    return rules | {PLAIN: "none: one picture"}, compute


def average_costs(candidates: pl.DataFrame, seconds: Mapping[str, float]) -> pl.DataFrame:
    """What each method took to draw a prompt's images, as a mean over prompts.

    Args:
        candidates: CANDIDATE, a row per image (and metric).
        seconds: wall time by image_id.

    Returns:
        Table of method, denoiser_evaluations, seconds (null where an image's time was not
        measured).
    """
    images = candidates.unique(["method", "evaluation_prompt_id", "candidate"])
    spent = [seconds.get(image_id) for image_id in images["image_id"]]
    return (
        images.with_columns(seconds=pl.Series(spent, dtype=pl.Float64))
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


def format_costs(costs: pl.DataFrame) -> str:
    """The table of `average_costs` as Markdown.

    It goes into metadata: wall time in a version would give equal inputs different hashes.
    """
    lines = [
        f"| {row['method']} | {row['denoiser_evaluations']:.0f} | "
        f"{'–' if row['seconds'] is None else format(row['seconds'], '.1f')} |"
        for row in costs.iter_rows(named=True)
    ]
    heading = ["| method | denoiser evaluations (NFE) | seconds |", "| --- | --- | --- |"]
    return "\n".join([*heading, *lines])
