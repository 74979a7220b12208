"""The words the tokenizers are made of: the captions' grammar, then the taxonomy's prompts."""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

from hoi_assets.grammar.captions import BACKGROUND_PHRASES, LIGHT_PHRASES, VIEW_PHRASES, agree
from hoi_assets.grammar.vocabulary import COLOURS, MATERIALS, OBJECTS, SIDES, SKIN_TONES
from hoi_assets.settings import ROOT
from hoi_assets.taxonomy import load_taxonomy

FRAME = "a photo depicts an two hand hands with skin it of the"
TAXONOMY = ROOT / "data" / "taxonomy"


def words_of(text: str) -> list[str]:
    """Lower-case words of a text, punctuation dropped.

    >>> words_of("A red ball, soft light")
    ['a', 'red', 'ball', 'soft', 'light']
    """
    return re.findall(r"[a-z]+", text.lower())


@cache
def caption_words(taxonomy: Path = TAXONOMY) -> tuple[str, ...]:
    """Every word a caption of the tiny world can hold, sorted."""
    texts = [FRAME, *COLOURS, *MATERIALS, *OBJECTS, *SIDES, *SKIN_TONES]
    texts += [*VIEW_PHRASES.values(), *LIGHT_PHRASES.values(), *BACKGROUND_PHRASES.values()]
    for phrase in grip_phrases(taxonomy).values():
        bare = phrase.replace("{object}", "")
        texts += [bare, agree(bare, plural=True)]
    return tuple(sorted({word for text in texts for word in words_of(text)}))


@cache
def prompt_words(taxonomy: Path = TAXONOMY) -> tuple[str, ...]:
    """Words of the taxonomy's prompts that no caption holds, sorted."""
    rows = load_taxonomy(taxonomy).prompt_rows()
    found = {word for row in rows for word in words_of(row["text"])}
    return tuple(sorted(found - set(caption_words(taxonomy))))


@cache
def grip_phrases(taxonomy: Path = TAXONOMY) -> Mapping[str, str]:
    """The caption's verb phrase of each category."""
    categories = load_taxonomy(taxonomy).categories
    return MappingProxyType({key: one.grip_phrase for key, one in categories.items()})
