"""Scores of images, each computed once per metric and model, then read from the ledger."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
        reads: the fields of a row that the score depends on, besides the image.
        score: takes images, their rows and their slots (see `batching`); gives JSON-able values.
        reader: the model as a reader of texts, by its reference; None where it reads none.
        texts: what it reads of a row.
    """

    name: str
    ref: ModelRef
    reads: tuple[str, ...]
    score: Score
    reader: Callable[[ModelRef], TextReader] | None = None
    texts: TextsOf = prompt_of


def clip_score_metric(settings: Settings) -> Metric:
    """CLIPScore by the profile's CLIP; it reads `prompt`."""
    from hoi_assets.engines.clip_score import clip_text_reader

    def score(images: Sequence["Image.Image"], rows: Rows, slots: Sequence[int]) -> list[Values]:
        from hoi_assets.engines.clip_score import clip_scores, load_clip

        model = load_clip(settings.models.clip, settings.device)
        values = clip_scores(model, images, [row["prompt"] for row in rows], slots)
        return [{"clip_score": float(value)} for value in values]

    return Metric("clip_score", settings.models.clip, ("prompt",), score, clip_text_reader)


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
    for start in range(0, len(todo), CHUNK):
        chunk = todo[start : start + CHUNK]
        missing = [first_row[key] for _, key in chunk]
        images = [store.images.open(row["pixels"]) for row in missing]
        values = metric.score(images, missing, [slot for slot, _ in chunk])
        known |= store.ledger.put(
            LEDGER_KIND, {key: value for (_, key), value in zip(chunk, values, strict=True)}
        )
        log(f"{metric.name}: {start + len(chunk)}/{len(todo)} images scored")
    return [known[key] for key in keys]
