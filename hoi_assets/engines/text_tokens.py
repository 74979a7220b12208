"""How many tokens of a text each text encoder of a model reads, and which encoders cut it.

An encoder drops what stands beyond its limit, silently: an object named there is never drawn or
judged. Counting needs tokenizers and configuration files, never weights, and every text is counted
once per model.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from hoi_assets.hashing import digest
from hoi_assets.progress import Log
from hoi_assets.store.tables import Column
from hoi_assets.store.versions import Store

KIND = "token_count"
COUNTING_VERSION = "1"  # part of every count's key: raise it when texts are counted differently

# Of a table whose texts one model reads.
PROMPT_TOKENS = Column(
    "prompt_tokens",
    pl.Int64,
    "length of the text that the model reads, special tokens included; null where it reads none",
    "tokens",
    nullable=True,
)
PROMPT_CUT = Column(
    "prompt_cut",
    pl.Boolean,
    "whether the model read only the beginning of it; null as above",
    nullable=True,
)


@dataclass(frozen=True)
class TextEncoder:
    """What decides how much of a text an encoder reads.

    Attributes:
        name: of a diffusion pipeline's encoders as in diffusers, e.g. `text_encoder_2`.
        limit: most tokens that it reads, special tokens included.
        prefix, suffix: what is put around every text before it is read.
    """

    name: str
    tokenizer: Any
    limit: int
    prefix: str = ""
    suffix: str = ""


@dataclass(frozen=True)
class TextReader:
    """A model as a reader of texts.

    Attributes:
        kind: the loader; two loaders may read one model's texts in two ways.
        digest: hash of the model.
        load: reads its tokenizers; called only if a text was not counted before.
    """

    kind: str
    digest: str
    load: Callable[[], Sequence[TextEncoder]]


@dataclass(frozen=True)
class TokenCount:
    """Length of a text in tokens, special tokens included, and the most that the encoder reads."""

    tokens: int
    limit: int

    @property
    def cut(self) -> bool:
        """Whether the encoder reads only the beginning."""
        return self.tokens > self.limit


# By name of the encoder.
Counts = Mapping[str, TokenCount]


def count_tokens(tokenizer: Any, texts: Sequence[str]) -> list[int]:
    """Length of each whole text in tokens, special tokens included."""
    if not texts:
        return []
    ids = tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]
    return [len(row) for row in ids]


def cached_token_counts(
    store: Store, reader: TextReader, texts: Iterable[str]
) -> dict[str, dict[str, TokenCount]]:
    """By text the counts of every encoder of the model; from the ledger, or counted now.

    Raises:
        HoiError: a tokenizer cannot be read.
    """
    keys = {
        text: digest(
            {
                "counting": COUNTING_VERSION,
                "reader": reader.kind,
                "model": reader.digest,
                "text": text,
            }
        )
        for text in dict.fromkeys(texts)
    }
    known = store.ledger.get(KIND, keys.values())
    todo = [text for text, key in keys.items() if key not in known]
    if todo:
        found: dict[str, dict[str, list[int]]] = {keys[text]: {} for text in todo}
        for encoder in reader.load():
            whole = [f"{encoder.prefix}{text}{encoder.suffix}" for text in todo]
            for text, tokens in zip(todo, count_tokens(encoder.tokenizer, whole), strict=True):
                found[keys[text]][encoder.name] = [tokens, encoder.limit]
        known |= store.ledger.put(KIND, found)
    return {
        text: {name: TokenCount(*pair) for name, pair in known[key].items()}
        for text, key in keys.items()
    }


def longest_count(counts: Iterable[Counts]) -> TokenCount | None:
    """Of texts that one encoder reads, the count of the longest; None without a text."""
    found = [one for own in counts for one in own.values()]
    return max(found, key=lambda one: one.tokens, default=None)


def prompt_values(count: TokenCount | None) -> dict[str, Any]:
    """The columns PROMPT_TOKENS and PROMPT_CUT; nulls without a count."""
    return {
        PROMPT_TOKENS.name: None if count is None else count.tokens,
        PROMPT_CUT.name: None if count is None else count.cut,
    }


def encoder_columns(encoders: Sequence[str], nullable: str = "") -> tuple[Column, ...]:
    """Columns of a table of images: what each text encoder of the pipeline read of the prompt.

    Args:
        encoders: names as in diffusers.
        nullable: what a null count says; "" means that there is none.
    """
    why = f"; {nullable}" if nullable else ""
    return (
        *(
            Column(
                f"{name}_tokens",
                pl.Int64,
                f"length of the prompt for {name}, special tokens included{why}",
                "tokens",
                nullable=bool(nullable),
            )
            for name in encoders
        ),
        Column(
            "cut_by",
            pl.String,
            "text encoders that read only the beginning of the prompt, by comma; null: none",
            nullable=True,
        ),
        Column(
            "prompt_cut",
            pl.Boolean,
            f"whether no text encoder read the whole prompt: its end cannot be drawn{why}",
            nullable=bool(nullable),
        ),
    )


def encoder_values(counts: Counts | None, encoders: Sequence[str]) -> dict[str, Any]:
    """The columns of `encoder_columns`; nulls without counts."""
    counts = counts or {}
    cut = [name for name in encoders if name in counts and counts[name].cut]
    return {
        **{f"{name}_tokens": counts[name].tokens if name in counts else None for name in encoders},
        "cut_by": ", ".join(cut) or None,
        "prompt_cut": len(cut) == len(counts) if counts else None,
    }


def log_cut(label: str, counts: Mapping[str, Counts], log: Log) -> None:
    """Log for each encoder how many of the texts it cuts.

    Args:
        counts: by text, as of `cached_token_counts`.
    """
    limits = {name: one.limit for own in counts.values() for name, one in own.items()}
    for name, limit in limits.items():
        cut = sum(own[name].cut for own in counts.values())
        if cut:
            log(
                f"{label}: {cut} of {len(counts)} texts are longer than the {limit} tokens that "
                f"{name} reads; it ignores their ends"
            )
