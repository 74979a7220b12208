"""Fields that came later leave the digests of versions published before as they were."""

from typing import Any

import pytest

from hoi_assets.engines.sdxl.lora import lora_key
from hoi_assets.hashing import digest
from hoi_assets.publishing.graph import settings_digest
from hoi_assets.settings import (
    FORMER_NAMES,
    LoraTraining,
    ModelRef,
    Settings,
    digested,
    load_settings,
)
from hoi_assets.settings.base import Section
from hoi_assets.store.weights import model_digest

# One value other than the default of each field.
CHANGED: dict[str, dict[str, Any]] = {
    "prompter": {"max_reply_tokens": 2048, "reasoning_effort": "low", "extra_body": {"a": 1}},
    "lora": {"weight_prior_by_snr": False},
    "finetuning": {"weight_prior_by_snr": False},
    "critic": {"protocol": "published"},
    "redenoising": {
        "seeds": (1, 2),
        "initial_is_candidate": False,
        "baseline_images": "one",
    },
    "judge": {"topic": True, "rates": "all"},
    "evaluation": {"best_of_variants": True},
}


@pytest.mark.parametrize("section", CHANGED)
def test_a_field_added_later_enters_the_digest_only_when_it_is_set(section: str) -> None:
    tiny = load_settings("tiny")
    own: Section = getattr(tiny, section)
    before = digested(own.model_copy(update=CHANGED[section]))
    for field in CHANGED[section]:
        del before[field]
    name = FORMER_NAMES.get(section, section)
    assert settings_digest(tiny, [section]) == digest({name: before})
    found = {settings_digest(tiny, [section])}
    for field, value in CHANGED[section].items():
        other = own.model_copy(update={field: value})
        changed: Settings = tiny.model_copy(update={section: other})
        found.add(settings_digest(changed, [section]))
    assert len(found) == 1 + len(CHANGED[section])


def test_a_loras_key_is_that_of_loras_trained_before() -> None:
    config = LoraTraining()
    options = config.model_dump(mode="json", exclude={"checkpointing_steps", *CHANGED["lora"]})
    before = {"training": "1", "base": "b", "kind": "LoraTraining", "options": options}
    assert lora_key([], [], config, "b") == digest({**before, "train": [], "other": []})
    assert lora_key([], [], LoraTraining(weight_prior_by_snr=False), "b") != digest(
        {**before, "train": [], "other": []}
    )


def test_number_of_t5_tokens_is_part_of_a_models_digest_only_when_it_is_set() -> None:
    ref = ModelRef(source="maker/model", revision="0" * 40)
    contents = f"maker/model@{'0' * 40}"
    assert model_digest(ref) == digest({"contents": contents, "dtype": "float32"})
    assert model_digest(ref.model_copy(update={"max_sequence_length": 512})) != model_digest(ref)
