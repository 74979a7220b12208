"""InterActing: the benchmark's prompts of one scenario, and the components of each prompt."""

from pathlib import Path

import polars as pl

from hoi_assets.defs.groups import DETAILSCRIBE, OWNERS
from hoi_assets.defs.partitions import scenario
from hoi_assets.defs.suites import (
    ACCEPTED,
    FAILED_SHARE,
    FAILED_WITHOUT_REASON,
    ONE_SCENARIO,
    no_blank,
)
from hoi_assets.detailscribe.benchmark import BENCHMARK_ROWS
from hoi_assets.detailscribe.decompose import DECOMPOSITION_COMPONENTS, DECOMPOSITION_ROWS
from hoi_assets.publishing.asset import published_asset
from hoi_assets.publishing.context import Result, StageContext
from hoi_assets.publishing.expectations import (
    in_set,
    measure,
    not_null,
    row_count,
    suite,
    unexpected_rows,
    unique,
)
from hoi_assets.publishing.metadata import Table
from hoi_assets.store.versions import Staging

SHOWN_ROWS = 12

PROMPTS_SUITE = suite(
    rows=[
        row_count(1),
        unique("row_id"),
        not_null("row_id", "scenario", "source"),
        in_set("status", ["accepted", "failed"]),
        ONE_SCENARIO,
        measure("usable_prompts", ACCEPTED, 1),
        unexpected_rows("usable_without_prompt", "status = 'accepted' and trim(prompt) = ''"),
        FAILED_WITHOUT_REASON,
    ],
)


@published_asset(
    partitions_def=scenario,
    group_name=DETAILSCRIBE,
    owners=OWNERS,
    kinds={"polars"},
    code_version="2",
    suite=PROMPTS_SUITE,
    tables=[BENCHMARK_ROWS],
    settings=["interacting"],
    external_inputs=lambda context: {"file": _file_digest(context)},
)
def interacting_prompts(context: StageContext, staging: Staging) -> Result:
    """The benchmark's rows of one scenario: the official InterActing file where
    `interacting.folder` names one, else the built-in prompts."""
    from hoi_assets.detailscribe.benchmark import benchmark_frame, read_benchmark

    limit = context.settings.interacting.rows_per_scenario
    table = benchmark_frame(read_benchmark(_folder(context), [context.partition_key], limit))
    staging.write_table("rows", table)
    context.record("row_id", table)
    usable = table.filter(pl.col("status") == "accepted")
    return Result(
        metadata={
            "source": str(table["source"][0]) if table.height else "none",
            "prompts": usable.height,
            "failed": table.height - usable.height,
            "first_prompts": Table(usable.select("topic", "prompt").head(SHOWN_ROWS).to_dicts()),
        }
    )


def _folder(context: StageContext) -> Path:
    from hoi_assets.detailscribe.benchmark import benchmark_folder

    return benchmark_folder(context.settings.interacting.folder)


def _file_digest(context: StageContext) -> str | None:
    from hoi_assets.detailscribe.benchmark import benchmark_digest

    return benchmark_digest(_folder(context), context.partition_key)


DECOMPOSITIONS_SUITE = suite(
    rows=[
        row_count(1),
        unique("row_id"),
        not_null("row_id", "prompt", "model"),
        in_set("status", ["accepted", "failed"]),
        FAILED_SHARE,
        unexpected_rows("accepted_without_components", "status = 'accepted' and components < 1"),
    ],
    components=[
        row_count(1),
        unique("row_id", "component"),
        not_null("subject", "relation", "question"),
        no_blank("question"),
    ],
)


@published_asset(
    partitions_def=scenario,
    deps=["interacting_prompts"],
    group_name=DETAILSCRIBE,
    owners=OWNERS,
    kinds={"polars"},
    code_version="2",
    suite=DECOMPOSITIONS_SUITE,
    tables=[DECOMPOSITION_ROWS, DECOMPOSITION_COMPONENTS],
    settings=["decomposer"],
)
def interaction_decompositions(context: StageContext, staging: Staging) -> Result:
    """Each prompt's components: subject, relation, object and a yes/no question; by the built-in
    grammar or an endpoint."""
    from hoi_assets.detailscribe.decompose import (
        components_frame,
        decompose,
        decompositions_frame,
    )
    from hoi_assets.detailscribe.decomposers import build_decomposer

    prompts = context.parent("interacting_prompts").table("rows")
    usable = prompts.filter(pl.col("status") == "accepted")
    decompositions = decompose(
        zip(usable["row_id"], usable["prompt"], strict=True),
        build_decomposer(context.settings.decomposer),
        context.store.ledger,
        context.log,
    )
    table = decompositions_frame(decompositions)
    staging.write_table("rows", table)
    staging.write_table("components", components_frame(decompositions))
    context.record("row_id", table)
    return Result(
        metadata={
            "prompts": table.height,
            "components": int(table["components"].sum()),
            "failed": table.filter(pl.col("status") == "failed").height,
            "by": Table(table.group_by("model").len().sort("model").to_dicts()),
            "first_decompositions": Table(
                table.select("prompt", "flat").head(SHOWN_ROWS).to_dicts()
            ),
        }
    )
