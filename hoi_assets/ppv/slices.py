"""Slices of a hand-pose category: object, skin tone, view and side; how well each is covered."""

import re
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import polars as pl

from hoi_assets.grammar.vocabulary import SKIN_TONES, VIEWS
from hoi_assets.ppv.slots import words_named
from hoi_assets.store.tables import Column
from hoi_assets.taxonomy import BasePrompt, Category

SLICE_COLUMNS = (
    Column("object", pl.String, "the object of the slice"),
    Column("skin_tone", pl.String, "its tone of the skin"),
    Column("view", pl.String, "where its camera stands"),
    Column("side", pl.String, "left, right or both"),
)


class Slice(NamedTuple):
    """One combination; the category is known from elsewhere."""

    object: str
    skin_tone: str
    view: str
    side: str


def slices_of(category: Category) -> dict[Slice, tuple[BasePrompt, ...]]:
    """Every slice that base prompts of the category leave room for, with those base prompts.

    A base prompt that names a skin tone, view or side belongs to slices of that word alone; one
    that contradicts itself belongs to none.
    """
    sides = ("both",) if category.hands == 2 else ("left", "right")
    found: dict[Slice, tuple[BasePrompt, ...]] = {}
    for base in category.base_prompts:
        named = words_named(base.text)
        if any(len(words) > 1 for words in named.values()):
            continue
        choices = (("skin_tone", SKIN_TONES), ("view", VIEWS), ("side", sides))
        words = [[one for one in all_ if one in named.get(slot, all_)] for slot, all_ in choices]
        for own in product((base.object,), *words):
            found[Slice(*own)] = (*found.get(Slice(*own), ()), base)
    return found


def judged_prompts(
    category: Category, prompts: pl.DataFrame, verdicts: pl.DataFrame
) -> pl.DataFrame:
    """Every drawn candidate with the slots of its prompt, in the words that slices are named by.

    Args:
        prompts: rows of `detailed_prompts`.
        verdicts: rows of `verified_pairs`.

    Returns:
        Columns of the verdicts (drawn ones), `index`, `colour`, `material`, `light`, `background`,
        and those of a slice; null where the prompt names none of its words.
    """
    objects = {base.prompt_id: base.object for base in category.base_prompts}
    slots = prompts.select(
        "prompt_id",
        "index",
        "colour",
        "material",
        "light",
        "background",
        object=pl.col("base_prompt_id").replace_strict(objects, default=None),
        skin_tone=_words(prompts["skin_tone"], SKIN_TONES),
        view=_words(prompts["view"], VIEWS),
        side=pl.col("side"),
    )
    drawn = verdicts.filter(pl.col("pixels").is_not_null())
    return drawn.join(slots, on="prompt_id", how="inner", maintain_order="left")


def _words(said: pl.Series, words: Sequence[str]) -> pl.Series:
    """Each text as the first of the words in it: a language model may say "a dark brown"."""

    def first(text: str | None) -> str | None:
        own = (text or "").casefold()
        return next((word for word in words if re.search(rf"\b{word}\b", own)), None)

    known = {text: first(text) for text in said.unique().to_list()}
    return pl.Series(said.name, [known[text] for text in said.to_list()], dtype=pl.String)


def count_slices(category: Category, judged: pl.DataFrame) -> pl.DataFrame:
    """How many images of every slice were drawn and how many accepted.

    Args:
        judged: of `judged_prompts`.

    Returns:
        Columns of a slice, `drawn` and `accepted`; one row per slice of `slices_of`, in its order.
    """
    names = [column.name for column in SLICE_COLUMNS]
    counts = judged.group_by(names).agg(
        drawn=pl.len().cast(pl.Int64),
        accepted=(pl.col("status") == "accepted").sum().cast(pl.Int64),
    )
    slices = pl.DataFrame(
        list(slices_of(category)), schema={one: pl.String for one in names}, orient="row"
    )
    return slices.join(counts, on=names, how="left", maintain_order="left").with_columns(
        pl.col("drawn", "accepted").fill_null(0)
    )
