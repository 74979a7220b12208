"""The taxonomy as published tables."""

import polars as pl

from hoi_assets.store.tables import Column, Table
from hoi_assets.taxonomy import Taxonomy

CATEGORIES = Table(
    "categories",
    "one hand-pose category",
    (
        Column("category", pl.String, "key of the category"),
        Column("name", pl.String, "name for people"),
        Column("grasp_taxonomy", pl.String, "its place in the GRASP taxonomy (Feix et al. 2016)"),
        Column("definition", pl.String, "what the hand does"),
        Column("contact_surface", pl.String, "which parts of the hand touch the object"),
        Column("thumb", pl.String, "what the thumb does"),
        Column("identifier", pl.String, "rare token that DreamBooth ties to the category"),
        Column("grip_phrase", pl.String, "what the hand does, third person singular"),
        Column("hands", pl.Int64, "hands in the picture: 1 or 2"),
        Column("base_prompts", pl.Int64, "number of base prompts"),
        Column("evaluation_prompts", pl.Int64, "number of held-out prompts"),
    ),
    key=("category",),
)

PROMPTS = Table(
    "prompts",
    "one base, evaluation or general prompt",
    (
        Column("base_prompt_id", pl.String, "hash of category and text"),
        Column("category", pl.String, "its category; null for general prompts", nullable=True),
        Column("kind", pl.String, "base, evaluation or general"),
        Column("text", pl.String, "the prompt"),
        Column("object", pl.String, "the object it names"),
        Column(
            "seen",
            pl.Boolean,
            "whether its category is trained on the object; null for general prompts",
            nullable=True,
        ),
    ),
    key=("base_prompt_id",),
)


def category_table(taxonomy: Taxonomy) -> pl.DataFrame:
    """All categories; a table of `CATEGORIES`."""
    return CATEGORIES.frame(
        {
            "category": category.key,
            "name": category.name,
            "grasp_taxonomy": category.grasp_taxonomy,
            "definition": category.definition,
            "contact_surface": category.contact_surface,
            "thumb": category.thumb,
            "identifier": category.identifier,
            "grip_phrase": category.grip_phrase,
            "hands": category.hands,
            "base_prompts": len(category.base_prompts),
            "evaluation_prompts": len(category.evaluation_prompts),
        }
        for category in taxonomy.categories.values()
    )


def prompt_table(taxonomy: Taxonomy) -> pl.DataFrame:
    """All prompts; a table of `PROMPTS`."""
    return PROMPTS.frame(taxonomy.prompt_rows())
