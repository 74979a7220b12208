"""Prompts that are longer than CLIP reads, encoded in chunks.

CLIP reads 77 tokens, two of them special. A longer prompt is split between words into chunks that
each fit; every chunk is encoded alone and their embeddings are joined along the tokens, as Stable
Diffusion's user interfaces do. The pooled embedding stays that of the prompt's beginning.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, TypeVar

# Beyond so many the prompt is cut.
MAX_CHUNKS = 8
WORD_END = "</w>"

Item = TypeVar("Item")


def token_limit(limit: int) -> int:
    """Most tokens that are read in chunks, special tokens included.

    Args:
        limit: those of one chunk.
    """
    return MAX_CHUNKS * (limit - 2) + 2


def clip_chunks(tokenizer: Any, text: str, limit: int) -> list[list[int]]:
    """Token ids of each chunk of a text, without special tokens; at least one chunk.

    Args:
        limit: most tokens of a chunk, special tokens included.
    """
    ids = tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
    chunks: list[list[int]] = []
    while len(ids) > limit - 2 and len(chunks) < MAX_CHUNKS - 1:
        tokens = tokenizer.convert_ids_to_tokens(ids[: limit - 2])
        ends = [place for place, token in enumerate(tokens, 1) if token.endswith(WORD_END)]
        size = ends[-1] if ends else limit - 2  # one word of more than a chunk is split
        chunks.append(ids[:size])
        ids = ids[size:]
    return [*chunks, ids[: limit - 2]]


def encode_chunks(text: str, encoders: Sequence[tuple[Any, Any]], limit: int, device: str) -> Any:
    """Embeddings (1, chunks * limit, joined width): the last hidden state but one.

    Args:
        encoders: tokenizer and text encoder of each CLIP.
        limit: tokens of a chunk, special tokens and padding included.
    """
    import torch

    by_encoder = [clip_chunks(tokenizer, text, limit) for tokenizer, _ in encoders]
    count = max(len(chunks) for chunks in by_encoder)
    states = []
    for (tokenizer, encoder), chunks in zip(encoders, by_encoder, strict=True):
        rows = []
        for ids in [*chunks, *[[]] * (count - len(chunks))]:
            row = [tokenizer.bos_token_id, *ids, tokenizer.eos_token_id]
            rows.append(row + [tokenizer.pad_token_id] * (limit - len(row)))
        # One by one, as whole prompts are: bits depend on the batch.
        found = [
            encoder(torch.tensor([row], device=device), output_hidden_states=True).hidden_states[-2]
            for row in rows
        ]
        states.append(torch.cat(found, dim=1))
    return torch.cat(states, dim=-1)


def lengthened(embeds: Any, tokens: int, chunk: Any, tail: int = 0) -> Any:
    """Embeddings (rows, n, width) of `tokens` tokens: chunks of an empty text are put at the end.

    Zeros, which stand for no text at all, are lengthened by zeros.

    Args:
        chunk: embeddings (1, limit, width) of an empty text.
        tail: tokens at the end that stay there, such as T5's.
    """
    import torch

    missing = (tokens - embeds.shape[1]) // chunk.shape[1]
    if missing <= 0:
        return embeds
    filling = chunk if embeds.any() else torch.zeros_like(chunk)
    filling = filling.expand(len(embeds), -1, -1)
    split = embeds.shape[1] - tail
    return torch.cat([embeds[:, :split], *[filling] * missing, embeds[:, split:]], dim=1)


def grouped(items: Iterable[Item], key: Callable[[Item], Hashable]) -> list[list[Item]]:
    """Items of equal key together, in order: embeddings of one batch have one length, so that an
    image does not depend on its neighbours' prompts."""
    groups: dict[Hashable, list[Item]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return list(groups.values())
