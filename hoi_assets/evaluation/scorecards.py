"""From scores of single images to a scorecard: means with intervals, methods compared in pairs.

The prompt is the unit: images of one prompt are averaged before anything is resampled or
compared, because they are not independent.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import polars as pl

from hoi_assets.engines.text_tokens import PROMPT_CUT, PROMPT_TOKENS
from hoi_assets.evaluation.columns import (
    CI_HIGH,
    CI_LOW,
    METHOD,
    METRIC,
    PROMPTS,
    SLICE,
    SLICE_KIND,
    SUITE,
)
from hoi_assets.settings import Evaluation
from hoi_assets.statistics import (
    Numbers,
    group_means,
    holm,
    mean_interval,
    paired_difference,
    percentile_rank,
)
from hoi_assets.store.tables import Column, Table

ALL = "all"
SEEN, UNSEEN = "seen", "unseen"
NO_SELECTION = "none: every picture drawn"
# Order of methods; a comparison is the later less the earlier.
METHODS = (
    "base",
    "dreambooth",
    "finetuned",
    "plain",
    "multi_seed",
    "multi_seed_clip",
    "rewrite",
    "refine",
    "endpoint",
    "craft",
    "local_repair",
    "image_edit",
    "detailscribe",
    "detailscribe_mean",
    "multi_seed_oracle",
    "detailscribe_oracle",
    "detailscribe_published",
)

SCORES = Table(
    "scores",
    "value of one metric for one image",
    (
        SUITE,
        METHOD,
        Column("category", pl.String, "hand pose; null without one", nullable=True),
        Column("scenario", pl.String, "InterActing's scenario; null elsewhere", nullable=True),
        Column(
            "seen",
            pl.Boolean,
            "whether pose and object were trained on together; null where that does not apply",
            nullable=True,
        ),
        Column("evaluation_prompt_id", pl.String, "the prompt; the unit of every mean"),
        Column("image_id", pl.String, "the image"),
        Column("pixels", pl.String, "digest of its pixels"),
        METRIC,
        Column("value", pl.Float64, "the score; null where it could not be had", nullable=True),
        PROMPT_TOKENS,
        PROMPT_CUT,
    ),
)
SCORECARD = Table(
    "scorecard",
    "mean of one metric by suite, method and slice",
    (
        SUITE,
        METHOD,
        SLICE_KIND,
        SLICE,
        METRIC,
        Column("n", pl.Int64, "images, or votes for human ratings"),
        PROMPTS,
        Column("missing", pl.Int64, "images or votes without a score"),
        Column(
            "mean",
            pl.Float64,
            "mean over prompts of each prompt's mean; null without a score",
            nullable=True,
        ),
        CI_LOW,
        CI_HIGH,
        Column(
            "percentile",
            pl.Float64,
            "percentile of the mean among the reference set's scores, 0..100; null without a set",
            nullable=True,
        ),
        Column("selection_rule", pl.String, "how the image was selected among candidates"),
        Column("compute", pl.String, "compute cost; empty where unknown"),
    ),
    key=("suite", "method", "slice_kind", "slice", "metric"),
)
COMPARISONS = Table(
    "comparisons",
    "paired comparison of two methods by suite, slice and metric",
    (
        SUITE,
        SLICE_KIND,
        SLICE,
        METRIC,
        Column("method_a", pl.String, "the method that is compared"),
        Column("method_b", pl.String, "the method it is compared with"),
        Column("n", pl.Int64, "prompts that both have a score for"),
        Column("difference", pl.Float64, "mean of a - b over prompts"),
        CI_LOW,
        CI_HIGH,
        Column("p", pl.Float64, "p of the sign-flip test; null for one prompt", nullable=True),
        Column(
            "p_holm",
            pl.Float64,
            "p corrected (Holm) over all rows of the same suite and metric",
            nullable=True,
        ),
    ),
    key=("suite", "slice_kind", "slice", "metric", "method_a", "method_b"),
)


def make_scorecard(
    scores: pl.DataFrame,
    config: Evaluation,
    reference: Mapping[str, Numbers] | None = None,
    selection_rule: str | Mapping[str, str] = NO_SELECTION,
    compute: str | Mapping[str, str] = "",
) -> pl.DataFrame:
    """Mean of each metric by suite, method and slice, with a 95% bootstrap interval.

    Args:
        scores: table of SCORES. A null or NaN value is a score that could not be had: it is
            counted in `missing`, never averaged; so is a prompt of which only other methods have
            an image.
        reference: by metric, scores of a stated reference set, for the percentile of the mean.
        selection_rule, compute: texts for the columns of that name, for every row or by method.

    Returns:
        Table of SCORECARD. n counts images, prompts the prompts they belong to. The mean is the
        mean over prompts of each prompt's mean; with one prompt there is no interval.
    """
    rows = []
    for (suite, kind, name, metric), part in _slices(scores):
        asked = part["evaluation_prompt_id"].n_unique()
        for method in _in_order(part["method"].unique().to_list()):
            own = part.filter(pl.col("method") == method)
            valid = own.filter(pl.col("value").is_not_null())
            without = asked - own["evaluation_prompt_id"].n_unique()
            means = _prompt_means(part, method)
            mean = mean_interval(list(means.values()), config.bootstrap_samples)
            rows.append(
                {
                    "suite": suite,
                    "method": method,
                    "slice_kind": kind,
                    "slice": name,
                    "metric": metric,
                    "n": valid.height,
                    "prompts": mean.n,
                    "missing": own.height - valid.height + without,
                    "mean": mean.value,
                    "ci_low": mean.low,
                    "ci_high": mean.high,
                    "percentile": percentile_rank(mean.value, (reference or {}).get(metric, ())),
                    "selection_rule": _text_of(selection_rule, method),
                    "compute": _text_of(compute, method),
                }
            )
    return pl.DataFrame(rows, schema=SCORECARD.schema)


def compare_methods(
    scores: pl.DataFrame,
    config: Evaluation,
    pairs: Sequence[tuple[str, str]] | None = None,
) -> pl.DataFrame:
    """Paired comparison of methods on the prompts that both have, by suite, slice and metric.

    Args:
        scores: as for `make_scorecard`.
        pairs: (method_a, method_b); None: all pairs in the order of METHODS, the later method
            first.

    Returns:
        Table of COMPARISONS. difference = mean of a - b over n prompts; p of the sign-flip
        test; p_holm corrects over all rows of the same suite and metric.
    """
    rows: list[dict[str, Any]] = []
    for (suite, kind, name, metric), part in _slices(scores):
        methods = _in_order(part["method"].unique().to_list())
        chosen = pairs if pairs is not None else [(b, a) for a, b in combinations(methods, 2)]
        means = {method: _prompt_means(part, method) for method in methods}
        for a, b in chosen:
            both = [prompt for prompt in means.get(a, {}) if prompt in means.get(b, {})]
            if not both:
                continue
            found = paired_difference(
                [means[a][prompt] for prompt in both],
                [means[b][prompt] for prompt in both],
                config.bootstrap_samples,
            )
            rows.append(
                {
                    "suite": suite,
                    "slice_kind": kind,
                    "slice": name,
                    "metric": metric,
                    "method_a": a,
                    "method_b": b,
                    "n": found.n,
                    "difference": found.difference,
                    "ci_low": found.low,
                    "ci_high": found.high,
                    "p": found.p,
                    "p_holm": None,
                }
            )
    for of in {(row["suite"], row["metric"]) for row in rows}:
        family = [row for row in rows if (row["suite"], row["metric"]) == of]
        for row, corrected in zip(family, holm([row["p"] for row in family]), strict=True):
            row["p_holm"] = corrected
    return pl.DataFrame(rows, schema=COMPARISONS.schema)


Place = tuple[str, str, str, str]


def _slices(scores: pl.DataFrame) -> Iterator[tuple[Place, pl.DataFrame]]:
    """The table by (suite, slice kind, slice, metric): all, category, scenario, combination."""
    order = ("suite", "metric", "method", "evaluation_prompt_id", "image_id")
    # No more than is asked below: ten million rows are to fit into memory, several times.
    scores = scores.select(
        *order, "category", "scenario", "seen", pl.col("value").fill_nan(None)
    ).sort(*order)
    seen = pl.when(pl.col("seen")).then(pl.lit(SEEN)).otherwise(pl.lit(UNSEEN))
    slices = {
        ALL: pl.lit(ALL),
        "category": pl.col("category"),
        "scenario": pl.col("scenario"),
        "combination": pl.when(pl.col("seen").is_not_null()).then(seen),
    }
    for kind, expression in slices.items():
        named = scores.with_columns(expression.alias("slice")).filter(pl.col("slice").is_not_null())
        if kind != ALL:
            # General prompts belong to no category and no combination.
            named = named.filter(pl.col("suite") != "general")
        for key, part in named.group_by("suite", "slice", "metric", maintain_order=True):
            suite, name, metric = (str(value) for value in key)
            yield (suite, kind, name, metric), part


def _prompt_means(part: pl.DataFrame, method: str) -> dict[str, float]:
    own = part.filter((pl.col("method") == method) & pl.col("value").is_not_null())
    return group_means(own["value"].to_list(), own["evaluation_prompt_id"].to_list())


def _in_order(methods: Sequence[str]) -> list[str]:
    known = [method for method in METHODS if method in methods]
    return known + sorted(set(methods) - set(known))


def _text_of(text: str | Mapping[str, str], method: str) -> str:
    return text if isinstance(text, str) else text.get(method, "")
