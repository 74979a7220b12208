"""The report's line on texts that an encoder read only in part."""

from collections import Counter
from collections.abc import Iterator

import polars as pl

from hoi_assets.evaluation.report_parts import Parents, find_versions

ENCODERS = "text_encoder"
# Asset, table, column, and what reads its texts; `cut_by` names a pipeline's text encoders.
READ = (
    ("candidate_images", "rows", "cut_by", "SDXL"),
    ("hoi_evaluation_images", "rows", "cut_by", "SDXL"),
    ("refined_images", "rows", "cut_by", "SD3"),
    ("baseline_images", "rows", "cut_by", "SD3"),
    ("verified_pairs", "rows", "prompt_cut", "verifier"),
    ("image_critiques", "findings", "question_cut", "critic"),
    ("hoi_scorecards", "scores", "prompt_cut", "hoi"),
    ("interacting_scorecards", "scores", "prompt_cut", "interacting"),
)


def describe_cut_texts(parents: Parents) -> list[str]:
    """Per encoder the share of texts that it read only in part; [] where all were read whole.

    Versions that do not say so yet are left out.
    """
    cut: Counter[str] = Counter()
    read: Counter[str] = Counter()
    for asset, table, column, model in READ:
        for published in find_versions(parents, asset):
            rows = published.table(table)
            if column in rows.columns:
                for name, is_cut, is_read in _counted(rows, column, model):
                    cut[name] += is_cut
                    read[name] += is_read
    return [f"{name} {n} of {read[name]} ({n / read[name]:.0%})" for name, n in cut.items() if n]


def _counted(rows: pl.DataFrame, column: str, model: str) -> Iterator[tuple[str, int, int]]:
    """Reader, texts that it cut, and texts that it read."""
    if column == "cut_by":
        for tokens in [name for name in rows.columns if name.startswith(ENCODERS)]:
            name = tokens.removesuffix("_tokens")
            # Split first: one encoder's name begins with another's.
            cut = rows["cut_by"].fill_null("").str.split(", ").list.contains(name)
            yield f"{model} {name}", int(cut.sum()), rows[tokens].count()
        return
    metrics = rows["metric"].unique().sort().to_list() if "metric" in rows.columns else [None]
    for metric in metrics:
        own = rows if metric is None else rows.filter(pl.col("metric") == metric)
        yield f"{model} {metric or ''}".rstrip(), int(own[column].sum()), own[column].count()
