"""The declarations of the pipeline's published tables: complete, and true to what is published."""

import numpy as np
import polars as pl
import pytest

from hoi_assets.engines.vilt.calibration import quality_table, reliability_table
from hoi_assets.engines.vilt.training import LabelledPair, labels_of
from hoi_assets.engines.vilt.verifier import Thresholds
from hoi_assets.ppv import (
    candidates,
    detailed_prompts,
    evaluation_images,
    finetuning,
    instance_images,
    packaging,
    proposer,
    round_loras,
    round_plan,
    round_scores,
    signals,
    taxonomy_tables,
    verdicts,
    verifier_pairs,
    verifier_training,
)
from hoi_assets.ppv.taxonomy_tables import categories_table, taxonomy_prompts_table
from hoi_assets.ppv.verifier_training import VERIFIER_QUALITY, VERIFIER_RELIABILITY
from hoi_assets.settings import ROOT
from hoi_assets.store.tables import Table
from hoi_assets.taxonomy import load_taxonomy

MODULES = (
    candidates,
    detailed_prompts,
    evaluation_images,
    finetuning,
    instance_images,
    packaging,
    proposer,
    round_loras,
    round_plan,
    round_scores,
    signals,
    taxonomy_tables,
    verdicts,
    verifier_pairs,
    verifier_training,
)


DECLARED = {
    f"{module.__name__.rpartition('.')[2]}.{name}": value
    for module in MODULES
    for name, value in vars(module).items()
    if isinstance(value, Table)
}


@pytest.mark.parametrize("table", DECLARED.values(), ids=list(DECLARED))
def test_every_column_says_what_it_means_and_keys_exist(table: Table) -> None:
    names = [column.name for column in table.columns]
    assert len(set(names)) == len(names) and set(table.key) <= set(names)
    assert table.meaning and all(column.meaning for column in table.columns)
    assert table.frame([]).schema == pl.Schema(table.schema)


def test_quality_tables_of_the_verifier_are_as_declared() -> None:
    pairs = [LabelledPair(str(n), lambda: None, "a hand", n > 3, n % 2 > 0) for n in range(8)]
    p = np.linspace(0.1, 0.9, 16).reshape(8, 2)
    quality = quality_table(p, pairs, Thresholds(0.5, 0.5))
    assert quality.schema == pl.Schema(VERIFIER_QUALITY.schema)
    reliability = reliability_table(p, labels_of(pairs))
    assert reliability.schema == pl.Schema(VERIFIER_RELIABILITY.schema)


def test_taxonomy_tables_hold_every_category_and_prompt() -> None:
    taxonomy = load_taxonomy(ROOT / "data" / "taxonomy")
    categories, prompts = categories_table(taxonomy), taxonomy_prompts_table(taxonomy)
    assert categories["category"].to_list() == list(taxonomy.categories)
    assert categories["base_prompts"].sum() == prompts.filter(kind="base").height
    assert prompts["base_prompt_id"].is_unique().all()
    assert prompts.filter(kind="general")["seen"].null_count() == len(taxonomy.general_prompts)
