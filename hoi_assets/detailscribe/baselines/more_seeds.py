"""Baselines `multi_seed` and `multi_seed_clip`: the prompt drawn again with other seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from hoi_assets.detailscribe.baselines.compute import draw_candidates, new_images
from hoi_assets.detailscribe.image_rows import (
    MULTI_SEED,
    MULTI_SEED_CLIP,
    Record,
    redrawable_row,
)
from hoi_assets.engines.sd3.compute import multi_seed_specs
from hoi_assets.progress import Log
from hoi_assets.settings import Settings
from hoi_assets.store.versions import Store

CLIP_RULE = "CLIPScore against the prompt"


def draw_more_seeds(
    store: Store, settings: Settings, initial: Sequence[Record], log: Log
) -> dict[str, list[Record]]:
    """By row_id the initial image as candidate 0, then images with other seeds.

    Args:
        initial: rows of `initial_images` that can be refined.
    """
    seeds = settings.redenoising.seeds
    wanted = {
        row["row_id"]: (
            multi_seed_specs(plain, 1 + new_images(settings, plain)[MULTI_SEED])[1:]
            if seeds is None
            else [replace(plain, seed=seed) for seed in seeds[1:]]
        )
        for row in initial
        for plain in [redrawable_row(row, settings)]
    }
    drawn = draw_candidates(store, settings, initial, wanted, MULTI_SEED, 1, "more seeds", log)
    return {
        row["row_id"]: [row | {"method": MULTI_SEED, "candidate": 0}, *drawn[row["row_id"]]]
        for row in initial
    }


def select_by_clip_score(
    store: Store, settings: Settings, candidates: Mapping[str, Sequence[Record]], log: Log
) -> list[Record]:
    """The same images as method `multi_seed_clip`: the highest CLIPScore is selected, not the
    critic's choice. Of equal ones, the first.

    Args:
        candidates: of `draw_more_seeds`.
    """
    from hoi_assets.engines.cached_scores import cached_clip_scores

    drawn = [one for own in candidates.values() for one in own if one["pixels"] is not None]
    scores = {
        (one["row_id"], one["candidate"]): score
        for one, score in zip(drawn, cached_clip_scores(store, settings, drawn, log), strict=True)
    }
    records = []
    for row_id, own in candidates.items():
        scored = [one for one in own if (row_id, one["candidate"]) in scores]
        best = max(
            scored,
            key=lambda one: (scores[one["row_id"], one["candidate"]], -one["candidate"]),
            default=None,
        )
        records += [
            one
            | {
                "method": MULTI_SEED_CLIP,
                "selected": one is best,
                "why": CLIP_RULE if one is best else None,
            }
            for one in own
        ]
    return records
