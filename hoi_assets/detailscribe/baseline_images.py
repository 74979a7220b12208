"""Baselines at DetailScribe's compute (asset `baseline_images`), one module per method in
`baselines`.

An image endpoint, if one is set, draws one image per prompt; its compute is not known.
"""

import polars as pl

from hoi_assets.detailscribe.baselines.image_endpoint import draw_by_image_endpoint
from hoi_assets.detailscribe.baselines.more_seeds import draw_more_seeds, select_by_clip_score
from hoi_assets.detailscribe.baselines.refined_prompt import draw_refined_prompts
from hoi_assets.detailscribe.baselines.rewritten_prompt import draw_rewritten_prompts
from hoi_assets.detailscribe.image_rows import (
    MULTI_SEED,
    MULTI_SEED_CLIP,
    REFINE,
    REWRITE,
    image_rows_frame,
)
from hoi_assets.detailscribe.initial_images import split_refinable
from hoi_assets.detailscribe.selection import ComponentsByRow, select_by_critic
from hoi_assets.progress import Log
from hoi_assets.settings import Settings
from hoi_assets.store.versions import Store


def draw_baseline_images(
    store: Store,
    settings: Settings,
    initial: pl.DataFrame,
    components: ComponentsByRow,
    critiques: pl.DataFrame,
    log: Log,
) -> pl.DataFrame:
    """Every baseline's candidates for every initial image, one selected per method.

    | method | candidates | selected by |
    | --- | --- | --- |
    | `multi_seed` | the initial image and more seeds | critic |
    | `multi_seed_clip` | the same images | CLIPScore |
    | `rewrite` | images of the rewritten prompt | critic |
    | `refine` | the initial image, then images of the corrected prompt, from noise | critic |
    | `endpoint` | an image endpoint's one image, if one is set | none |

    Args:
        initial: rows of `initial_images`. components: by row_id.
        critiques: rows of `image_critiques`.

    Returns:
        Frame of IMAGE_ROWS.
    """
    from_endpoint = draw_by_image_endpoint(store, settings, initial.to_dicts(), log)
    methods = (MULTI_SEED, MULTI_SEED_CLIP, REWRITE, REFINE)
    refinable, corrected, failed = split_refinable(initial, critiques, components, methods)
    seeds = draw_more_seeds(store, settings, refinable, log)
    rewritten, not_rewritten = draw_rewritten_prompts(store, settings, refinable, components, log)
    records = [
        *select_by_critic(store, settings, seeds, components, log),
        *select_by_clip_score(store, settings, seeds, log),
        *select_by_critic(store, settings, rewritten, components, log),
        *not_rewritten,
        *draw_refined_prompts(store, settings, refinable, components, corrected, log),
        *failed,
        *from_endpoint,
    ]
    return image_rows_frame(store, settings, records, log)
