"""What a verifier can and cannot tell, in sentences, from its quality on the test split.

The dataset card, the assets' metadata and the report all open with them.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from hoi_assets.engines.vilt.calibration import CHANCE_AUC, PAIR
from hoi_assets.engines.vilt.verifier import HEADS
from hoi_assets.store.versions import Published, Store

Row = Mapping[str, Any]

ASSET = "verifier"
GOOD = {"fidelity": "free of defects", "alignment": "true to their caption"}
UNKNOWN = "Not known: this version is not in the store."


def statements_by_version(store: Store, versions: Iterable[str]) -> dict[str, str]:
    """By version of `verifier`, what it can and cannot tell; says so where it is not stored."""
    stored = {one.version: one for one in store.history(ASSET) if one.is_stored()}
    return {
        version: published_statement(stored[version]) if version in stored else UNKNOWN
        for version in sorted(set(versions))
    }


def published_statement(verifier: Published) -> str:
    """`verifier_statement` of a published version."""
    summary = verifier.table("summary").row(0, named=True)
    return verifier_statement(summary, verifier.table("quality"))


def verifier_statement(summary: Row, quality: pl.DataFrame) -> str:
    """A sentence per head, then one on the target; on the held-out test split.

    Args:
        summary: the row of a verifier's `summary`.
        quality: its table `quality`.
    """
    heads = [describe_head(head, summary, quality) for head in HEADS]
    return " ".join([*heads, describe_target(summary, quality)])


def describe_head(head: str, summary: Row, quality: pl.DataFrame) -> str:
    """AUC with n, whether the head rejects at all, and its precision at its threshold."""
    row = whole_test(quality, head)
    name = head.capitalize()
    if row is None:
        return f"{name}: not measured."
    area = _area(row)
    if summary["idle_head"] == head:
        return (
            f"{name} is not judged: that head cannot tell good from bad ({area}) and "
            "rejects nothing."
        )
    doubt = ""
    if row["auc_low"] is not None and row["auc_low"] <= CHANCE_AUC:
        doubt = ", not shown to be better than chance"
    if row["precision"] is None:
        return f"{name}: {area}{doubt}; it accepts none of these pairs."
    share = format_share(row["precision"], row["precision_low"], row["precision_high"])
    return f"{name}: {area}{doubt}; {share} of the {row['accepted']} it accepts are {GOOD[head]}."


def describe_target(summary: Row, quality: pl.DataFrame) -> str:
    """Precision by both labels on the test split against the target, and what that means."""
    row, target = whole_test(quality, PAIR), f"{summary['target_precision']:.0%}"
    if row is None or row["precision"] is None:
        return f"No test pair is accepted by both heads: the target of {target} is not reached."
    share = format_share(row["precision"], row["precision_low"], row["precision_high"])
    said = f"Of the {row['accepted']} test pairs it accepts, {share} are good by both labels"
    if not target_met_on_test(summary, quality):
        also = "" if summary["target_met"] else ", as on the validation split"
        return f"{said}: the target of {target} is missed{also}."
    if not summary["target_met"]:
        return f"{said}; on the validation split no threshold reached the target of {target}."
    return f"{said}: the target of {target} is reached."


def target_met_on_test(summary: Row, quality: pl.DataFrame) -> bool:
    """Whether precision by both labels reaches the target on the test split."""
    row = whole_test(quality, PAIR)
    return (
        row is not None
        and row["precision"] is not None
        and row["precision"] >= summary["target_precision"]
    )


def whole_test(quality: pl.DataFrame, head: str) -> dict[str, Any] | None:
    """The row of `quality` on the whole test split; None without one."""
    rows = quality.filter((pl.col("slice_kind") == "all") & (pl.col("head") == head))
    return rows.row(0, named=True) if rows.height else None


def format_share(value: float, low: float | None, high: float | None) -> str:
    """A share with its interval.

    >>> format_share(0.941, 0.879, 0.973)
    '94% (95% interval 88% to 97%)'
    """
    if low is None or high is None:
        return f"{value:.0%}"
    return f"{value:.0%} (95% interval {low:.0%} to {high:.0%})"


def _area(row: Row) -> str:
    if row["auc"] is None:
        return f"AUC unknown, only one class among n = {row['n']}"
    return (
        f"AUC {row['auc']:.2f}, 95% interval {row['auc_low']:.2f} to {row['auc_high']:.2f}, "
        f"n = {row['n']}"
    )
