"""DetailScribe: draw, let the critic look, draw again under the corrected prompt; and baselines."""

import polars as pl

from hoi_assets.publishing.stage import Image, Result, Table, Work, stage
from hoi_assets.store.versions import Staging

GROUP = "detailscribe"
DRAWING = [
    "hoi_assets/detailscribe/benchmark_images.py",
    "hoi_assets/engines/seeds.py",
    "hoi_assets/engines/sd3/redenoising.py",
    "hoi_assets/engines/sd3/loading.py",
    "hoi_assets/engines/sdxl/sampling.py",
]
CRITICISING = [
    "hoi_assets/engines/vilt/answers.py",
    "hoi_assets/engines/vilt/vqa.py",
    "hoi_assets/llm/structured_output.py",
    "hoi_assets/detailscribe/components.py",
    "hoi_assets/detailscribe/critics.py",
    "hoi_assets/detailscribe/critique.py",
    "hoi_assets/llm/templates/again.j2",
    "hoi_assets/detailscribe/templates/critique_system.j2",
    "hoi_assets/detailscribe/templates/critique_user.j2",
]
SHEET_PICTURES = 36
SHEET_ROWS = 8


@stage(
    "initial_images",
    partitions="scenario",
    deps=["interacting_prompts"],
    code_version="2",
    recipe=DRAWING,
    settings=["refining"],
    models=["benchmark"],
    group=GROUP,
    description="The benchmark model's plain picture of each prompt; the latents at the switch "
    "steps are kept for the variants.",
    kinds=["torch"],
)
def initial_images(work: Work, out: Staging) -> Result:
    from hoi_assets.detailscribe.variants import initial_table
    from hoi_assets.pictures import contact_sheet, to_webp

    prompts = work.parent("interacting_prompts").table("rows")
    table = initial_table(
        work.store, work.settings, prompts.filter(pl.col("status") == "accepted"), work.log
    )
    out.write_table("rows", table)
    work.record("row_id", table)
    made = table.filter(pl.col("status") == "accepted")
    shown = made.head(SHEET_PICTURES)
    sheet = contact_sheet(
        [work.store.images.open(pixels) for pixels in shown["pixels"]], shown["prompt"].to_list()
    )
    return Result(
        metadata={
            "images": made.height,
            "failed": table.height - made.height,
            "denoiser_evaluations": int(table["denoiser_evaluations"].sum()),
            "contact_sheet": Image(to_webp(sheet), "image/webp"),
        }
    )


@stage(
    "image_critiques",
    partitions="scenario",
    deps=["initial_images", "interaction_decompositions"],
    code_version="3",
    recipe=[*CRITICISING, "hoi_assets/detailscribe/variants.py"],
    settings=["critic"],
    models=["critic"],
    group=GROUP,
    description="Per component of the prompt whether the picture shows it, and the corrected "
    "prompt: the original sentence, then what is missing; or nothing to correct.",
)
def image_critiques(work: Work, out: Staging) -> Result:
    from hoi_assets.detailscribe.critique import critiques_table, findings_table
    from hoi_assets.detailscribe.decompose import read_components
    from hoi_assets.detailscribe.variants import critique_initial
    from hoi_assets.pictures import contact_sheet, to_webp

    initial = work.parent("initial_images").table("rows")
    components = read_components(work.parent("interaction_decompositions").table("components"))
    made = critique_initial(work.store, work.settings, initial, components, work.log)
    rows, findings = critiques_table(made), findings_table(made)
    out.write_table("rows", rows)
    out.write_table("findings", findings)
    work.record("row_id", rows)
    pixels = dict(zip(initial["row_id"], initial["pixels"], strict=True))
    shown = rows.filter(pl.col("status") == "accepted").head(SHEET_PICTURES)
    failing = findings.filter(~pl.col("satisfied") & pl.col("component").is_not_null())
    problems = dict(failing.group_by("row_id", maintain_order=True).agg("problem").rows())
    sheet = contact_sheet(
        [work.store.images.open(pixels[row_id]) for row_id in shown["row_id"]],
        ["; ".join(problems.get(row_id, ["nothing to correct"])) for row_id in shown["row_id"]],
        good=shown["nothing_to_correct"].to_list(),
    )
    return Result(
        metadata={
            "pictures": rows.height,
            "nothing_to_correct": int(rows["nothing_to_correct"].sum()),
            "components": int(rows["components"].sum()),
            "failing_components": int(rows["failing"].sum()),
            "failed": rows.filter(pl.col("status") == "failed").height,
            "contact_sheet": Image(to_webp(sheet), "image/webp"),
        }
    )


