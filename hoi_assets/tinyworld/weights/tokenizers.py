"""One small vocabulary in two forms: BPE for CLIP and SDXL, WordPiece for ViLT and BLIP."""

from collections import Counter
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from string import ascii_lowercase, digits, punctuation
from typing import Any

from hoi_assets.tinyworld.weights.words import TAXONOMY, caption_words, prompt_words

MAX_LENGTH = 48
START, END = "<|startoftext|>", "<|endoftext|>"
SPECIAL_PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def clip_tokenizer(
    pad_token: str = END,
    taxonomy: Path = TAXONOMY,
    words: Sequence[str] | None = None,
    max_length: int = MAX_LENGTH,
) -> Any:
    """A `CLIPTokenizer` that knows each caption word as one token and any other by its bytes.

    Args:
        pad_token: SDXL's second tokenizer pads with "!", CLIP and SDXL's first with the end token.
        words: those known as one token; None takes the caption words.
    """
    from transformers import CLIPTokenizer

    merges = _merges(caption_words(taxonomy) if words is None else tuple(words))
    symbols = _byte_symbols()
    tokens = [*symbols, *(symbol + "</w>" for symbol in symbols)]
    tokens += list(dict.fromkeys(left + right for left, right in merges))
    vocabulary = {token: index for index, token in enumerate([*tokens, START, END])}
    return CLIPTokenizer(
        vocab=vocabulary, merges=list(merges), model_max_length=max_length, pad_token=pad_token
    )


def bert_tokenizer(
    taxonomy: Path = TAXONOMY,
    words: Sequence[str] | None = None,
    max_length: int = MAX_LENGTH,
) -> Any:
    """A `BertTokenizer` whose pieces are the words, and letters for any other word.

    Args:
        words: those known as one piece; None takes the captions' and the prompts'.
    """
    from transformers import BertTokenizer

    letters = [*ascii_lowercase, *digits]
    if words is None:
        words = [*caption_words(taxonomy), *prompt_words(taxonomy)]
    pieces = [*SPECIAL_PIECES, *punctuation, *letters, *("##" + letter for letter in letters)]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys([*pieces, *words]))}
    return BertTokenizer(vocab=vocabulary, model_max_length=max_length)


def token_ids(
    tokenizer: Any, texts: Sequence[str], max_length: int = MAX_LENGTH, device: Any = "cpu"
) -> tuple[Any, Any]:
    """Ids and attention mask on `device`, both int64 (N, max_length), padded and cut as the
    pipelines do."""
    encoded = tokenizer(
        list(texts),
        padding="max_length",
        truncation=True,
        max_length=max_length,
        return_tensors="pt",
    )
    return encoded["input_ids"].to(device), encoded["attention_mask"].to(device)


def _byte_symbols() -> list[str]:
    """The 256 printable stand-ins for bytes, in byte order: "!" is 0, as in CLIP's vocabulary."""
    from tokenizers.pre_tokenizers import ByteLevel

    return sorted(ByteLevel.alphabet())


@cache
def _merges(whole: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """BPE merges (Sennrich et al. 2016, algorithm 1) until each of `whole` is one token.

    The commonest pair first, ties by the alphabet: `tokenizers`' own trainer breaks ties by chance,
    and then two tokenizers made of the same words would number them differently.
    """
    words = [[*word[:-1], word[-1] + "</w>"] for word in whole]
    merges: list[tuple[str, str]] = []
    while True:
        counts = Counter(pair for word in words for pair in pairwise(word))
        if not counts:
            return tuple(merges)
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        words = [_merged(word, best) for word in words]


def _merged(word: list[str], pair: tuple[str, str]) -> list[str]:
    parts: list[str] = []
    for symbol in word:
        if parts and (parts[-1], symbol) == pair:
            parts[-1] += symbol
        else:
            parts.append(symbol)
    return parts
