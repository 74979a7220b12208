"""Fields that came later leave the digests of versions published before as they were."""

from typing import Any

import pytest

from hoi_assets.engines.sdxl.lora import lora_key
from hoi_assets.hashing import digest
from hoi_assets.publishing.graph import settings_digest
from hoi_assets.settings import (
    FORMER_NAMES,
    FineTuning,
    LoraTraining,
    ModelRef,
    Settings,
    digested,
    load_settings,
)
from hoi_assets.settings.base import Section
from hoi_assets.store.weights import model_digest

TRAINING = {
    "weight_prior_by_snr": False,
    "lora_dropout": 0.1,
    "train_text_encoder": True,
    "text_encoder_lr": 5e-6,
    "optimizer": "prodigy",
    "adam_beta1": 0.8,
    "adam_beta2": 0.99,
    "adam_weight_decay": 1e-4,
    "adam_epsilon": 1e-6,
    "noise_offset": 0.05,
    "proportion_empty_prompts": 0.1,
    "center_crop": False,
    "random_flip": True,
    "aspect_ratio_buckets": "64,64;64,96",
}
VALIDATION = {"validation_prompt": "a hand", "num_validation_images": 2}
# Entered a key when `LoraTraining` had its first release; `checkpointing_steps` never did.
FIRST_OPTIONS = {
    "rank": 8,
    "lora_alpha": 8,
    "max_train_steps": 60,
    "train_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "gradient_checkpointing": False,
    "learning_rate": 3e-4,
    "lr_scheduler": "constant",
    "lr_warmup_steps": 0,
    "max_grad_norm": 1.0,
    "snr_gamma": 5.0,
    "with_prior_preservation": True,
    "prior_loss_weight": 1.0,
    "num_class_images": 16,
    "mixed_precision": "no",
    "seed": 0,
}
# One value other than the default of each field.
CHANGED: dict[str, dict[str, Any]] = {
    "prompter": {"max_reply_tokens": 2048, "reasoning_effort": "low", "extra_body": {"a": 1}},
    "lora": {**TRAINING, **VALIDATION, "validation_steps": 7},
    "finetuning": {**TRAINING, **VALIDATION},
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
    before = {"training": "1", "base": "b", "kind": "LoraTraining", "options": FIRST_OPTIONS}
    wanted = digest({**before, "train": [], "other": []})
    assert lora_key([], [], LoraTraining(), "b") == wanted
    for same in ({"report_to": "tensorboard"}, {"num_validation_images": 2}):
        assert lora_key([], [], LoraTraining(**same), "b") == wanted
    drawn = [LoraTraining(validation_prompt=text) for text in ("a hand", "a cup")]
    # Another prompt is drawn with the LoRAs that are kept already.
    assert len({lora_key([], [], one, "b") for one in drawn} | {wanted}) == 2
    for field, value in TRAINING.items():
        assert lora_key([], [], LoraTraining(**{field: value}), "b") != wanted, field


def test_keys_of_default_options_are_what_they_were() -> None:
    train, other = [("p", "a")], [("c", "b")]
    dreambooth = lora_key(train, other, LoraTraining(), "base")
    assert dreambooth == "da762c07f2e18b90c8a9e51db5cabe7558db0a4b7c4c9b293812731938e84275"
    tuned = lora_key(train, other, FineTuning(), "base")
    assert tuned == "4d90fc4e876d4fe84cb086f9e92e3d13d57929e3ad56f68f68cc91c8470c71e7"
    # A half-precision base encoded its pictures in half precision once.
    assert lora_key(train, other, LoraTraining(), "base", "bfloat16") != dreambooth


def test_number_of_t5_tokens_is_part_of_a_models_digest_only_when_it_is_set() -> None:
    ref = ModelRef(source="maker/model", revision="0" * 40)
    contents = f"maker/model@{'0' * 40}"
    assert model_digest(ref) == digest({"contents": contents, "dtype": "float32"})
    assert model_digest(ref.model_copy(update={"max_sequence_length": 512})) != model_digest(ref)
