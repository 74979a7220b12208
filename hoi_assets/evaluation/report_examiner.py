"""What the examiner sees in the candidates: how many of the accepted are truly good."""

import numpy as np
import polars as pl

from hoi_assets.engines.cached_scores import cached_scores
from hoi_assets.evaluation.report_parts import Parents, find_partitions
from hoi_assets.evaluation.report_verdicts import ACCEPTED, REJECTED
from hoi_assets.evaluation.run_metrics import judges
from hoi_assets.progress import Log
from hoi_assets.settings import Settings
from hoi_assets.statistics import (
    SAMPLES,
    Interval,
    bootstrap_counts,
    intervals_of_resamples,
    share_interval,
)
from hoi_assets.store.versions import Store

EXAMINER = "examiner"
ALL_RIGHT = "examiner_all"
PROMPT = ("prompt_id", "object", "colour", "side")
GAIN = "gain"


def examine_candidates(
    store: Store, settings: Settings, parents: Parents, verdicts: pl.DataFrame, log: Log
) -> dict[str, Interval]:
    """Share of candidates that are right in every respect, by status: accepted and rejected; GAIN
    is the share of the accepted less that of the rejected.

    Right: free of defects, and pose, object, colour and side as the prompt asks. Empty where no
    examiner is configured, or nothing was drawn.

    Args:
        verdicts: of `read_verdicts`.
    """
    prompts = [one.table("rows") for one in find_partitions(parents, "detailed_prompts").values()]
    if not prompts or verdicts.is_empty():
        return {}
    right = _examined(store, settings, pl.concat(p.select(PROMPT) for p in prompts), verdicts, log)
    if right is None:
        return {}
    found = {}
    for status in (ACCEPTED, REJECTED):
        own = right.filter(pl.col("status") == status)
        if own.height:
            found[status] = clustered_share(own["right"].to_list(), own["prompt_id"].to_list())
    if len(found) > 1:
        found[GAIN] = _gain(right)
    return found


def right_by_image(
    store: Store, settings: Settings, prompts: pl.DataFrame, verdicts: pl.DataFrame, log: Log
) -> dict[str, bool] | None:
    """Whether each drawn candidate is right in every respect, by image id; None without an
    examiner.

    Args:
        prompts: rows of `detailed_prompts`.
        verdicts: rows of `verified_pairs`.
    """
    right = _examined(store, settings, prompts.select(PROMPT), verdicts, log)
    return None if right is None else dict(right.select("image_id", "right").iter_rows())


def _examined(
    store: Store, settings: Settings, prompts: pl.DataFrame, verdicts: pl.DataFrame, log: Log
) -> pl.DataFrame | None:
    """The drawn candidates with a column `right`; None without an examiner."""
    examiner = next((judge for judge in judges(settings) if judge.name == EXAMINER), None)
    if examiner is None:
        return None
    judged = verdicts.filter(
        pl.col("status").is_in([ACCEPTED, REJECTED]) & pl.col("pixels").is_not_null()
    )
    asked = prompts.unique("prompt_id")
    drawn = judged.join(asked, on="prompt_id").with_columns(suite=pl.lit("hoi")).sort("image_id")
    scores = cached_scores(store, examiner, drawn.to_dicts(), log)
    return drawn.with_columns(
        right=pl.Series([row[ALL_RIGHT] == 1 for row in scores], dtype=pl.Boolean)
    )


def clustered_share(flags: list[bool], groups: list[str]) -> Interval:
    """A share with the interval over groups: pictures of one prompt are not independent.

    Bootstrap over groups; Wilson's interval over them where all flags are equal, because resamples
    of those have no spread. n counts the flags.

    >>> clustered_share([True, True, True], ["a", "a", "b"]).value
    1.0
    """
    number = len(set(groups))
    if len(set(flags)) < 2:
        bounds = share_interval(number if flags and flags[0] else 0, number)
        return Interval(bounds.value, bounds.low, bounds.high, len(flags))
    counts, at = bootstrap_counts(groups, SAMPLES, seed=0)
    weights = counts[:, at]
    shares = (weights * flags).sum(axis=1) / weights.sum(axis=1)
    (found,) = intervals_of_resamples(shares[:, None], number)
    return Interval(found.value, found.low, found.high, len(flags))


def _gain(right: pl.DataFrame) -> Interval:
    """Share of right ones among the accepted less that among the rejected, over prompts."""
    counts, at = bootstrap_counts(right["prompt_id"].to_list(), SAMPLES, seed=0)
    weights, flags = counts[:, at], right["right"].to_numpy()
    kept = (right["status"] == ACCEPTED).to_numpy()
    with np.errstate(invalid="ignore"):  # a resample without any rejected one has no gain
        accepted, rejected = (
            (weights[:, own] * flags[own]).sum(axis=1) / weights[:, own].sum(axis=1)
            for own in (kept, ~kept)
        )
    (found,) = intervals_of_resamples((accepted - rejected)[:, None], counts.shape[1])
    return found
