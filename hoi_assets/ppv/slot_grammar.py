"""The built-in slot grammar: detailed prompts without a language model."""

import random
from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from hoi_assets.grammar.vocabulary import (
    BACKGROUNDS,
    COLOURS,
    LIGHTS,
    MATERIALS,
    SKIN_TONES,
    VIEWS,
)
from hoi_assets.llm.reply import OnReply, Reply
from hoi_assets.ppv.prompter import PromptRequest
from hoi_assets.ppv.slots import PromptSlots, slots_class, words_named
from hoi_assets.progress import Log
from hoi_assets.settings import Prompter as PrompterSettings

VERSION = "1"
CHOICES: dict[str, tuple[str, ...]] = {
    "side": ("left", "right"),
    "skin_tone": SKIN_TONES,
    "colour": COLOURS,
    "material": MATERIALS,
    "view": VIEWS,
    "light": LIGHTS,
    "background": BACKGROUNDS,
}
# Code of the reason for a base prompt that no reply can detail in this vocabulary.
NOT_DRAWABLE = "not_drawable"


def suggested_values(request: PromptRequest, seed: int) -> dict[str, str]:
    """Values for the slots of `CHOICES`: what the base prompt names, else what the request wishes,
    else a random word.

    Each slot goes through all its words in a shuffled order before a word repeats, so that a few
    prompts cover many words; those that the request avoids are left out. The values depend on base
    prompt, index, wish and seed alone.
    """
    wish = request.wish
    named = words_named(request.base.text)
    given = (wish.slots() if wish else {}) | {slot: words[0] for slot, words in named.items()}
    values = {
        slot: given[slot] if slot in given else _shuffled_word(words, request, slot, seed)
        for slot, words in CHOICES.items()
    }
    if request.category.hands == 2:
        values["side"] = "both"
    return values


def _shuffled_word(words: Sequence[str], request: PromptRequest, slot: str, seed: int) -> str:
    if request.wish is not None:
        words = [word for word in words if word not in request.wish.avoid] or words
    round_number, place = divmod(request.index, len(words))
    rng = random.Random(f"{seed}/{request.base.prompt_id}/{slot}/{round_number}")
    return rng.sample(words, len(words))[place]


class GrammarPrompter:
    """Fills the slots with words of the built-in vocabulary."""

    model = "slot-grammar"
    template_version = VERSION
    # Filling the slots is faster than a look-up.
    caches = False

    def __init__(self, options: PrompterSettings) -> None:
        self.options = options

    @property
    def identity(self) -> dict[str, str]:
        """What determines a reply besides the request."""
        return {
            "model": self.model,
            "template_version": self.template_version,
            "vocabulary": self.options.vocabulary,
        }

    def ask(
        self,
        requests: Mapping[str, PromptRequest],
        on_reply: OnReply[PromptSlots],
        log: Log,
    ) -> dict[str, Reply[PromptSlots]]:
        """A reply per request, by key."""
        return {key: self._reply(request) for key, request in requests.items()}

    def _reply(self, request: PromptRequest) -> Reply[PromptSlots]:
        level = slots_class(self.options.vocabulary)
        fields = {
            **dict.fromkeys(level.model_fields),
            **suggested_values(request, self.options.seed),
            "grip": request.category.grip_phrase,
            "contact": request.category.contact_surface,
            "object": request.base.object,
        }
        try:
            return Reply(level.model_validate(fields), None, self.model)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = ".".join(str(part) for part in first["loc"])
            reason = (
                f"{NOT_DRAWABLE}: {field} {first['input']!r} is no word of the tiny world; "
                "use another, or set prompter.vocabulary to open"
            )
            return Reply(None, reason, self.model)
