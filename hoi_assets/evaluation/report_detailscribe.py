"""The report's section on DetailScribe: critiques, images of every method, InterActing's scores."""

from typing import Any

import polars as pl

from hoi_assets.evaluation.report_parts import (
    Parents,
    find_partitions,
    find_version,
    png_uri,
    with_images,
)
from hoi_assets.store.versions import Store

ROWS_PER_SCENARIO = 4
METRICS = (
    "examiner_components",
    "component_accuracy",
    "clip_score",
    "image_reward",
    "blip_vqa",
    "hpsv3",
    "judge_rating",
    "judge_yes",
    "human_rating_alignment",
    "human_rating_fidelity",
    "human_win_rate",
)


def describe_scenarios(store: Store, parents: Parents) -> list[dict[str, Any]]:
    """A few prompts of each scenario: what the critic found, and every method's images."""
    critiques = find_partitions(parents, "image_critiques")
    baselines = find_partitions(parents, "baseline_images")
    scenarios = []
    for scenario, published in find_partitions(parents, "refined_images").items():
        drawn = published.table("rows").filter(pl.col("pixels").is_not_null())
        if scenario in baselines:
            others = baselines[scenario].table("rows").filter("selected")
            others = others.filter(pl.col("pixels").is_not_null())
            drawn = pl.concat([drawn, others], how="diagonal_relaxed")
        findings = critiques[scenario].table("findings") if scenario in critiques else None
        rows = []
        for row_id in drawn["row_id"].unique(maintain_order=True).head(ROWS_PER_SCENARIO):
            own = drawn.filter(pl.col("row_id") == row_id)
            rows.append(
                {
                    "prompt": own["prompt"][0],
                    "problems": _list_problems(findings, row_id),
                    "images": with_images(store, own.iter_rows(named=True)),
                }
            )
        scenarios.append({"scenario": scenario, "rows": rows})
    return scenarios


def _list_problems(findings: pl.DataFrame | None, row_id: str) -> list[str] | None:
    """What the critic found wrong with a row's initial image; None without a critique."""
    if findings is None:
        return None
    wrong = findings.filter((pl.col("row_id") == row_id) & ~pl.col("satisfied"))
    return wrong["problem"].to_list()


def describe_interacting_scores(parents: Parents) -> dict[str, Any]:
    """Rows of `interacting_scorecards` with a plot; empty without a scorecard."""
    from hoi_assets.charts import scorecard_plot

    scorecards = find_version(parents, "interacting_scorecards")
    if scorecards is None:
        return {}
    card = scorecards.table("scorecard")
    whole = card.filter(pl.col("slice_kind") == "all")
    compared = scorecards.table("comparisons").filter(pl.col("slice_kind") == "all")
    return {
        "plot": png_uri(scorecard_plot(card)),
        "rows": [
            row for metric in METRICS for row in whole.filter(pl.col("metric") == metric).to_dicts()
        ],
        "comparisons": compared.to_dicts(),
    }
