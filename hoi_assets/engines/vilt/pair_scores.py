"""The verifier's scores of (image, prompt) pairs, each computed once per verifier."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hoi_assets.engines.text_tokens import (
    TextReader,
    TokenCount,
    cached_token_counts,
    log_cut,
)
from hoi_assets.engines.vilt.verifier import (
    VerifierScores,
    load_verifier,
    score_key,
    score_pairs,
    vilt_text_reader,
)
from hoi_assets.progress import Log
from hoi_assets.settings import ModelRef, Settings
from hoi_assets.store.versions import Published, Store

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
    for start in range(0, len(todo), CHUNK):
        chunk = todo[start : start + CHUNK]
        found = score_pairs(
            load_published_verifier(settings, verifier),
            [store.images.open(pixels) for _, (pixels, _) in chunk],
            [prompt for _, (_, prompt) in chunk],
            [slot for slot, _ in chunk],
        )
        scores = [_stored(store, found, place) for place in range(len(chunk))]
        fresh = {keys[pair]: score for (_, pair), score in zip(chunk, scores, strict=True)}
        store.images.flush()
        stored = store.ledger.put(KIND, {key: list(score) for key, score in fresh.items()})
        known |= {key: PairScore(*values) for key, values in stored.items()}
        log(f"verifier: {start + len(chunk)}/{len(todo)} pairs scored")
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
