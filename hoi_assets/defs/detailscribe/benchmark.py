"""InterActing: the benchmark's rows, and the components of each prompt."""

from pathlib import Path

import polars as pl

from hoi_assets.publishing.stage import Result, Table, Work, stage
from hoi_assets.store.versions import Staging

GROUP = "detailscribe"
SHOWN_ROWS = 12


@stage(
    "interacting_prompts",
    partitions="scenario",
    code_version="2",
    recipe=["hoi_assets/detailscribe/benchmark.py"],
    settings=["interacting"],
    inputs=lambda work: {"file": _file_digest(work)},
    group=GROUP,
    description="The benchmark's rows of one scenario: the official InterActing file where "
    "`interacting.folder` names one, else the built-in prompts.",
)
def interacting_prompts(work: Work, out: Staging) -> Result:
    from hoi_assets.detailscribe.benchmark import benchmark_table, read_benchmark

    rows = read_benchmark(
        _folder(work), [work.scenario], work.settings.interacting.rows_per_scenario
    )
    table = benchmark_table(rows)
    out.write_table("rows", table)
    work.record("row_id", table)
    usable = table.filter(pl.col("status") == "accepted")
    return Result(
        metadata={
            "source": str(table["source"][0]) if table.height else "none",
            "prompts": usable.height,
            "failed": table.height - usable.height,
            "first_prompts": Table(usable.select("topic", "prompt").head(SHOWN_ROWS).to_dicts()),
        }
    )


def _folder(work: Work) -> Path:
    from hoi_assets.detailscribe.benchmark import benchmark_folder

    return benchmark_folder(work.settings.interacting.folder)


def _file_digest(work: Work) -> str | None:
    from hoi_assets.detailscribe.benchmark import benchmark_digest

    return benchmark_digest(_folder(work), work.scenario)


@stage(
    "interaction_decompositions",
    partitions="scenario",
    deps=["interacting_prompts"],
    code_version="2",
    recipe=[
        "hoi_assets/llm/structured_output.py",
        "hoi_assets/detailscribe/components.py",
        "hoi_assets/detailscribe/decompose.py",
        "hoi_assets/llm/prompt_templates.py",
        "hoi_assets/llm/templates/again.j2",
        "hoi_assets/detailscribe/templates/decompose_system.j2",
        "hoi_assets/detailscribe/templates/decompose_user.j2",
        "hoi_assets/grammar/plans.py",
    ],
    settings=["decomposer"],
    group=GROUP,
    description="Each prompt's components: subject, relation, object and a yes/no question; by the "
    "built-in grammar or an endpoint.",
)
def interaction_decompositions(work: Work, out: Staging) -> Result:
    from hoi_assets.detailscribe.decompose import (
        components_table,
        decompose,
        decompositions_table,
        make_decomposer,
    )

    prompts = work.parent("interacting_prompts").table("rows")
    usable = prompts.filter(pl.col("status") == "accepted")
    made = decompose(
        zip(usable["row_id"], usable["prompt"], strict=True),
        make_decomposer(work.settings.decomposer),
        work.store.ledger,
        work.log,
    )
    rows = decompositions_table(made)
    out.write_table("rows", rows)
    out.write_table("components", components_table(made))
    work.record("row_id", rows)
    return Result(
        metadata={
            "prompts": rows.height,
            "components": int(rows["components"].sum()),
            "failed": rows.filter(pl.col("status") == "failed").height,
            "by": Table(rows.group_by("model").len().sort("model").to_dicts()),
            "first_decompositions": Table(
                rows.select("prompt", "flat").head(SHOWN_ROWS).to_dicts()
            ),
        }
    )
