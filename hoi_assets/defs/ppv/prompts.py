"""Base prompts and what they become: the taxonomy, and detailed prompts per hand-pose category."""

import polars as pl

from hoi_assets.defs.groups import OWNERS, PPV
from hoi_assets.defs.partitions import hand_pose
from hoi_assets.defs.suites import ACCEPTED, FAILED_SHARE, ONE_CATEGORY, no_blank
from hoi_assets.ppv.detailed_prompts import (
    DETAILED_PROMPT_ROWS,
    detail_prompts,
    detailed_prompts_table,
    make_prompter,
)
from hoi_assets.ppv.round_plan import read_plan, round_requests
from hoi_assets.ppv.taxonomy_tables import (
    CATEGORY_ROWS,
    TAXONOMY_PROMPT_ROWS,
    categories_table,
    taxonomy_prompts_table,
)
from hoi_assets.publishing.asset import published_asset
from hoi_assets.publishing.context import Result, StageContext
from hoi_assets.publishing.expectations import (
    between,
    in_set,
    measure,
    not_null,
    row_count,
    suite,
    unexpected_rows,
    unique,
)
from hoi_assets.publishing.metadata import Markdown, as_text
from hoi_assets.store.versions import Staging

SHOWN_PROMPTS = 20

TAXONOMY_SUITE = suite(
    categories=[
        row_count(1),
        unique("category"),
        unique("identifier"),
        not_null("category", "name", "definition", "grasp_taxonomy", "grip_phrase"),
        between("hands", 1, 2),
        between("base_prompts", 1),
    ],
    prompts=[
        row_count(1),
        unique("base_prompt_id"),
        not_null("base_prompt_id", "text"),
        in_set("kind", ["base", "evaluation", "general"]),
        no_blank("text"),
    ],
)


@published_asset(
    group_name=PPV,
    owners=OWNERS,
    kinds={"yaml"},
    code_version="1",
    suite=TAXONOMY_SUITE,
    tables=[CATEGORY_ROWS, TAXONOMY_PROMPT_ROWS],
    external_inputs=lambda context: {"taxonomy": context.taxonomy.digest},
)
def base_prompt_taxonomy(context: StageContext, staging: Staging) -> Result:
    """Hand-pose categories in GRASP-taxonomy terms, their objects and base prompts, read from
    `data/taxonomy/` and validated."""
    taxonomy = context.taxonomy
    categories = categories_table(taxonomy)
    staging.write_table("categories", categories)
    staging.write_table("prompts", taxonomy_prompts_table(taxonomy))
    listing = "\n".join(
        f"| `{row['category']}` | {as_text(row['name'])} | {as_text(row['definition'])} |"
        f" {row['base_prompts']} |"
        for row in categories.iter_rows(named=True)
    )
    return Result(
        metadata={
            "categories": categories.height,
            "taxonomy": Markdown(
                f"| key | name | definition | prompts |\n|---|---|---|---|\n{listing}"
            ),
        }
    )


DETAILED_PROMPTS_SUITE = suite(
    rows=[
        unique("prompt_id"),
        not_null("prompt_id", "base_prompt_id", "category"),
        in_set("status", ["accepted", "rejected", "failed"]),
        ONE_CATEGORY,
        FAILED_SHARE,
        measure("accepted_prompts", ACCEPTED, "${gates.min_prompts}"),
        measure(
            "accepted_prompts_repeated",
            f"{ACCEPTED} - count(distinct case when status = 'accepted' then prompt end)",
            max_value=0,
        ),
        unexpected_rows(
            "accepted_without_text",
            "status = 'accepted' and (prompt is null or trim(prompt) = '')",
        ),
    ],
)


@published_asset(
    partitions_def=hand_pose,
    deps=["base_prompt_taxonomy"],
    optional_deps=["round_plan"],
    group_name=PPV,
    owners=OWNERS,
    kinds={"polars"},
    code_version="1",
    suite=DETAILED_PROMPTS_SUITE,
    tables=[DETAILED_PROMPT_ROWS],
    settings=["prompter"],
)
def detailed_prompts(context: StageContext, staging: Staging) -> Result:
    """Each base prompt in several detailed prompts with typed slots (grip, contact, view, light,
    background, skin tone), and those that rounds ask for. Contradictory, off-category and
    near-duplicate ones are rejected with a reason."""
    category = context.taxonomy.categories[context.partition_key]
    table = detailed_prompts_table(
        detail_prompts(
            category,
            context.taxonomy,
            make_prompter(context.settings.prompter),
            context.settings.prompter,
            cache=context.store.ledger,
            log=context.log,
            more=round_requests(category, read_plan(context.version("round_plan"))),
        )
    )
    staging.write_table("rows", table)
    context.record("prompt_id", table)
    accepted = table.filter(pl.col("status") == "accepted")
    return Result(
        metadata={
            "accepted": accepted.height,
            "rejected": table.filter(pl.col("status") == "rejected").height,
            "failed": table.filter(pl.col("status") == "failed").height,
            "prompts": Markdown(
                "\n".join(f"- {as_text(text)}" for text in accepted["prompt"].head(SHOWN_PROMPTS))
            ),
        }
    )
