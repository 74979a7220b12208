"""The report's sections on PPV: hand poses, verifier, dataset, fine-tuning, scores."""

from typing import Any

import polars as pl

from hoi_assets.engines.vilt.verifier_statement import published_statement
from hoi_assets.evaluation.report_parts import (
    Parents,
    find_partitions,
    find_version,
    first_row,
    png_uri,
    with_images,
)
from hoi_assets.store.versions import Published, Store

IMAGES_PER_CATEGORY = 6
METRICS = (
    "examiner_all",
    "examiner_defect_free",
    "examiner_pose",
    "examiner_object",
    "examiner_colour",
    "examiner_side",
    "verifier_fidelity",
    "verifier_alignment",
    "clip_score",
    "image_reward",
    "hpsv3",
)
STAGES = (
    "detailed_prompts",
    "instance_images",
    "category_loras",
    "candidate_images",
    "verified_pairs",
)


def describe_categories(store: Store, parents: Parents) -> list[dict[str, Any]]:
    """A row per hand pose of the taxonomy, `missing` where it has no verdicts; none where no
    stage of PPV is published."""
    taxonomy = find_version(parents, "base_prompt_taxonomy")
    if taxonomy is None or not any(find_partitions(parents, asset) for asset in STAGES):
        return []
    prompts, verdicts = (
        find_partitions(parents, "detailed_prompts"),
        find_partitions(parents, "verified_pairs"),
    )
    instances, loras = (
        find_partitions(parents, "instance_images"),
        find_partitions(parents, "category_loras"),
    )
    shown = []
    for row in taxonomy.table("categories").iter_rows(named=True):
        key = row["category"]
        if key not in verdicts:
            shown.append(row | {"missing": True})
            continue
        table = verdicts[key].table("rows")
        drawn = table.filter(pl.col("pixels").is_not_null())
        reasons = (
            table.filter(pl.col("reason").is_not_null())
            .group_by("reason")
            .len()
            .sort("len", "reason", descending=[True, False])
        )
        shown.append(
            row
            | {
                "missing": False,
                "prompts": _accepted(prompts.get(key)).height,
                "instances": _accepted(instances.get(key)).height,
                "candidates": drawn.height,
                "accepted": table.filter(pl.col("status") == "accepted").height,
                "reasons": list(reasons.iter_rows()),
                "lora": first_row(loras.get(key), "summary"),
                "instance_images": with_images(
                    store, _accepted(instances.get(key)).head(IMAGES_PER_CATEGORY).to_dicts()
                ),
            }
        )
    return shown


def _accepted(published: Published | None) -> pl.DataFrame:
    if published is None:
        return pl.DataFrame()
    return published.table("rows").filter(pl.col("status") == "accepted")


def describe_rounds(parents: Parents) -> dict[str, Any]:
    """Rows of `round_scorecards` with their plot; empty where no category has had a round."""
    from hoi_assets.charts import round_curves

    published = find_version(parents, "round_scorecards")
    rows = None if published is None else published.table("rows")
    if rows is None or rows.is_empty():
        return {}
    return {"plot": png_uri(round_curves(rows)), "rows": rows.to_dicts()}


def describe_verifier(parents: Parents) -> dict[str, Any]:
    """Quality on the test split, with the reliability diagram; empty without a verifier."""
    from hoi_assets.charts import reliability_diagram

    verifier = find_version(parents, "verifier")
    if verifier is None:
        return {}
    return {
        "summary": first_row(verifier, "summary"),
        "statement": published_statement(verifier),
        "quality": verifier.table("quality").to_dicts(),
        "reliability": png_uri(reliability_diagram(verifier.table("reliability"))),
    }


def describe_finetuning(parents: Parents) -> dict[str, Any]:
    """The summary and the loss curve; empty without a fine-tuned model."""
    from hoi_assets.charts import loss_curve

    tuned = find_version(parents, "finetuned_model")
    if tuned is None:
        return {}
    return {
        "summary": first_row(tuned, "summary"),
        "curve": png_uri(loss_curve(tuned.table("log"))),
    }


def describe_hoi_scores(parents: Parents) -> dict[str, Any]:
    """Rows of `hoi_scorecards` with plots; empty without a scorecard."""
    from hoi_assets.charts import heat_map, scorecard_plot

    scorecards = find_version(parents, "hoi_scorecards")
    if scorecards is None:
        return {}
    card = scorecards.table("scorecard")
    present = set(card["metric"])
    main = "examiner_all" if "examiner_all" in present else "verifier_alignment"
    cells = card.filter(
        (pl.col("suite") == "hoi")
        & (pl.col("slice_kind") == "category")
        & (pl.col("metric") == main)
    )
    rows = card.filter(pl.col("slice_kind") != "category").sort("suite", "slice_kind", "slice")
    compared = scorecards.table("comparisons").filter(pl.col("slice_kind") != "category")
    return {
        "plot": png_uri(scorecard_plot(card)),
        "heat_map": png_uri(heat_map(cells, rows="slice", columns="method", values="mean")),
        "heat_map_metric": main,
        "rows": [
            row for metric in METRICS for row in rows.filter(pl.col("metric") == metric).to_dicts()
        ],
        "comparisons": compared.to_dicts(),
    }
