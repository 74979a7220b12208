"""Re-denoising under the corrected prompt, and what the same compute gives without it."""

import polars as pl

from hoi_assets.defs.groups import DETAILSCRIBE, OWNERS
from hoi_assets.defs.partitions import scenario
from hoi_assets.defs.sheets import image_sheet
from hoi_assets.defs.suites import benchmark_images
from hoi_assets.detailscribe.image_edit import EDITS
from hoi_assets.detailscribe.image_rows import IMAGE_ROWS
from hoi_assets.detailscribe.local_repair import REPAIRS
from hoi_assets.publishing.asset import GPU_POOL, published_asset
from hoi_assets.publishing.context import Result, StageContext
from hoi_assets.publishing.metadata import Table
from hoi_assets.store.versions import Staging

SHEET_ROWS = 8


@published_asset(
    partitions_def=scenario,
    deps=["initial_images", "interaction_decompositions", "image_critiques"],
    group_name=DETAILSCRIBE,
    owners=OWNERS,
    kinds={"pytorch", "diffusers"},
    pool=GPU_POOL,
    code_version="5",
    suite=benchmark_images(["detailscribe", "craft"], optional=["local_repair", "image_edit"]),
    tables=[IMAGE_ROWS, REPAIRS, EDITS],
    settings=["redenoising", "critic", "local_repair", "image_editing"],
    models=["benchmark", "critic", "repair", "repair_verifier", "editor"],
)
def refined_images(context: StageContext, staging: Staging) -> Result:
    """The corrected prompt takes over inside the diffusion process, one variant per switch step;
    beside it CRAFT-like rounds and, where they are set, local repair and an image-editing model.
    The critic selects, the initial image included."""
    from hoi_assets.detailscribe.decompose import read_components
    from hoi_assets.detailscribe.refined_images import draw_refined_images

    tables = draw_refined_images(
        context.store,
        context.settings,
        context.parent("initial_images").table("rows"),
        read_components(context.parent("interaction_decompositions").table("components")),
        context.parent("image_critiques").table("rows"),
        context.log,
    )
    for name in tables.keys() - {"rows"}:
        staging.write_table(name, tables[name])
    return _write_candidates(context, staging, tables["rows"])


@published_asset(
    partitions_def=scenario,
    deps=["initial_images", "interaction_decompositions", "image_critiques"],
    group_name=DETAILSCRIBE,
    owners=OWNERS,
    kinds={"pytorch", "diffusers"},
    pool=GPU_POOL,
    code_version="5",
    suite=benchmark_images(
        ["multi_seed", "multi_seed_clip", "rewrite", "refine"], optional=["endpoint"]
    ),
    tables=[IMAGE_ROWS],
    settings=["redenoising", "critic", "rewriter", "image_endpoint"],
    models=["benchmark", "critic", "clip"],
)
def baseline_images(context: StageContext, staging: Staging) -> Result:
    """What the same compute gives without re-denoising: more seeds (selected by the critic and,
    apart, by CLIPScore), a rewritten prompt, a refined prompt; and, when one is set, an image
    endpoint's image of each prompt."""
    from hoi_assets.detailscribe.baseline_images import draw_baseline_images
    from hoi_assets.detailscribe.decompose import read_components

    table = draw_baseline_images(
        context.store,
        context.settings,
        context.parent("initial_images").table("rows"),
        read_components(context.parent("interaction_decompositions").table("components")),
        context.parent("image_critiques").table("rows"),
        context.log,
    )
    return _write_candidates(context, staging, table)


def _write_candidates(context: StageContext, staging: Staging, table: pl.DataFrame) -> Result:
    """Write and record candidates, and show them on a sheet with the selected ones framed."""

    staging.write_table("rows", table)
    named = table.with_columns(
        entry=pl.format("{}/{}/{}", "row_id", "method", pl.col("candidate").cast(pl.String))
    )
    context.record("entry", named)
    drawn = table.filter(pl.col("pixels").is_not_null())
    few = drawn["row_id"].unique(maintain_order=True).head(SHEET_ROWS)
    shown = drawn.filter(pl.col("row_id").is_in(few.implode())).sort(
        "row_id", "method", "candidate", maintain_order=True
    )
    sheet = image_sheet(
        context.store,
        shown["pixels"],
        [_label(row) for row in shown.iter_rows(named=True)],
        good=shown["selected"].to_list(),
    )
    counts = table.group_by("method", maintain_order=True).agg(
        pl.col("row_id").n_unique().alias("prompts"),
        pl.len().alias("images"),
        pl.col("denoiser_evaluations").sum(),
        (pl.col("selected") & (pl.col("candidate") == 0)).sum().alias("first_selected"),
        (pl.col("status") == "failed").sum().alias("failed"),
    )
    return Result(
        metadata={
            "methods": Table(counts.to_dicts()),
            "contact_sheet": sheet,
        }
    )


def _label(row: dict[str, object]) -> str:
    what = "initial" if row["candidate"] == 0 else f"candidate {row['candidate']}"
    if row["switch_step"] is not None:
        what = f"switch step {row['switch_step']}"
    satisfied = f", {row['satisfied']} satisfied" if row["satisfied"] is not None else ""
    return f"{row['method']}: {what}{satisfied}"
