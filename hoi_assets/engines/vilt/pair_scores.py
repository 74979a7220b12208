"""The verifier's scores of (image, prompt) pairs, each computed once per verifier."""

from collections.abc import Iterable
from typing import Any

from hoi_assets.engines.text_tokens import TokenCount, cached_token_counts
from hoi_assets.engines.vilt.verifier import (
    load_verifier,
    score_key,
    score_pairs,
    truncated,
    vilt_text_reader,
)
from hoi_assets.progress import Log
from hoi_assets.settings import ModelRef, Settings
from hoi_assets.store.versions import Published, Store

KIND = "verifier_score"
CHUNK = 64


def cached_pair_scores(
    store: Store,
    settings: Settings,
    pairs: list[tuple[str, str]],
    verifier: Published,
    log: Log,
) -> dict[tuple[str, str], tuple[float, float]]:
    """Calibrated (fidelity, alignment) of (pixel digest, prompt) pairs; cached in the ledger."""
    keys = {pair: score_key(pair[0], pair[1], verifier.version) for pair in pairs}
    known = store.ledger.get(KIND, keys.values())
    todo = [
        (slot, pair) for slot, pair in enumerate(dict.fromkeys(pairs)) if keys[pair] not in known
    ]
    if todo and (
        cut := truncated(
            load_published_verifier(settings, verifier), [prompt for _, (_, prompt) in todo]
        )
    ):
        log(f"verifier: {len(cut)} prompts are longer than the model reads; their ends are ignored")
    for start in range(0, len(todo), CHUNK):
        chunk = todo[start : start + CHUNK]
        found = score_pairs(
            load_published_verifier(settings, verifier),
            [store.images.open(pixels) for _, (pixels, _) in chunk],
            [prompt for _, (_, prompt) in chunk],
            [slot for slot, _ in chunk],
        )
        known |= store.ledger.put(
            KIND,
            {
                keys[pair]: [float(fidelity), float(alignment)]
                for (_, pair), (fidelity, alignment) in zip(chunk, found, strict=True)
            },
        )
        log(f"verifier: {start + len(chunk)}/{len(todo)} pairs scored")
    return {pair: (known[key][0], known[key][1]) for pair, key in keys.items()}


def count_verifier_tokens(
    store: Store, prompts: Iterable[str], verifier: Published
) -> dict[str, TokenCount]:
    """What the published verifier reads of each prompt, by prompt."""
    ref = ModelRef(source=str(verifier.file("model")))
    counts = cached_token_counts(store, vilt_text_reader(ref, verifier.version), prompts)
    return {prompt: own["vilt"] for prompt, own in counts.items()}


def load_published_verifier(settings: Settings, verifier: Published) -> Any:
    """The published verifier, from the model cache."""
    return load_verifier(verifier.file("model"), settings.device)
