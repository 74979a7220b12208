"""BLIP-VQA of (image, prompt) pairs: the product of P(yes) over the prompt's noun phrases.

T2I-CompBench's metric of attribute binding (Huang et al. 2023, arXiv 2307.06350). As published: a
BLIP for visual question answering is asked "<noun phrase>?" for each noun phrase; P(yes) is the
probability, over the whole vocabulary, that the answer's first token is "yes"; the score is the
product. Not as published:

- Noun phrases are the subjects and objects of the prompt's components, not the noun chunks of a
  spaCy parse, which would need another model; each is asked once.
- BLIP is transformers' `BlipForQuestionAnswering`: the question begins with [CLS], where the
  authors' code puts [ENC], and the image size is that of the weights (384 px, there 480).
- Questions are not padded, so that P(yes) is that of the question alone; there the padding of a
  batch is attended to.
- A prompt without noun phrases has no score; there it counts as 1.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from PIL import Image

from hoi_assets.engines.batching import map_fixed
from hoi_assets.engines.model_cache import Source, load_cached, move_to_device
from hoi_assets.engines.pretrained import (
    content_digest,
    processor_facts,
    read_model,
    read_processor,
    require_files,
    tokenizer_facts,
)
from hoi_assets.engines.text_tokens import TextEncoder, TextReader
from hoi_assets.errors import HoiError
from hoi_assets.settings import ModelRef
from hoi_assets.store.weights import model_digest

BATCH_SIZE = 16
MAX_QUESTION_TOKENS = 35  # as BLIP was trained on questions
QUESTION_END = "?"
YES = "yes"

_POSSESSIVES = frozenset({"my", "your", "his", "her", "its", "our", "their"})
_PRONOUNS = _POSSESSIVES | {
    *("i", "me", "you", "he", "him", "she", "it", "we", "us", "they", "them"),
    *("this", "that", "these", "those", "who", "whom", "which", "what"),
    *("one", "another", "each", "other", "both"),
    *("himself", "herself", "itself", "themselves"),
    *("someone", "somebody", "something", "everyone", "everything", "nobody", "nothing"),
}
# The phrases that T2I-CompBench leaves out as well.
_PLACES = frozenset({"top", "the side", "the left", "the right"})


class ComponentParts(Protocol):
    """The parts of a component that are read (`hoi_assets.detailscribe.components.Component`)."""

    @property
    def subject(self) -> str: ...

    @property
    def object(self) -> str: ...


@dataclass(frozen=True)
class BlipVqaModel:
    """A loaded BLIP for questions. `yes`: the token of the answer yes."""

    model: Any
    tokenizer: Any
    image_processor: Any
    yes: int
    device: str = "cpu"

    @property
    def modules(self) -> tuple[Any, ...]:
        """The weights, as the model cache counts them."""
        return (self.model,)

    @property
    def max_text_tokens(self) -> int:
        """Questions are cut beyond this many tokens."""
        return _question_limit(self.model.config)

    @cached_property
    def digest(self) -> str:
        """Hash of weights, tokenizer and preprocessing."""
        facts = {
            "tokenizer": tokenizer_facts(self.tokenizer),
            "image": processor_facts(self.image_processor),
        }
        return content_digest(self.model.state_dict(), facts)


def load_blip_vqa(source: Source, device: str = "cpu") -> BlipVqaModel:
    """Load a BLIP-VQA from a ModelRef or folder; cached by `model_cache`.

    Raises:
        HoiError: missing or misshapen weights, or a tokenizer without the word yes.
    """
    return load_cached("blip_vqa", source, device, _load)


def blip_text_reader(ref: ModelRef) -> TextReader:
    """What a BLIP-VQA reads of the noun phrases that it is asked about."""

    def load() -> tuple[TextEncoder]:
        from transformers import AutoTokenizer, BlipConfig

        limit = _question_limit(read_processor(BlipConfig, ref))
        tokenizer = read_processor(AutoTokenizer, ref)
        return (TextEncoder("blip_vqa", tokenizer, limit, suffix=QUESTION_END),)

    return TextReader("blip_vqa", model_digest(ref), load)


def _question_limit(config: Any) -> int:
    return min(MAX_QUESTION_TOKENS, int(config.text_config.max_position_embeddings))


def _load(ref: ModelRef, device: str) -> BlipVqaModel:
    from transformers import AutoTokenizer, BlipForQuestionAnswering, BlipImageProcessorPil

    require_files(ref, ("config.json", "model.safetensors", "tokenizer_config.json"))
    model = read_model(BlipForQuestionAnswering, ref)
    tokenizer = read_processor(AutoTokenizer, ref)
    yes = tokenizer.convert_tokens_to_ids(YES)
    if yes is None or yes == tokenizer.unk_token_id:
        raise HoiError(
            f"BLIP-VQA {ref.source}: its tokenizer has no word {YES!r}",
            "name an English BLIP for visual question answering under models.blip_vqa",
        )
    move_to_device([model], device)
    return BlipVqaModel(
        model=model,
        tokenizer=tokenizer,
        image_processor=read_processor(BlipImageProcessorPil, ref),
        yes=yes,
        device=device,
    )


def blip_vqa_scores(
    blip: BlipVqaModel,
    images: Sequence[Image.Image],
    phrases: Sequence[Sequence[str]],
    slots: Sequence[int] | None = None,
    batch_size: int = BATCH_SIZE,
) -> np.ndarray:
    """BLIP-VQA of each image, 0..1: the product of P(yes) over its noun phrases.

    Args:
        images: of any size; resized to the model's side, aspect ratio not kept, as published.
        phrases: of each image, see `noun_phrases`.
        slots: place of each image in its whole table (see `batching`).

    Returns:
        float64 (N,); NaN where an image has no phrases.
    """
    if len(images) != len(phrases):
        raise ValueError(f"{len(images)} images for the phrases of {len(phrases)}")
    owners, places, asked = flatten_pairs(phrases, slots)
    questions = [f"{phrase}{QUESTION_END}" for phrase in asked]
    tokens = _tokens(blip, questions)
    p_yes = np.zeros(len(questions))
    # By length, since padding would be attended to: transformers 5.23 drops the mask on the way.
    for length in sorted({len(own) for own in tokens}):
        alike = [item for item, own in enumerate(tokens) if len(own) == length]

        def compute(items: list[int], alike: list[int] = alike) -> np.ndarray:
            chosen = [alike[item] for item in items]
            return _p_yes(blip, [images[owners[c]] for c in chosen], [tokens[c] for c in chosen])

        p_yes[alike] = map_fixed(len(alike), batch_size, compute, [places[item] for item in alike])
    values = np.full(len(images), np.nan)
    for owner, p in zip(owners, p_yes, strict=True):
        values[owner] = p if np.isnan(values[owner]) else values[owner] * p
    return values


def flatten_pairs(
    texts: Sequence[Sequence[str]], slots: Sequence[int] | None = None
) -> tuple[list[int], list[int], list[str]]:
    """Flatten the texts of all images into pairs: image indices, slots, and texts.

    A pair's slot depends on its image's slot and its own index alone; pairs of neighbouring images
    fall on different places of a batch, so that batches fill.

    >>> flatten_pairs([["a hand", "a cup"], [], ["a box"]], [4, 5, 6])
    ([0, 0, 2], [4, 5, 6], ['a hand', 'a cup', 'a box'])
    """
    slots = range(len(texts)) if slots is None else slots
    pairs = [
        (owner, slot + number, text)
        for owner, (own, slot) in enumerate(zip(texts, slots, strict=True))
        for number, text in enumerate(own)
    ]
    return [p[0] for p in pairs], [p[1] for p in pairs], [p[2] for p in pairs]


def _tokens(blip: BlipVqaModel, questions: list[str]) -> list[list[int]]:
    if not questions:
        return []
    cut = blip.tokenizer(questions, truncation=True, max_length=blip.max_text_tokens)
    return [list(own) for own in cut["input_ids"]]


def _p_yes(blip: BlipVqaModel, images: list[Image.Image], questions: list[list[int]]) -> np.ndarray:
    """P(yes) of each pair, (B,); questions as tokens, all of one length."""
    import torch

    words = torch.tensor(questions, device=blip.device)
    pictures = [image.convert("RGB") for image in images]
    pixels = blip.image_processor(pictures, return_tensors="pt")["pixel_values"]
    model = blip.model
    with torch.inference_mode():
        seen = model.vision_model(pixel_values=pixels.to(blip.device, model.dtype))
        picture = seen.last_hidden_state
        everywhere = torch.ones(picture.shape[:2], dtype=torch.long, device=blip.device)
        question = model.text_encoder(
            input_ids=words,
            attention_mask=torch.ones_like(words),
            encoder_hidden_states=picture,
            encoder_attention_mask=everywhere,
        ).last_hidden_state
        begin = torch.full(
            (len(questions), 1), model.decoder_start_token_id, device=blip.device, dtype=torch.long
        )
        logits = model.text_decoder(
            input_ids=begin,
            encoder_hidden_states=question,
            encoder_attention_mask=torch.ones_like(words),
            use_cache=False,
        ).logits[:, -1]
        return logits.double().softmax(-1)[:, blip.yes].cpu().numpy()


def noun_phrases(components: Sequence[ComponentParts]) -> tuple[str, ...]:
    """Subjects and objects of the components in order, each once, without pronouns.

    "the spoon" is "a red spoon" where that is named; "its paw" is asked for as "paw".

    Example:
        >>> from hoi_assets.detailscribe.flat_form import from_flat
        >>> noun_phrases(from_flat("(a hand holds a red spoon) + (the spoon stirs in it)"))
        ('a hand', 'a red spoon')
    """
    named = [
        words for one in components for words in map(_without_pronouns, (one.subject, one.object))
    ]
    first = {_bare(words): words for words in reversed(named) if words}
    bare = dict.fromkeys(_bare(words) for words in named if words)
    kept = [first[one] for one in bare]
    return tuple(
        words
        for words in kept
        if not (
            words.casefold().startswith("the ")
            and any(_bare(other).endswith(f" {_bare(words)}") for other in kept)
        )
    )


def _without_pronouns(phrase: str) -> str:
    """The phrase without leading possessives; empty where nothing but pronouns is left."""
    words = phrase.split()
    while len(words) > 1 and words[0].casefold() in _POSSESSIVES:
        words = words[1:]
    said = " ".join(words)
    if said.casefold() in _PLACES or all(word.casefold() in _PRONOUNS for word in words):
        return ""
    return said


def _bare(phrase: str) -> str:
    return re.sub(r"^(?:a|an|the) ", "", phrase.casefold())
