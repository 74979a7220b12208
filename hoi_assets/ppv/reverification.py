"""Whether published verdicts still hold: a sample of pairs is scored afresh, from the stored
pictures, by the verifier that judged them."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from hoi_assets.engines.vilt.decision import decide
from hoi_assets.engines.vilt.pair_scores import load_published_verifier
from hoi_assets.engines.vilt.verifier import score_pairs
from hoi_assets.progress import Log
from hoi_assets.settings import Settings
from hoi_assets.store.versions import Published, Store

VERDICTS, VERIFIER = "verified_pairs", "verifier"
# Batches of other shapes and other kinds of machines differ by less.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Reverified:
    """One category.

    Attributes:
        pairs: how many were scored afresh.
        largest_difference: of a probability, now and as published.
        changed: ids of the images whose verdict is another now.
    """

    category: str
    pairs: int
    largest_difference: float
    changed: tuple[str, ...]

    @property
    def holds(self) -> bool:
        return self.largest_difference <= TOLERANCE and not self.changed


def reverify(store: Store, settings: Settings, sample: int, log: Log) -> list[Reverified]:
    """Score up to `sample` pairs of every published category afresh; no score is taken from the
    ledger, and none is stored.

    Raises:
        Damaged: a picture, or a file of a version in force, is not what was stored.
        HoiError: a picture is missing, or the verifier that judged it was pruned.
    """
    found = []
    for category in store.partitions(VERDICTS):
        published = store.require(VERDICTS, category)
        found.append(_reverify(store, settings, published, sample))
        log(f"{category}: {found[-1].pairs} pairs, at most {found[-1].largest_difference:.1e} off")
    return found


def _reverify(store: Store, settings: Settings, published: Published, sample: int) -> Reverified:
    rows = published.table("rows").filter(pl.col("p_fidelity").is_not_null())
    differences, changed = [0.0], []
    chosen = rows.filter(pl.col("image_id").is_in(_sample(rows["image_id"].to_list(), sample)))
    for version, own in _by_verifier(chosen):
        verifier = load_published_verifier(settings, store.version(VERIFIER, None, version))
        scores = score_pairs(
            verifier,
            [store.images.open(pixels) for pixels in own["pixels"]],
            own["prompt"].to_list(),
            list(range(own.height)),
        ).probabilities
        for row, score in zip(own.iter_rows(named=True), scores, strict=True):
            fidelity, alignment = map(float, score)
            differences += [
                abs(fidelity - row["p_fidelity"]),
                abs(alignment - row["p_alignment"]),
            ]
            if decide(fidelity, alignment, verifier.thresholds).status != row["status"]:
                changed.append(row["image_id"])
    return Reverified(
        str(published.partition), chosen.height, max(differences), tuple(sorted(changed))
    )


def _sample(ids: list[str], sample: int) -> list[str]:
    """The first by hash: always the same, and spread over the table."""
    return sorted(ids, key=lambda one: hashlib.sha256(one.encode()).hexdigest())[:sample]


def _by_verifier(rows: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    for (version,), own in rows.group_by("verifier_version", maintain_order=True):
        yield str(version), own
