"""Scores of images, each computed once per metric and model, then read from the ledger."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from hoi_assets.engines.batch_map import BatchTask, Compute, in_chunks, map_batches, require_model
from hoi_assets.engines.text_tokens import TextReader, cached_token_counts, log_cut
from hoi_assets.hashing import digest
from hoi_assets.progress import Log
from hoi_assets.settings import ModelRef, Settings
from hoi_assets.store.versions import Store
from hoi_assets.store.weights import model_digest

if TYPE_CHECKING:
    from PIL import Image

SCORING_VERSION = "1"  # part of every score's key: raise it when a metric is computed differently
LEDGER_KIND = "score"
CHUNK = 128

Row = Mapping[str, Any]
Rows = Sequence[dict[str, Any]]
TextsOf = Callable[[Row], Iterable[str]]
# By name; None where the metric does not apply to the row.
Values = dict[str, float | None]
Score = Callable[[Sequence["Image.Image"], Rows, Sequence[int]], list[Values]]


def prompt_of(row: Row) -> Iterable[str]:
    """What a model reads that judges a row's image by its prompt."""
    return (row["prompt"],)


@dataclass(frozen=True)
class Metric:
    """A metric that a model computes.

    Attributes:
        name: e.g. "clip_score".
        ref: the model.
        compute: what it runs on.
        reads: the fields of a row that the score depends on, besides the image.
        score: takes images, their rows and their slots (see `batching`); gives JSON-able values.
        reader: the model as a reader of texts, by its reference; None where it reads none.
        texts: what it reads of a row.
    """

    name: str
    ref: ModelRef
    compute: Compute
    reads: tuple[str, ...]
    score: Score
    reader: Callable[[ModelRef], TextReader] | None = None
    texts: TextsOf = prompt_of


class Asked(NamedTuple):
    """An image to be scored: the score's key, its slot and its row."""

    key: str
    slot: int
    row: dict[str, Any]
    image: "Image.Image"


@dataclass(frozen=True, kw_only=True)
class ScoringTask(BatchTask[Asked, dict[str, Values]]):
    """Scores images by one model; the one result of a batch is its values by key.

    Attributes:
        digest: of the model; another one is refused.
    """

    ref: ModelRef
    digest: str
    score: Score

    def run(self, batch: Sequence[Asked]) -> Iterator[dict[str, Values]]:
        """See `BatchTask`."""
        self.compute.set_threads()
        require_model(self.ref, self.digest)
        images, rows = [one.image for one in batch], [one.row for one in batch]
        values = self.score(images, rows, [one.slot for one in batch])
        yield {one.key: value for one, value in zip(batch, values, strict=True)}


def clip_score_metric(settings: Settings) -> Metric:
    """CLIPScore by the profile's CLIP; it reads `prompt`."""
    from hoi_assets.engines.clip_score import clip_text_reader

    ref, device = settings.models.clip, settings.device

    def score(images: Sequence["Image.Image"], rows: Rows, slots: Sequence[int]) -> list[Values]:
        from hoi_assets.engines.clip_score import clip_scores, load_clip

        model = load_clip(ref, device)
        values = clip_scores(model, images, [row["prompt"] for row in rows], slots)
        return [{"clip_score": float(value)} for value in values]

    compute = Compute.of(settings)
    return Metric("clip_score", ref, compute, ("prompt",), score, clip_text_reader)


def cached_clip_scores(store: Store, settings: Settings, rows: Rows, log: Log) -> list[float]:
    """CLIPScore (0 to 2.5) of each row's image, `pixels`, against its `prompt`."""
    found = cached_scores(store, clip_score_metric(settings), rows, log)
    return [float(values["clip_score"] or 0.0) for values in found]


def cached_scores(store: Store, metric: Metric, rows: Rows, log: Log) -> list[Values]:
    """The metric's values of each row; those that the ledger lacks are computed and stored.

    How many of the texts that are read now the model cuts is logged.

    Args:
        rows: with `pixels` (digest of the image) and the fields that the metric reads. A row's
            place among them fixes its slot.
    """
    model = model_digest(metric.ref)
    keys = [
        digest(
            {
                "scoring": SCORING_VERSION,
                "judge": metric.name,
                "model": model,
                "pixels": row["pixels"],
                "asked": {name: row[name] for name in metric.reads},
            }
        )
        for row in rows
    ]
    known = store.ledger.get(LEDGER_KIND, keys)
    todo = [(slot, key) for slot, key in enumerate(dict.fromkeys(keys)) if key not in known]
    first_row = dict(zip(reversed(keys), reversed(rows), strict=True))
    if metric.reader is not None:
        texts = [text for _, key in todo for text in metric.texts(first_row[key])]
        log_cut(metric.name, cached_token_counts(store, metric.reader(metric.ref), texts), log)
    task = ScoringTask(compute=metric.compute, ref=metric.ref, digest=model, score=metric.score)

    def load(chunk: Sequence[tuple[int, str]]) -> list[Asked]:
        rows = [(key, slot, first_row[key]) for slot, key in chunk]
        return [Asked(*one, store.images.open(one[-1]["pixels"])) for one in rows]

    done = 0
    for fresh in map_batches(task, in_chunks(todo, CHUNK), load):
        known |= store.ledger.put(LEDGER_KIND, fresh)
        done += len(fresh)
        log(f"{metric.name}: {done}/{len(todo)} images scored")
    return [known[key] for key in keys]
