"""The built-in slot grammar: detailed prompts without a language model."""

import random
from collections.abc import Sequence

from pydantic import ValidationError

from hoi_assets.grammar.vocabulary import (
    BACKGROUNDS,
    COLOURS,
    LIGHTS,
    MATERIALS,
    SKIN_TONES,
    VIEWS,
)
from hoi_assets.ppv.prompter import Keep, Reply, Request
from hoi_assets.ppv.slots import PromptSlots, slots_class, words_named
from hoi_assets.progress import Log
from hoi_assets.settings import Prompter as PrompterSettings
from hoi_assets.taxonomy import Category, Taxonomy

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


def draw(request: Request, category: Category, seed: int) -> dict[str, str]:
    """Values for the slots of `CHOICES`: what the base prompt names, else a drawn word.

    Each slot goes through all its words in a shuffled order before one comes again, so that a few
    prompts cover much. The values depend on base prompt, index and seed alone.
    """
    named = words_named(request.base.text)
    drawn = {
        slot: named[slot][0] if slot in named else _turn(words, request, slot, seed)
        for slot, words in CHOICES.items()
    }
    if category.hands == 2:
        drawn["side"] = "both"
    return drawn


def _turn(words: Sequence[str], request: Request, slot: str, seed: int) -> str:
    round_number, place = divmod(request.index, len(words))
    rng = random.Random(f"{seed}/{request.base.prompt_id}/{slot}/{round_number}")
    return rng.sample(words, len(words))[place]


class GrammarPrompter:
    """Fills the slots with the vocabulary's words; as quick as it is plain."""

    model = "slot-grammar"
    template_version = VERSION

    def __init__(self, taxonomy: Taxonomy, options: PrompterSettings) -> None:
        self.taxonomy = taxonomy
        self.options = options

    @property
    def identity(self) -> dict[str, str]:
        """What determines a reply beside the request."""
        return {
            "model": self.model,
            "template_version": self.template_version,
            "vocabulary": self.options.vocabulary,
        }

    @property
    def caches(self) -> bool:
        """Whether replies are worth keeping: these are remade faster than found."""
        return False

    def ask(
        self, category: Category, requests: Sequence[Request], keep: Keep, log: Log
    ) -> list[Reply]:
        """One reply per request, in their order."""
        return [self._reply(category, request) for request in requests]

    def _reply(self, category: Category, request: Request) -> Reply:
        level = slots_class(self.options.vocabulary)
        given = {
            **dict.fromkeys(level.model_fields),
            **draw(request, category, self.options.seed),
            "grip": category.grip_phrase,
            "contact": category.contact_surface,
            "object": request.base.object,
        }
        try:
            slots: PromptSlots = level.model_validate(given)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = ".".join(str(part) for part in first["loc"])
            return Reply(
                reason=f"not_drawable: {field} {first['input']!r} is no word of the tiny world; "
                "use another, or set prompter.vocabulary to open",
                refused=True,
            )
        return Reply(slots=slots)
