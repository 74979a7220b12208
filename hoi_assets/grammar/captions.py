"""Captions of the tiny world's pictures, in one controlled English.

Slots are a plain mapping: `side` (left | right | both | None for an object alone), `skin_tone`,
`grip` (the category's phrase, third person singular, e.g. "wraps around"; an optional `{object}`
marks where the object stands, else it comes last), `colour`, `material`, `object`, `view`, `light`,
`background`. Every slot but `side`, `grip`, `colour` and `object` may be None or absent.
"""

import random
from collections.abc import Callable, Mapping
from typing import Any

from hoi_assets.grammar.vocabulary import BACKGROUNDS, LIGHTS

Slots = Mapping[str, Any]
MAX_WORDS = 30
VIEW_PHRASES = {
    "front": "seen from the front",
    "side": "seen from the side",
    "above": "seen from above",
}
LIGHT_PHRASES = {light: light for light in LIGHTS}
BACKGROUND_PHRASES = {background: background for background in BACKGROUNDS}


def caption(slots: Slots, seed: int | None = None) -> str:
    """A caption of at most 30 words that says `slots`.

    Args:
        seed: chooses one of several phrasings of the same facts, so that a model has to read words
            and not places; None gives the full standard form. Phrasings may leave out optional
            slots, never side, grip, colour or object.

    >>> caption({"side": "right", "skin_tone": "brown", "grip": "wraps around", "colour": "red",
    ...          "material": "plastic", "object": "bottle", "view": "side",
    ...          "light": "soft light"})
    'a right hand with brown skin wraps around a red plastic bottle, seen from the side, soft light'
    """
    if seed is None:
        return full_form(slots, random.Random(0))
    rng = random.Random(seed)
    form = rng.choices([form for form, _ in FORMS], weights=[weight for _, weight in FORMS])[0]
    return form(slots, rng)


def full_form(slots: Slots, rng: random.Random) -> str:
    """Action, then view, light and background in this order."""
    return ", ".join([_action(slots), *_tail(slots)])


def shuffled_form(slots: Slots, rng: random.Random) -> str:
    """Action, then the rest in any order."""
    tail = _tail(slots)
    rng.shuffle(tail)
    return ", ".join([_action(slots), *tail])


def partial_form(slots: Slots, rng: random.Random) -> str:
    """Action with one or two of view, light and background."""
    tail = _tail(slots)
    rng.shuffle(tail)
    return ", ".join([_action(slots), *tail[: rng.randint(1, 2)]])


def short_form(slots: Slots, rng: random.Random) -> str:
    """The action alone; skin tone and material sometimes left out."""
    kept = dict(slots)
    for slot in ("skin_tone", "material"):
        if rng.random() < 0.5:
            kept[slot] = None
    return _action(kept)


def setting_first_form(slots: Slots, rng: random.Random) -> str:
    """View, light and background first, in any order, then the action."""
    tail = _tail(slots)
    rng.shuffle(tail)
    return ", ".join([*tail, _action(slots)])


def object_first_form(slots: Slots, rng: random.Random) -> str:
    """The object first, then what the hand does to it."""
    if not slots.get("side"):
        return shuffled_form(slots, rng)
    tail = _tail(slots)
    rng.shuffle(tail)
    return ", ".join([_object(slots), _action(slots, object_phrase="it"), *tail])


FORMS: tuple[tuple[Callable[[Slots, random.Random], str], int], ...] = (
    (full_form, 30),
    (shuffled_form, 20),
    (partial_form, 15),
    (short_form, 15),
    (setting_first_form, 10),
    (object_first_form, 10),
)


def _tail(slots: Slots) -> list[str]:
    phrases = [
        VIEW_PHRASES.get(slots.get("view") or ""),
        LIGHT_PHRASES.get(slots.get("light") or ""),
        BACKGROUND_PHRASES.get(slots.get("background") or ""),
    ]
    return [phrase for phrase in phrases if phrase]


def _object(slots: Slots) -> str:
    words = [slots["colour"], slots.get("material"), slots["object"]]
    phrase = " ".join(word for word in words if word)
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def _hand(slots: Slots) -> str:
    hand = "two hands" if slots["side"] == "both" else f"a {slots['side']} hand"
    return f"{hand} with {slots['skin_tone']} skin" if slots.get("skin_tone") else hand


def _action(slots: Slots, object_phrase: str | None = None) -> str:
    thing = object_phrase or _object(slots)
    if not slots.get("side"):
        return thing
    grip = agree(slots["grip"], plural=slots["side"] == "both")
    action = grip.replace("{object}", thing) if "{object}" in grip else f"{grip} {thing}"
    return f"{_hand(slots)} {action}"


def agree(grip: str, plural: bool) -> str:
    """Put the verb that opens `grip` (third person, either number) into the number asked for.

    >>> agree("pinches the edge of", plural=True)
    'pinch the edge of'
    """
    verb, space, rest = grip.partition(" ")
    singular = verb.endswith("s") and not verb.endswith("ss")
    if plural and singular:
        if verb.endswith("ies"):
            verb = verb[:-3] + "y"
        elif verb.endswith(("sses", "shes", "ches", "xes")):
            verb = verb[:-2]
        else:
            verb = verb[:-1]
    elif not plural and not singular:
        if verb.endswith(("ss", "sh", "ch", "x")):
            verb += "es"
        elif verb.endswith("y") and verb[-2] not in "aeiou":
            verb = verb[:-1] + "ies"
        else:
            verb += "s"
    return verb + space + rest
