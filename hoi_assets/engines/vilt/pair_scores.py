"""The verifier's scores of (image, prompt) pairs, each computed once per verifier."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hoi_assets.engines.batch_map import BatchTask, Compute, in_chunks, map_batches, require_model
from hoi_assets.engines.text_tokens import (
    TextReader,
    TokenCount,
    cached_token_counts,
    log_cut,
)
from hoi_assets.engines.vilt.verifier import (
    Thresholds,
    VerifierScores,
    load_verifier,
    read_thresholds,
    score_key,
    score_pairs,
    vilt_text_reader,
)
from hoi_assets.progress import Log
from hoi_assets.settings import ModelRef, Settings
from hoi_assets.store.versions import Published, Store
from hoi_assets.store.weights import model_digest

if TYPE_CHECKING:
    from PIL import Image

KIND = "verifier_score"
CHUNK = 64
DEFECTIVE = 0.5


class PairScore(NamedTuple):
    """What the verifier says of one pair.

    Attributes:
        fidelity, alignment: calibrated probabilities.
        defect_map: digest of a stored grey picture, 0 to 255 for the probability 0 to 1 that a cell
            is defective; None where the verifier has no defect head. So are the others.
        defect_share: share of cells that are more likely defective than not.
        defect_kind: likeliest kind of defect, whatever the fidelity.
    """

    fidelity: float
    alignment: float
    defect_map: str | None = None
    defect_share: float | None = None
    defect_kind: str | None = None


class Asked(NamedTuple):
    """A pair to be scored, its slot and its image."""

    pair: tuple[str, str]
    slot: int
    image: "Image.Image"


class ScoredPairs(NamedTuple):
    """Scores of pairs, in their order."""

    pairs: list[tuple[str, str]]
    scores: VerifierScores


@dataclass(frozen=True, kw_only=True)
class PairScoring(BatchTask[Asked, ScoredPairs]):
    """Scores pairs by the verifier in its one folder; one result a batch.

    Attributes:
        digest: of the model; another one is refused.
    """

    digest: str

    def run(self, batch: Sequence[Asked]) -> Iterator[ScoredPairs]:
        """See `BatchTask`."""
        (folder,) = self.folders.values()
        self.compute.set_threads()
        require_model(ModelRef(source=folder), self.digest)
        pairs = [one.pair for one in batch]
        scores = score_pairs(
            load_verifier(folder, self.compute.device),
            [one.image for one in batch],
            [prompt for _, prompt in pairs],
            [one.slot for one in batch],
        )
        yield ScoredPairs(pairs, scores)


def _scoring_task(settings: Settings, verifier: Published) -> PairScoring:
    folder = str(verifier.file("model"))
    digest = model_digest(ModelRef(source=folder))
    return PairScoring(compute=Compute.of(settings), folders={digest: folder}, digest=digest)


def cached_pair_scores(
    store: Store,
    settings: Settings,
    pairs: list[tuple[str, str]],
    verifier: Published,
    log: Log,
) -> dict[tuple[str, str], PairScore]:
    """Scores of (pixel digest, prompt) pairs; cached in the ledger."""
    keys = {pair: score_key(pair[0], pair[1], verifier.version) for pair in pairs}
    known = {
        key: PairScore(*values) for key, values in store.ledger.get(KIND, keys.values()).items()
    }
    maps = [score.defect_map for score in known.values() if score.defect_map]
    lost = set(store.images.missing(maps))
    known = {key: score for key, score in known.items() if score.defect_map not in lost}
    todo = [
        (slot, pair) for slot, pair in enumerate(dict.fromkeys(pairs)) if keys[pair] not in known
    ]
    prompts = [prompt for _, (_, prompt) in todo]
    log_cut("verifier", cached_token_counts(store, verifier_text_reader(verifier), prompts), log)

    def load(chunk: Sequence[tuple[int, tuple[str, str]]]) -> list[Asked]:
        return [Asked(pair, slot, store.images.open(pair[0])) for slot, pair in chunk]

    done = 0
    fresh_scores = (
        map_batches(_scoring_task(settings, verifier), in_chunks(todo, CHUNK), load) if todo else ()
    )
    for fresh in fresh_scores:
        scores = {
            keys[pair]: _stored(store, fresh.scores, place)
            for place, pair in enumerate(fresh.pairs)
        }
        store.images.flush()
        stored = store.ledger.put(KIND, {key: list(score) for key, score in scores.items()})
        known |= {key: PairScore(*values) for key, values in stored.items()}
        done += len(scores)
        log(f"verifier: {done}/{len(todo)} pairs scored")
    return {pair: known[key] for pair, key in keys.items()}


def _stored(store: Store, found: VerifierScores, place: int) -> PairScore:
    """The score at `place`; its map is put into the image store."""
    fidelity, alignment = map(float, found.probabilities[place])
    if found.maps is None or found.kinds is None:
        return PairScore(fidelity, alignment)
    cells = found.maps[place]
    return PairScore(
        fidelity,
        alignment,
        store.images.put(map_picture(cells)),
        float((cells >= DEFECTIVE).mean()),
        found.kinds[place],
    )


def map_picture(cells: np.ndarray) -> "Image.Image":
    """A map (S, S) of probabilities as a grey picture of S x S pixels."""
    from PIL import Image

    return Image.fromarray(np.round(255 * cells).astype(np.uint8))


def verifier_text_reader(verifier: Published) -> TextReader:
    """What the published verifier reads of a prompt."""
    return vilt_text_reader(ModelRef(source=str(verifier.file("model"))), verifier.version)


def count_verifier_tokens(
    store: Store, prompts: Iterable[str], verifier: Published
) -> dict[str, TokenCount]:
    """What the published verifier reads of each prompt, by prompt."""
    counts = cached_token_counts(store, verifier_text_reader(verifier), prompts)
    return {prompt: own["vilt"] for prompt, own in counts.items()}


def load_published_verifier(settings: Settings, verifier: Published) -> Any:
    """The published verifier, from the model cache."""
    return load_verifier(verifier.file("model"), settings.device)


def published_thresholds(verifier: Published) -> Thresholds:
    """The published verifier's thresholds, without loading it."""
    return read_thresholds(verifier.file("model"))
