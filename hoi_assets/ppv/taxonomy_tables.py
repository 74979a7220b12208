"""The taxonomy as tables: its hand-pose categories, and all their prompts."""

import polars as pl

from hoi_assets.store.tables import Column, Table
from hoi_assets.taxonomy import Taxonomy

CATEGORY_ROWS = Table(
    "categories",
    "one hand-pose category",
    (
        Column("category", pl.String, "its key, also the partition key"),
        Column("name", pl.String, "its name"),
        Column("grasp_taxonomy", pl.String, "the GRASP taxonomy's types (Feix et al. 2016)"),
        Column("definition", pl.String, "what the hand does"),
        Column("contact_surface", pl.String, "which parts of the hand touch the object"),
        Column("thumb", pl.String, "where the thumb is"),
        Column("identifier", pl.String, "rare token that its LoRA's prompts begin with"),
        Column("grip_phrase", pl.String, "the grip in a caption"),
        Column("hands", pl.Int64, "1 or 2"),
        Column("base_prompts", pl.Int64, "number of base prompts"),
        Column("evaluation_prompts", pl.Int64, "number of held-out evaluation prompts"),
    ),
    key=("category",),
)
TAXONOMY_PROMPT_ROWS = Table(
    "prompts",
    "one base, evaluation or general prompt",
    (
        Column("base_prompt_id", pl.String, "hash of the prompt, 16 hex digits"),
        Column("category", pl.String, "hand-pose category; null if general", nullable=True),
        Column("kind", pl.String, "base, evaluation or general"),
        Column("text", pl.String, "the prompt"),
        Column("object", pl.String, "the object it names"),
        Column(
            "seen", pl.Boolean, "pose and object are trained on; null if general", nullable=True
        ),
    ),
    key=("base_prompt_id",),
)
FIELDS = (
    "name",
    "grasp_taxonomy",
    "definition",
    "contact_surface",
    "thumb",
    "identifier",
    "grip_phrase",
    "hands",
)


def categories_table(taxonomy: Taxonomy) -> pl.DataFrame:
    """The table `CATEGORY_ROWS`."""
    return CATEGORY_ROWS.frame(
        {
            "category": category.key,
            **{name: getattr(category, name) for name in FIELDS},
            "base_prompts": len(category.base_prompts),
            "evaluation_prompts": len(category.evaluation_prompts),
        }
        for category in taxonomy.categories.values()
    )


def taxonomy_prompts_table(taxonomy: Taxonomy) -> pl.DataFrame:
    """The table `TAXONOMY_PROMPT_ROWS`."""
    return TAXONOMY_PROMPT_ROWS.frame(taxonomy.prompt_rows())
