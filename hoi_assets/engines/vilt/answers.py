"""A VQA model's answers to questions about images, each computed once per model."""

from collections.abc import Iterable, Sequence

from hoi_assets.engines.text_tokens import (
    TextReader,
    TokenCount,
    cached_token_counts,
    log_cut,
)
from hoi_assets.hashing import digest
from hoi_assets.progress import Log
from hoi_assets.settings import ModelRef, Settings
from hoi_assets.store.versions import Store
from hoi_assets.store.weights import model_digest

KIND = "answer"
ANSWERING_VERSION = "1"  # part of every answer's key: raise it when a model is asked differently
CHUNK = 256

Question = tuple[str, str]  # pixel digest, question


def cached_answers(
    store: Store, settings: Settings, ref: ModelRef, asked: Sequence[Question], log: Log
) -> dict[Question, float]:
    """Probability of yes, 0 to 1, by (pixel digest, question); from the ledger, or computed now.

    Of a question that is longer than the model reads, only the beginning counts; their number is
    logged.

    Raises:
        HoiError: the model cannot be loaded.
    """
    model = model_digest(ref)
    keys = {
        one: digest(
            {
                "answering": ANSWERING_VERSION,
                "model": model,
                "pixels": one[0],
                "question": one[1],
            }
        )
        for one in asked
    }
    known = store.ledger.get(KIND, keys.values())
    todo = [(slot, one) for slot, one in enumerate(keys) if keys[one] not in known]
    if todo:
        from hoi_assets.engines.vilt.vqa import answers, load_vqa

        vqa = load_vqa(ref, settings.device)
        questions = [question for _, (_, question) in todo]
        log_cut("questions", cached_token_counts(store, vqa_text_reader(ref), questions), log)
    for start in range(0, len(todo), CHUNK):
        chunk = todo[start : start + CHUNK]
        pictures = {pixels: store.images.open(pixels) for _, (pixels, _) in chunk}
        values = answers(
            vqa,
            [pictures[pixels] for _, (pixels, _) in chunk],
            [question for _, (_, question) in chunk],
            [slot for slot, _ in chunk],
        )
        known |= store.ledger.put(
            KIND,
            {keys[one]: float(value) for (_, one), value in zip(chunk, values, strict=True)},
        )
        log(f"questions about images: {start + len(chunk)}/{len(todo)} answered")
    return {one: known[key] for one, key in keys.items()}


def vqa_text_reader(ref: ModelRef) -> TextReader:
    """What a VQA model reads of a question."""
    from hoi_assets.engines.vilt.verifier import vilt_text_reader

    return vilt_text_reader(ref, model_digest(ref))


def count_question_tokens(
    store: Store, ref: ModelRef, questions: Iterable[str]
) -> dict[str, TokenCount]:
    """What a VQA model reads of each question, by question.

    Raises:
        HoiError: its tokenizer cannot be read.
    """
    counts = cached_token_counts(store, vqa_text_reader(ref), questions)
    return {question: own["vilt"] for question, own in counts.items()}
