"""Splits an English phrase into subject, relation and object, by rules.

The relation is, from the second word on, the first

1. relation of the built-in grammar (the longest), common verb in -s or -ing, `is` or `are`, or
   participle before a preposition (`made of`);
2. common verb in its plain form (`paw hold brush`, as published);
3. other word in -s or -ing;

with, outside of the grammar, the prepositions after it and the adverbs in -ly before it. A word in
-s or -ing after an article, a number or a preposition counts as a noun.
"""

import re
from collections.abc import Callable
from functools import cache

from hoi_assets.detailscribe.components import IS_SHOWN
from hoi_assets.grammar.vocabulary import RELATIONS


def word_set(text: str) -> frozenset[str]:
    """The words of a text.

    >>> sorted(word_set("on under"))
    ['on', 'under']
    """
    return frozenset(text.split())


PREPOSITIONS = word_set(
    """
    about above across against along among around as at atop before behind below beneath beside
    between beyond by down from in inside into near of off on onto out over past through to toward
    towards under up upon with within
    """
)
ARTICLES_AND_NUMBERS = word_set(
    """
    a an the and her his its their many several some
    one two three four five six seven eight nine ten
    """
)
# Those that are seldom nouns or adjectives.
_VERBS = word_set(
    """
    add balance carry carve catch chase chop create cut dip drag drink eat embrace feed fill fold
    give grasp grip hang hit hold hug jump kick knead lean lie lift look loosen make march mix
    nestle peel perch place play point pour pull push put read rest ride roll run sail scoop sculpt
    sew sharpen sip sit slice spin spray squeeze stand steer stir stroke support surround sweep
    swing take throw tighten toss touch turn use walk wave wear weave whisk wield wipe wrap write
    """
)
_IRREGULAR_PARTICIPLES = word_set("built cut drawn held made spun woven worn written")
_NOUNS_IN_ING = word_set(
    """
    building ceiling clothing evening king lightning morning ring sibling spring string thing wing
    """
)

# First word and end of the relation among a phrase's words.
Span = tuple[int, int]


def split_phrase(text: str) -> tuple[str, str, str]:
    """Subject, relation and object of a phrase; without a verb, all of it `is shown`.

    >>> split_phrase("A fox stirs a stew")
    ('A fox', 'stirs', 'a stew')
    >>> split_phrase("a red mug")
    ('a red mug', 'is shown', '')
    """
    words = text.split()
    rules: tuple[Callable[[list[str]], Span | None], ...] = (
        _find_known_relation,
        _find_plain_verb,
        _find_verb_like_ending,
    )
    bare_words = [word.casefold().strip(",;.") for word in words]
    for rule in rules:
        span = rule(bare_words)
        if span:
            start, end = span
            return " ".join(words[:start]), " ".join(words[start:end]), " ".join(words[end:])
    return " ".join(words), IS_SHOWN, ""


def _find_known_relation(words: list[str]) -> Span | None:
    for start in range(1, len(words)):
        for relation in _grammar_relations():
            if tuple(words[start : start + len(relation)]) == relation:
                return start, start + len(relation)
        if _is_inflected_verb(words, start):
            return _whole_relation(words, start)
    return None


@cache
def _grammar_relations() -> tuple[tuple[str, ...], ...]:
    """Relations of the grammar as words, longest first."""
    split = {tuple(relation.casefold().split()) for relation in RELATIONS}
    return tuple(sorted(split, key=lambda words: (-len(words), words)))


def _is_inflected_verb(words: list[str], n: int) -> bool:
    word = words[n]
    if word in ("is", "are") or (word in _inflections() and _may_be_verb(words, n)):
        return True
    participle = word.endswith("ed") or word in _IRREGULAR_PARTICIPLES
    return participle and n + 1 < len(words) and words[n + 1] in PREPOSITIONS


def _find_plain_verb(words: list[str]) -> Span | None:
    return next(
        (_whole_relation(words, n) for n in range(1, len(words)) if words[n] in _VERBS), None
    )


def _find_verb_like_ending(words: list[str]) -> Span | None:
    for n in range(1, len(words)):
        if _may_be_verb(words, n) and _ends_like_a_verb(words[n]):
            return _whole_relation(words, n)
    return None


def _may_be_verb(words: list[str], n: int) -> bool:
    return words[n - 1] not in PREPOSITIONS | ARTICLES_AND_NUMBERS


def _ends_like_a_verb(word: str) -> bool:
    if word.endswith("ing"):
        return word not in _NOUNS_IN_ING
    return word.endswith("s") and not word.endswith(("ss", "us", "'s", "’s"))


def _whole_relation(words: list[str], n: int) -> Span:
    """The verb at `n` with the adverbs before it, its participle and the prepositions after it."""
    start, end = n, n + 1
    while start > 1 and words[start - 1].endswith("ly"):
        start -= 1
    if words[n] in ("is", "are"):
        while end < len(words) and re.search(r"(?:ly|ed|ing)$|^made$|^held$", words[end]):
            end += 1
    while end < len(words) and words[end] in PREPOSITIONS:
        end += 1
    return start, end


@cache
def _inflections() -> frozenset[str]:
    return frozenset(form for verb in _VERBS for form in _regular_forms(verb))


def _regular_forms(verb: str) -> tuple[str, ...]:
    """Third person and -ing of a regular verb; the last letter once and twice."""
    if re.search(r"[^aeiou]y$", verb):
        third = f"{verb[:-1]}ies"
    else:
        third = f"{verb}es" if re.search(r"(?:s|x|z|ch|sh)$", verb) else f"{verb}s"
    stem = f"{verb[:-2]}y" if verb.endswith("ie") else verb.removesuffix("e")
    return third, f"{stem}ing", f"{stem}{stem[-1]}ing"
