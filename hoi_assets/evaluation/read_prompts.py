"""How much of its text each metric's model read: a score of a cut text is not of the whole one."""

from collections.abc import Iterable, Iterator

from hoi_assets.engines.cached_scores import Row, TextsOf, prompt_of
from hoi_assets.engines.text_tokens import (
    TextReader,
    TokenCount,
    cached_token_counts,
    longest_count,
)
from hoi_assets.evaluation.component_judges import component_judges
from hoi_assets.settings import Settings
from hoi_assets.store.versions import Published, Store


def count_read_tokens(
    store: Store, settings: Settings, rows: Iterable[Row], verifier: Published | None = None
) -> list[dict[str, TokenCount]]:
    """For each row the count by metric; of several texts, e.g. questions, that of the longest.

    A metric is absent where its model reads no text, or is behind an endpoint.

    Args:
        rows: with `prompt`, and `phrases` and `questions` as far as `score_rows` reads them.

    Raises:
        HoiError: a tokenizer cannot be read.
    """
    known = list(rows)
    found: list[dict[str, TokenCount]] = [{} for _ in known]
    for metrics, reader, texts_of in _readers(settings, verifier):
        texts = [list(texts_of(row)) for row in known]
        counts = cached_token_counts(store, reader, (text for own in texts for text in own))
        for own, by_metric in zip(texts, found, strict=True):
            longest = longest_count(counts[text] for text in own)
            if longest is not None:
                by_metric |= dict.fromkeys(metrics, longest)
    return found


def _readers(
    settings: Settings, verifier: Published | None
) -> Iterator[tuple[tuple[str, ...], TextReader, TextsOf]]:
    """Metrics, the model behind them, and the texts that it reads of a row."""
    from hoi_assets.engines.blip_vqa import blip_text_reader
    from hoi_assets.engines.clip_score import clip_text_reader
    from hoi_assets.engines.image_reward import image_reward_text_reader
    from hoi_assets.engines.vilt.answers import vqa_text_reader
    from hoi_assets.engines.vilt.pair_scores import verifier_text_reader

    models = settings.models
    yield ("clip_score",), clip_text_reader(models.clip), prompt_of
    yield ("image_reward",), image_reward_text_reader(models.image_reward), prompt_of
    if verifier is not None:
        yield ("verifier_fidelity", "verifier_alignment"), verifier_text_reader(verifier), prompt_of
    if models.blip_vqa is not None:
        yield ("blip_vqa",), blip_text_reader(models.blip_vqa), phrases_of
    for name, critic, _ in component_judges(settings):
        yield (name,), vqa_text_reader(critic), _questions


def phrases_of(row: Row) -> Iterable[str]:
    """The noun phrases that BLIP-VQA is asked about; none where they are not known."""
    phrases: Iterable[str] = row.get("phrases", ())
    return phrases


def _questions(row: Row) -> Iterable[str]:
    questions: Iterable[str] = row.get("questions", ())
    return questions
