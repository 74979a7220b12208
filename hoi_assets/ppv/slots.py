"""Typed slots of a detailed prompt, and the caption they make.

Two levels with the same fields: `TinySlots` holds words the tiny world can draw, `OpenSlots` any
short text. Every field must be given (null where unsaid), as strict structured output requires.
"""

import re
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from hoi_assets.grammar.captions import VIEW_PHRASES, caption
from hoi_assets.grammar.vocabulary import (
    BACKGROUNDS,
    COLOURS,
    LIGHTS,
    MATERIALS,
    OBJECTS,
    SKIN_TONES,
    VIEWS,
)

MAX_SLOT_CHARACTERS = 120
MAX_CONTACT_CHARACTERS = 300

if TYPE_CHECKING:
    Colour: TypeAlias = str
    Material: TypeAlias = str
    SkinTone: TypeAlias = str
    Object: TypeAlias = str
    View: TypeAlias = str
    Light: TypeAlias = str
    Background: TypeAlias = str
else:
    Colour, Material, SkinTone = Literal[COLOURS], Literal[MATERIALS], Literal[SKIN_TONES]
    Object, View, Light = Literal[OBJECTS], Literal[VIEWS], Literal[LIGHTS]
    Background = Literal[BACKGROUNDS]


def _phrase(text: str, most: int = MAX_SLOT_CHARACTERS) -> str:
    text = " ".join(text.split()).rstrip(" .,;")
    if not text:
        raise ValueError("is empty; give a phrase, or null where the field allows it")
    if not text.isprintable():
        raise ValueError("holds characters that cannot be printed")
    if len(text) > most:
        raise ValueError(f"has {len(text)} characters, at most {most} are allowed")
    return text


Phrase = Annotated[str, AfterValidator(_phrase)]
Contact = Annotated[str, AfterValidator(lambda text: _phrase(text, MAX_CONTACT_CHARACTERS))]
Grip = Annotated[
    Phrase,
    Field(
        description="what the hand does, third person singular, ending where the object follows; "
        "or with {object} where the object stands"
    ),
]


class _Slots(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def spoken(self) -> dict[str, str]:
        """The slots that the caption says; those left null are absent."""
        return {name: str(value) for name, value in self.model_dump().items() if value}

    @property
    def negative_prompt(self) -> str:
        """What must not be in the picture; empty where nothing was said."""
        return ""


class TinySlots(_Slots):
    """Words of the tiny world (`hoi_assets.grammar.vocabulary`).

    `contact` stays in the row and out of the caption: the tiny models know no words for it.
    """

    side: Literal["left", "right", "both"]
    skin_tone: SkinTone | None
    grip: Grip
    contact: Contact | None
    colour: Colour
    material: Material | None
    object: Object
    view: View | None
    light: Light | None
    background: Background | None

    def spoken(self) -> dict[str, str]:
        return {name: value for name, value in super().spoken().items() if name != "contact"}

    def caption(self) -> str:
        """The tiny world's full caption."""
        return caption(self.model_dump())


class OpenSlots(_Slots):
    """The same facts in any words, for models that know them."""

    side: Literal["left", "right", "both"]
    skin_tone: Annotated[Phrase | None, Field(description="a tone only, without the word skin")]
    grip: Grip
    contact: Annotated[
        Contact | None, Field(description="which parts of the hand touch which parts of the object")
    ]
    colour: Annotated[Phrase, Field(description="one colour of the object")]
    material: Phrase | None
    object: Annotated[Phrase, Field(description="the object alone, without colour or article")]
    view: Annotated[Phrase | None, Field(description="from where the picture is taken")]
    light: Phrase | None
    background: Phrase | None
    avoid: Annotated[Phrase | None, Field(description="what must not be in the picture")]

    def spoken(self) -> dict[str, str]:
        return {name: value for name, value in super().spoken().items() if name != "avoid"}

    def caption(self) -> str:
        """Action, then contact, view, light and background."""
        said = self.model_dump()
        tail = ("contact", "view", "light", "background")
        action = caption({name: value for name, value in said.items() if name not in tail})
        said["view"] = VIEW_PHRASES.get(self.view or "", self.view)
        return ", ".join([action, *(said[name] for name in tail if said[name])])

    @property
    def negative_prompt(self) -> str:
        return self.avoid or ""


PromptSlots = TinySlots | OpenSlots


def slots_class(vocabulary: str) -> type[TinySlots] | type[OpenSlots]:
    """The level for the setting `prompter.vocabulary`."""
    return TinySlots if vocabulary == "tiny" else OpenSlots


# A colour of the wall or the skin is not the object's.
_PATTERNS: Mapping[str, str] = {
    "colour": rf"\b({'|'.join(COLOURS)})\b(?! (?:wall|skin))",
    "material": rf"\b({'|'.join(MATERIALS)})\b",
    "skin_tone": rf"\b({'|'.join(SKIN_TONES)}) skin\b",
    "side": r"\b(left|right) hands?\b|\b(two|both)(?: \w+)? (?:hands|palms)\b",
    "view": r"\bseen from (?:the )?(front|side|above)\b",
    "light": rf"\b({'|'.join(LIGHTS)})\b",
    "background": rf"\b({'|'.join(BACKGROUNDS)})\b",
}


@cache
def words_named(text: str) -> Mapping[str, tuple[str, ...]]:
    """What a plain text says about the slots, in the vocabulary's words; only slots it names.

    >>> words_named("two hands with dark skin lift a red ball, white wall")
    {'colour': ('red',), 'skin_tone': ('dark',), 'side': ('both',), 'background': ('white wall',)}
    """
    named: dict[str, tuple[str, ...]] = {}
    for slot, pattern in _PATTERNS.items():
        found = (word for match in re.findall(pattern, text.casefold()) for word in _words(match))
        values = tuple(dict.fromkeys("both" if w in ("two", "both") else w for w in found))
        if slot == "side" and {"left", "right"} <= set(values):
            values = ("both",)
        if values:
            named[slot] = values
    return named


def _words(match: Any) -> tuple[str, ...]:
    groups = match if isinstance(match, tuple) else (match,)
    return tuple(word for word in groups if word)
