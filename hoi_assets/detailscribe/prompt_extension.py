"""A prompt with additions after it: the original text word for word, then what it should also say.

Corrected prompts (DetailScribe, arXiv 2504.08714), edited prompts (CRAFT, arXiv 2512.20362) and the
rewritten prompts of the baseline without a language model are all made in this way.
"""

from collections.abc import Sequence

MAX_WORDS = 70
SENTENCE_ENDS = (".", "!", "?")


class NoRoom(ValueError):
    """The prompt is so long that no addition fits after it."""


def extend_prompt(prompt: str, additions: Sequence[str], max_words: int = MAX_WORDS) -> str:
    """The prompt word for word, then as many of the additions as fit; equal ones once.

    A prompt that ends like a sentence is followed by sentences, another one by phrases after
    commas, as in the built-in grammar.

    >>> extend_prompt("a hand holds a cup", ["the cup is red"])
    'a hand holds a cup, the cup is red'
    >>> extend_prompt("A fox stirs a stew.", ["the paw holds the spoon"])
    'A fox stirs a stew. The paw holds the spoon.'

    Raises:
        NoRoom: none fits within `max_words`.
    """
    in_sentences = prompt.rstrip().endswith(SENTENCE_ENDS)
    text = prompt
    for addition in dict.fromkeys(additions):
        bare = addition.strip().rstrip(".,; ")
        sentence = f"{bare[:1].upper()}{bare[1:]}{'' if bare.endswith(SENTENCE_ENDS) else '.'}"
        longer = f"{text} {sentence}" if in_sentences else f"{text}, {bare}"
        if bare and word_count(longer) <= max_words:
            text = longer
    if text == prompt:
        words = word_count(prompt)
        raise NoRoom(f"the prompt has {words} words, with corrections {max_words} are allowed")
    return text


def find_extension_problem(prompt: str, extended: str, max_words: int = MAX_WORDS) -> str | None:
    """Why `extended` is not the prompt with additions, as `code: detail`; None if it is.

    >>> find_extension_problem("a cup", "a cupboard, red")
    "not_verbatim: it does not begin with 'a cup' word for word"
    """
    rest = extended[len(prompt) :]
    if not extended.startswith(prompt) or rest[:1].isalnum():
        return f"not_verbatim: it does not begin with {prompt!r} word for word"
    if not any(sign.isalnum() for sign in rest):
        return "nothing_added: it says no more than the prompt"
    if word_count(extended) > max_words:
        return f"too_many_words: {word_count(extended)}, at most {max_words}"
    if not rest.isprintable():
        return "unprintable: a correction holds characters that cannot be printed"
    return None


def word_count(text: str) -> int:
    """Words between spaces.

    >>> word_count("a red mug")
    3
    """
    return len(text.split())
