"""Reasons to reject a detailed prompt: contradictory, off-category, too long, near-duplicate.

A reason reads `code: detail`, so that rows can be counted by the part before the colon.
"""

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache

from hoi_assets.grammar.vocabulary import BACKGROUNDS, COLOURS, LIGHTS
from hoi_assets.ppv.slots import PromptSlots, TinySlots, words_named
from hoi_assets.taxonomy import BasePrompt, Category, Taxonomy, normalise

# Slots that differ most often come first, so that comparisons end soonest.
SLOTS = (
    "colour",
    "background",
    "light",
    "skin_tone",
    "view",
    "material",
    "side",
    "contact",
    "grip",
    "object",
)
_ROUNDING = 1e-9
_WHOLE_PHRASES = frozenset((*LIGHTS, *BACKGROUNDS))
_OTHER_SIDE = {"left": "right", "right": "left"}
_PARTS_OF_HAND = "hand|hands|palm|thumb|index|finger|fingers|wrist"
_SECOND_HAND = r"\b(?:two|both) (?:hands|palms)\b|\b(?:other|second|another) hand\b"
_ONE_HAND = r"\b(?:one|single) hand\b"


def prompt_problem(
    slots: PromptSlots,
    text: str,
    base: BasePrompt,
    category: Category,
    taxonomy: Taxonomy,
    max_words: int,
) -> str | None:
    """The first reason to reject a detailed prompt, None where there is none.

    Args:
        text: the caption the slots made.
        base: the base prompt it details.
        max_words: the most words the caption may have.
    """
    return next(_problems(slots, text, base, category, taxonomy, max_words), None)


def _problems(
    slots: PromptSlots,
    text: str,
    base: BasePrompt,
    category: Category,
    taxonomy: Taxonomy,
    max_words: int,
) -> Iterator[str]:
    if not text.strip():
        yield "empty: the prompt says nothing"
    words = len(text.split())
    if words > max_words:
        yield f"too_many_words: {words}, at most {max_words}"
    yield from _contradictory_base(base)
    yield from _wrong_object(slots, base, taxonomy)
    yield from _colours(slots)
    yield from _hands(slots, category)
    yield from _departs_from_base(slots, base)
    yield from _other_grip(slots, category, taxonomy)


def _contradictory_base(base: BasePrompt) -> Iterator[str]:
    for slot, words in words_named(base.text).items():
        if len(words) > 1:
            yield f"contradictory_base: the base prompt names {slot} {' and '.join(words)}"


def _wrong_object(slots: PromptSlots, base: BasePrompt, taxonomy: Taxonomy) -> Iterator[str]:
    said = normalise(slots.object)
    if not _names(said, base.object):
        yield f"wrong_object: {slots.object!r} is not the base prompt's {base.object!r}"
    wanted = normalise(base.object)
    others = [
        thing
        for thing in _known_objects(taxonomy)
        if wanted not in thing and thing not in wanted and _names(said, thing)
    ]
    if others:
        yield f"wrong_object: {slots.object!r} names {others[0]!r} beside {base.object!r}"


def _known_objects(taxonomy: Taxonomy) -> list[str]:
    categories = taxonomy.categories.values()
    return sorted({normalise(o) for c in categories for o in (*c.objects, *c.held_out_objects)})


def _names(said: str, thing: str) -> bool:
    """Whether normalised text names a thing, in singular or plural."""
    return re.search(rf"\b{re.escape(normalise(thing))}(?:s|es)?\b", said) is not None


def _colours(slots: PromptSlots) -> Iterator[str]:
    said = normalise(" ".join(filter(None, (slots.colour, slots.material, slots.object))))
    named = [colour for colour in COLOURS if re.search(rf"\b{colour}\b", said)]
    if len(named) > 1:
        yield f"two_colours: {' and '.join(named)} for one {slots.object}"


def _hands(slots: PromptSlots, category: Category) -> Iterator[str]:
    if (slots.side == "both") != (category.hands == 2):
        yield f"hand_count: side {slots.side!r}, {category.key} has {category.hands} hand(s)"
    said = _action(slots)
    if re.search(_SECOND_HAND if category.hands == 1 else _ONE_HAND, said):
        yield f"hand_count: {said!r}, {category.key} has {category.hands} hand(s)"
    other = _OTHER_SIDE.get(slots.side)
    if other and re.search(rf"\b{other} (?:{_PARTS_OF_HAND})\b", said):
        yield f"left_and_right: a {slots.side} hand that {said!r}"


