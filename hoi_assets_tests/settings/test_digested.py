"""Promises about what settings mean to digests."""

from hoi_assets.hashing import digest
from hoi_assets.publishing.graph import settings_digest
from hoi_assets.settings import FORMER_NAMES, load_settings
from hoi_assets.settings.profile import Settings

# Fields of release 0.2's tiny profile that came later than its digests.
LATER = {"max_reply_tokens", "reasoning_effort", "extra_body"}


def _without(value: object) -> object:
    if isinstance(value, dict):
        return {name: _without(one) for name, one in value.items() if name not in LATER}
    return value


def test_new_settings_at_their_default_are_in_no_digest() -> None:
    settings = load_settings("tiny")
    whole = settings.model_dump(mode="json")
    for name in ("prompter", "critic", "sampling", "redenoising", "lora", "finetuning"):
        before = {FORMER_NAMES.get(name, name): _without(whole[name])}
        assert settings_digest(settings, [name]) == digest(before)


def test_a_new_setting_that_is_set_is_in_the_digest() -> None:
    settings = load_settings("tiny")
    data = settings.model_dump()
    data["prompter"]["max_reply_tokens"] = 4096
    changed = Settings.model_validate(data)
    assert settings_digest(changed, ["prompter"]) != settings_digest(settings, ["prompter"])
    assert settings_digest(changed, ["critic"]) == settings_digest(settings, ["critic"])
