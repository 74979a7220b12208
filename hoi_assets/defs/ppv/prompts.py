"""Base prompts and what they become: the taxonomy, and detailed prompts per hand-pose category."""

import polars as pl

from hoi_assets.ppv.detailed_prompts import (
    detail_prompts,
    detailed_prompts_table,
    make_prompter,
)
from hoi_assets.ppv.taxonomy_tables import categories_table, taxonomy_prompts_table
from hoi_assets.publishing.stage import Markdown, Result, Work, stage
from hoi_assets.store.versions import Staging

GROUP = "prompt_propose_verify"


@stage(
    "base_prompt_taxonomy",
    code_version="1",
    recipe=[
        "hoi_assets/ppv/taxonomy_tables.py",
        "hoi_assets/taxonomy.py",
        "hoi_assets/yaml_file.py",
    ],
    inputs=lambda work: {"taxonomy": work.taxonomy.digest},
    group=GROUP,
    description="Hand-pose categories in GRASP-taxonomy terms, their objects and base prompts, "
    "read from `data/taxonomy/` and validated.",
)
def base_prompt_taxonomy(work: Work, out: Staging) -> Result:
    taxonomy = work.taxonomy
    categories = categories_table(taxonomy)
    out.write_table("categories", categories)
    out.write_table("prompts", taxonomy_prompts_table(taxonomy))
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


@stage(
    "detailed_prompts",
    partitions="hand_pose",
    deps=["base_prompt_taxonomy"],
    code_version="1",
    recipe=[
        "hoi_assets/llm/budget.py",
        "hoi_assets/llm/chat.py",
        "hoi_assets/llm/client.py",
        "hoi_assets/llm/reply.py",
        "hoi_assets/llm/retry.py",
        "hoi_assets/llm/structured_output.py",
        "hoi_assets/ppv/prompt_checks.py",
        "hoi_assets/ppv/detailed_prompts.py",
        "hoi_assets/ppv/endpoint_prompter.py",
        "hoi_assets/ppv/slot_grammar.py",
        "hoi_assets/ppv/prompter.py",
        "hoi_assets/ppv/slots.py",
        "hoi_assets/llm/prompt_templates.py",
        "hoi_assets/llm/templates/again.j2",
        "hoi_assets/ppv/templates/system.j2",
        "hoi_assets/ppv/templates/user.j2",
        "hoi_assets/grammar/captions.py",
        "hoi_assets/grammar/vocabulary.py",
    ],
    settings=["prompter"],
    group=GROUP,
    description="Each base prompt in several detailed prompts with typed slots (grip, contact, "
    "view, light, background, skin tone). Contradictory, off-category and near-duplicate ones "
    "are rejected with a reason.",
)
def detailed_prompts(work: Work, out: Staging) -> Result:
    prompter = make_prompter(work.settings.prompter)
    rows = detail_prompts(
        work.taxonomy.categories[work.category],
        work.taxonomy,
        prompter,
        work.settings.prompter,
        cache=work.store.ledger,
        log=work.log,
    )
    table = detailed_prompts_table(rows)
    out.write_table("rows", table)
    work.record("prompt_id", table)
    kept = table.filter(pl.col("status") == "accepted")
    return Result(
        metadata={
            "accepted": kept.height,
            "rejected": table.filter(pl.col("status") == "rejected").height,
            "failed": table.filter(pl.col("status") == "failed").height,
            "prompts": Markdown("\n".join(f"- {text}" for text in kept["prompt"].head(20))),
        }
    )