def _action(slots: PromptSlots) -> str:
    contact = "" if isinstance(slots, TinySlots) else slots.contact or ""
    return normalise(f"{slots.grip} {contact}")


def _departs_from_base(slots: PromptSlots, base: BasePrompt) -> Iterator[str]:
    named = words_named(base.text)
    for slot in ("colour", "material", "skin_tone", "side"):
        for word in named.get(slot, ()):
            said = getattr(slots, slot) or "nothing"
            if not re.search(rf"\b{word}\b", normalise(said)):
                yield f"departs_from_base: the base prompt says {slot} {word}, the slots {said}"


def _other_grip(slots: PromptSlots, category: Category, taxonomy: Taxonomy) -> Iterator[str]:
    grip = normalise(slots.grip)
    for other in taxonomy.categories.values():
        if other.key != category.key and grip == normalise(other.grip_phrase):
            yield f"other_grip: {slots.grip!r} is that of {other.key}"
    if isinstance(slots, TinySlots):
        if grip != normalise(category.grip_phrase):
            yield f"other_grip: {slots.grip!r} is not {category.grip_phrase!r}"
        return
    if _has_telling_word(_action(slots), category):
        return
    for other in taxonomy.categories.values():
        if other.key != category.key and _has_telling_word(grip, other):
            yield f"other_grip: {slots.grip!r} is told of {other.key}, not of {category.key}"


def _has_telling_word(text: str, category: Category) -> bool:
    marks = (normalise(word) for word in category.telling_words)
    return any(re.search(rf"\b{re.escape(mark)}", text) for mark in marks)


def similarity(a: Mapping[str, str], b: Mapping[str, str]) -> float:
    """How alike two prompts are, 0 to 1: the mean over slots of their words' Jaccard index.

    Slots count alike however many words they hold, so that prompts sharing a long grip phrase and
    differing in colour and view are not near-duplicates.

    >>> similarity({"colour": "red", "view": "side"}, {"colour": "blue", "view": "side"})
    0.5
    """
    slots = a.keys() | b.keys()
    return 1 - _difference(a, b, most=len(SLOTS)) / (len(slots) or 1)


def _difference(a: Mapping[str, str], b: Mapping[str, str], most: float) -> float:
    """Sum over slots of 1 - Jaccard; counting ends once it is above `most`."""
    difference = 0.0
    for slot in SLOTS:
        said, other = a.get(slot, ""), b.get(slot, "")
        if said != other:
            difference += _slot_difference(said, other)
            if difference > most:
                break
    return difference


@lru_cache(maxsize=65536)
def _slot_difference(a: str, b: str) -> float:
    # Two walls of the vocabulary differ, though they share the word "wall".
    if a in _WHOLE_PHRASES and b in _WHOLE_PHRASES:
        return 1.0
    words_a, words_b = set(normalise(a).split()), set(normalise(b).split())
    return 1 - len(words_a & words_b) / (len(words_a | words_b) or 1)


class NearDuplicatePrompts:
    """The prompts accepted so far, to find near-duplicates of them.

    Args:
        threshold: similarity from which two prompts count as one. With nine slots, 0.9 removes
            prompts with equal values and keeps those that differ in one whole slot.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self._accepted: list[tuple[str, Mapping[str, str]]] = []

    def find(self, said: Mapping[str, str]) -> str | None:
        """Id of the first accepted prompt that is too similar to `said`; None where none is."""
        for known, other in self._accepted:
            # A similarity that equals the threshold counts as above it.
            most = (1 - self.threshold) * len(SLOTS) + _ROUNDING
            if _difference(said, other, most) > most:
                continue
            if similarity(said, other) >= self.threshold - _ROUNDING:
                return known
        return None

    def add(self, prompt_id: str, said: Mapping[str, str]) -> None:
        """Add an accepted prompt."""
        self._accepted.append((prompt_id, said))
