"""A VQA model's answers to questions about images, each computed once per model."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from hoi_assets.engines.batch_map import BatchTask, Compute, in_chunks, map_batches, require_model
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

if TYPE_CHECKING:
    from PIL import Image

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
        questions = [question for _, (_, question) in todo]
        log_cut("questions", cached_token_counts(store, vqa_text_reader(ref), questions), log)
    task = AnsweringTask(compute=Compute.of(settings), ref=ref, digest=model)

    def load(chunk: Sequence[tuple[int, Question]]) -> list[Asked]:
        images = {pixels: store.images.open(pixels) for _, (pixels, _) in chunk}
        return [Asked(question, slot, images[question[0]]) for slot, question in chunk]

    done = 0
    for fresh in map_batches(task, in_chunks(todo, CHUNK), load):
        known |= store.ledger.put(KIND, {keys[one]: value for one, value in fresh.items()})
        done += len(fresh)
        log(f"questions about images: {done}/{len(todo)} answered")
    return {one: known[key] for one, key in keys.items()}


class Asked(NamedTuple):
    """A question with its slot and its image."""

    question: Question
    slot: int
    image: "Image.Image"


@dataclass(frozen=True, kw_only=True)
class AnsweringTask(BatchTask[Asked, dict[Question, float]]):
    """Answers questions; the one result of a batch is its probabilities.

    Attributes:
        digest: of the model; another one is refused.
    """

    ref: ModelRef
    digest: str

    def run(self, batch: Sequence[Asked]) -> Iterator[dict[Question, float]]:
        """See `BatchTask`."""
        from hoi_assets.engines.vilt.vqa import answers, load_vqa

        self.compute.set_threads()
        require_model(self.ref, self.digest)
        values = answers(
            load_vqa(self.ref, self.compute.device),
            [one.image for one in batch],
            [one.question[1] for one in batch],
            [one.slot for one in batch],
        )
        yield {one.question: float(value) for one, value in zip(batch, values, strict=True)}


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
