"""Evaluation prompts: how they are shared among the categories."""

from dataclasses import replace
from itertools import islice

import pytest

from hoi_assets.ppv.evaluation_prompts import general_prompts, held_out_prompts
from hoi_assets.settings import load_settings
from hoi_assets.taxonomy import Taxonomy, load_taxonomy


@pytest.fixture(scope="module")
def taxonomy() -> Taxonomy:
    return load_taxonomy(load_settings("tiny").taxonomy_folder)


def test_general_prompts_are_all_dealt_and_none_twice_however_many_there_are(
    taxonomy: Taxonomy,
) -> None:
    known = len(taxonomy.general_prompts)
    for categories in range(1, len(taxonomy.categories) + 1):
        members = dict(islice(taxonomy.categories.items(), categories))
        part = replace(taxonomy, categories=members)
        for most in range(1, known + 3):
            dealt = set()
            for category in members:
                ids = [p.evaluation_prompt_id for p in general_prompts(part, category, most)]
                assert len(set(ids)) == len(ids) >= min(2, most, known), (categories, most)
                dealt |= set(ids)
            assert len(dealt) == min(most, known), (categories, most)


def test_no_general_prompt_is_dealt_where_none_is_asked_for(taxonomy: Taxonomy) -> None:
    assert general_prompts(taxonomy, "hook", 0) == []


def test_held_out_prompts_come_once_each(taxonomy: Taxonomy) -> None:
    for category in taxonomy.categories:
        for most in range(1, 12):
            found = held_out_prompts(taxonomy, category, most)
            assert len({p.evaluation_prompt_id for p in found}) == len(found) <= most
