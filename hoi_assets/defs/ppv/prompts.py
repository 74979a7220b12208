"""Base prompts and what they become: the taxonomy, and detailed prompts per hand-pose category."""

import polars as pl

from hoi_assets.defs.groups import OWNERS, PPV
from hoi_assets.defs.partitions import hand_pose
from hoi_assets.defs.suites import FAILED, ONE_CATEGORY
from hoi_assets.ppv.detailed_prompts import (
    DETAILED_PROMPT_ROWS,
    detail_prompts,
    detailed_prompts_table,
    make_prompter,
)
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
    measured,
    not_null,
    one_of,
    rows,
    share,
    suite,
    unique,
)
from hoi_assets.publishing.metadata import Markdown
from hoi_assets.store.versions import Staging

SHOWN_PROMPTS = 20

TAXONOMY_SUITE = suite(
    rows("categories"),
    unique("categories", "category"),
    unique("categories", "identifier"),
    not_null("categories", "category", "name", "definition", "grasp_taxonomy", "grip_phrase"),
    between("categories", "hands", 1, 2),
    between("categories", "base_prompts", low=1),
    rows("prompts"),
    unique("prompts", "base_prompt_id"),
    not_null("prompts", "base_prompt_id", "text"),
    one_of("prompts", "kind", ["base", "evaluation", "general"]),
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
        f"| `{row['category']}` | {row['name']} | {row['definition']} | {row['base_prompts']} |"
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
    unique("rows", "prompt_id"),
    not_null("rows", "prompt_id", "base_prompt_id", "category"),
    one_of("rows", "status", ["accepted", "rejected", "failed"]),
    ONE_CATEGORY,
    share("rows", "failed_share", FAILED, "${gates.max_failed_share}"),
    measured(
        "rows",
        "accepted_prompts",
        "sum(case when status = 'accepted' then 1 else 0 end)",
        low="${gates.min_prompts}",
    ),
    measured(
        "rows",
        "accepted_prompts_repeated",
        "sum(case when status = 'accepted' then 1 else 0 end)"
        " - count(distinct case when status = 'accepted' then prompt end)",
        high=0,
    ),
    share("rows", "accepted_without_text", "status = 'accepted' and prompt is null", 0),
)


@published_asset(
    partitions_def=hand_pose,
    deps=["base_prompt_taxonomy"],
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
    background, skin tone). Contradictory, off-category and near-duplicate ones are rejected with a
    reason."""
    table = detailed_prompts_table(
        detail_prompts(
            context.taxonomy.categories[context.partition_key],
            context.taxonomy,
            make_prompter(context.settings.prompter),
            context.settings.prompter,
            cache=context.store.ledger,
            log=context.log,
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
                "\n".join(f"- {text}" for text in accepted["prompt"].head(SHOWN_PROMPTS))
            ),
        }
    )