@stage(
    "refined_images",
    partitions="scenario",
    deps=["initial_images", "interaction_decompositions", "image_critiques"],
    code_version="4",
    recipe=[
        *DRAWING,
        *CRITICISING,
        "hoi_assets/detailscribe/variants.py",
        "hoi_assets/detailscribe/craft.py",
    ],
    settings=["refining", "critic"],
    models=["benchmark", "critic"],
    group=GROUP,
    description="The corrected prompt takes over inside the diffusion process, one variant per "
    "switch step; beside it CRAFT-like rounds. The critic chooses, the initial picture included.",
    kinds=["torch"],
)
def refined_images(work: Work, out: Staging) -> Result:
    from hoi_assets.detailscribe.decompose import read_components
    from hoi_assets.detailscribe.variants import refined_table

    table = refined_table(
        work.store,
        work.settings,
        work.parent("initial_images").table("rows"),
        read_components(work.parent("interaction_decompositions").table("components")),
        work.parent("image_critiques").table("rows"),
        work.log,
    )
    return _chosen(work, out, table)


@stage(
    "baseline_images",
    partitions="scenario",
    deps=["initial_images", "interaction_decompositions", "image_critiques"],
    code_version="4",
    recipe=[
        *DRAWING,
        *CRITICISING,
        "hoi_assets/detailscribe/baselines.py",
        "hoi_assets/detailscribe/variants.py",
        "hoi_assets/llm/image_endpoint.py",
        "hoi_assets/detailscribe/rewrite.py",
        "hoi_assets/detailscribe/templates/rewrite_system.j2",
        "hoi_assets/detailscribe/templates/rewrite_user.j2",
    ],
    settings=["refining", "critic", "rewriter", "painter"],
    models=["benchmark", "critic", "clip"],
    group=GROUP,
    description="What the same compute gives without re-denoising: more seeds (chosen by the "
    "critic and, apart, by CLIPScore), a rewritten prompt, a refined prompt; and, when one is set, "
    "an image endpoint's picture of each prompt.",
    kinds=["torch"],
)
def baseline_images(work: Work, out: Staging) -> Result:
    from hoi_assets.detailscribe.baselines import baseline_table
    from hoi_assets.detailscribe.decompose import read_components

    table = baseline_table(
        work.store,
        work.settings,
        work.parent("initial_images").table("rows"),
        read_components(work.parent("interaction_decompositions").table("components")),
        work.parent("image_critiques").table("rows"),
        work.log,
    )
    return _chosen(work, out, table)


def _chosen(work: Work, out: Staging, table: pl.DataFrame) -> Result:
    """Publish candidates: each with how it fared, and a sheet with the choice framed."""
    from hoi_assets.pictures import contact_sheet, to_webp

    out.write_table("rows", table)
    named = table.with_columns(
        entry=pl.format("{}/{}/{}", "row_id", "method", pl.col("candidate").cast(pl.String))
    )
    work.record("entry", named)
    drawn = table.filter(pl.col("pixels").is_not_null())
    few = drawn["row_id"].unique(maintain_order=True).head(SHEET_ROWS)
    shown = drawn.filter(pl.col("row_id").is_in(few.implode())).sort(
        "row_id", "method", "candidate", maintain_order=True
    )
    sheet = contact_sheet(
        [work.store.images.open(pixels) for pixels in shown["pixels"]],
        [_label(row) for row in shown.iter_rows(named=True)],
        good=shown["selected"].to_list(),
    )
    counts = table.group_by("method", maintain_order=True).agg(
        pl.col("row_id").n_unique().alias("prompts"),
        pl.len().alias("pictures"),
        pl.col("denoiser_evaluations").sum(),
        (pl.col("selected") & (pl.col("candidate") == 0)).sum().alias("first_chosen"),
        (pl.col("status") == "failed").sum().alias("failed"),
    )
    return Result(
        metadata={
            "methods": Table(counts.to_dicts()),
            "contact_sheet": Image(to_webp(sheet), "image/webp"),
        }
    )


def _label(row: dict[str, object]) -> str:
    what = "initial" if row["candidate"] == 0 else f"candidate {row['candidate']}"
    if row["switch_step"] is not None:
        what = f"switch after {row['switch_step']}"
    shown = f", {row['satisfied']} satisfied" if row["satisfied"] is not None else ""
    return f"{row['method']}: {what}{shown}"
