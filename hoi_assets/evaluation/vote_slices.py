"""The votes that count, cut into groups and slices.

Input is the table of votes (`rows` of `human_ratings`). Accepted votes on first showings count;
repeats serve self-agreement alone. The prompt is what is resampled: votes on one prompt, by
whichever rater, are not independent.
"""

from collections.abc import Iterator
from typing import Any

import polars as pl

from hoi_assets.statistics import Interval

ALL, CATEGORY, SCENARIO = "all", "category", "scenario"
TIE = "tie"


def counted_votes(votes: pl.DataFrame) -> pl.DataFrame:
    """The votes that count: accepted, and not on a repeat."""
    # In one order, so that resampling does not depend on the order of the rows given.
    return votes.filter((pl.col("status") == "accepted") & ~pl.col("repeat")).sort(
        "prompt_id", "study", "line", "method_a", "method_b"
    )


def compared_votes(votes: pl.DataFrame) -> pl.DataFrame:
    """The votes that count of pairwise studies."""
    return counted_votes(votes).filter(pl.col("choice").is_not_null(), mode="pairwise")


def votes_once(votes: pl.DataFrame) -> pl.DataFrame:
    """One row per vote, though a picture that several methods share gives it several rows.

    The answer, of any mode, is the text in `answer`; texts sort as scores do.
    """
    answer = pl.coalesce("choice", pl.col("score").cast(pl.String)).alias("answer")
    return votes.unique(["study", "line"], keep="first", maintain_order=True).with_columns(answer)


def slice_votes(votes: pl.DataFrame, *by: str) -> Iterator[tuple[dict[str, Any], pl.DataFrame]]:
    """Slices of the votes by the columns named: all, then each category and each scenario.

    Yields:
        The values of the columns, slice_kind and slice; and the slice's votes.
    """
    kinds = {ALL: pl.lit(ALL), CATEGORY: pl.col(CATEGORY), SCENARIO: pl.col(SCENARIO)}
    for kind, expression in kinds.items():
        named = votes.with_columns(expression.alias("slice")).filter(pl.col("slice").is_not_null())
        for key, part in group_rows(named, *by, "slice"):
            yield dict(zip((*by, "slice"), key, strict=True)) | {"slice_kind": kind}, part


def group_rows(table: pl.DataFrame, *by: str) -> list[tuple[tuple[Any, ...], pl.DataFrame]]:
    """The groups by the columns named, in their order."""
    sorted_by = table.sort(*by, maintain_order=True)
    return list(sorted_by.group_by(*by, maintain_order=True))


def measure_row(measure: str, found: Interval) -> dict[str, Any]:
    """The columns measure, n, value, ci_low and ci_high."""
    return {
        "measure": measure,
        "n": found.n,
        "value": found.value,
        "ci_low": found.low,
        "ci_high": found.high,
    }
