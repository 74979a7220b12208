"""Refined images (asset `refined_images`): DetailScribe's variants, and CRAFT-like rounds.

Re-denoising (DetailScribe, arXiv 2504.08714): the first `s` denoising steps use the prompt, the
others the corrected prompt. There is one variant per switch step `s`, and all share the initial
image's seed.
"""

from collections.abc import Mapping, Sequence

import polars as pl

from hoi_assets.detailscribe.benchmark_images import draw_variants
from hoi_assets.detailscribe.craft_rounds import draw_craft_rounds
from hoi_assets.detailscribe.image_rows import (
    CRAFT,
    DETAILSCRIBE,
    Record,
    candidate_row,
    image_rows_frame,
    redrawable_row,
    variant_columns,
)
from hoi_assets.detailscribe.initial_images import split_refinable
from hoi_assets.detailscribe.selection import (
    ComponentsByRow,
    not_selectable,
    select_by_critic,
)
from hoi_assets.engines.sd3.redenoising import Redenoising
from hoi_assets.progress import Log
from hoi_assets.settings import Settings
from hoi_assets.store.versions import Store


def draw_refined_images(
    store: Store,
    settings: Settings,
    initial: pl.DataFrame,
    components: ComponentsByRow,
    critiques: pl.DataFrame,
    log: Log,
) -> pl.DataFrame:
    """Both methods' candidates for every initial image, one selected per method.

    Args:
        initial: rows of `initial_images`. components: by row_id.
        critiques: rows of `image_critiques`.

    Returns:
        Frame of IMAGE_ROWS: methods `detailscribe` (candidate 0 is the initial image, then one
        variant per switch step) and `craft` (one candidate per round).
    """
    refinable, corrected, failed = split_refinable(
        initial, critiques, components, (DETAILSCRIBE, CRAFT)
    )
    records = [
        *_draw_switch_step_variants(store, settings, refinable, components, corrected, log),
        *draw_craft_rounds(store, settings, refinable, components, log),
        *failed,
    ]
    return image_rows_frame(store, settings, records, log)


def _draw_switch_step_variants(
    store: Store,
    settings: Settings,
    initial: Sequence[Record],
    components: ComponentsByRow,
    corrected: Mapping[str, str | None],
    log: Log,
) -> list[Record]:
    refinements = {
        row["row_id"]: Redenoising(redrawable_row(row, settings), prompt)
        for row in initial
        if (prompt := corrected[row["row_id"]]) is not None
    }
    label = f"variants of {initial[0]['scenario']}" if initial else "variants"
    drawn = draw_variants(store, settings, list(refinements.values()), label, log)
    variants = dict(zip(refinements, drawn, strict=True))
    candidates = {
        row["row_id"]: [
            row | {"method": DETAILSCRIBE, "candidate": 0},
            *(
                candidate_row(row, DETAILSCRIBE, number, variant_columns(variant))
                for number, variant in enumerate(variants.get(row["row_id"], ()), start=1)
            ),
        ]
        for row in initial
    }
    not_corrected = candidates.keys() - refinements.keys()
    return select_by_critic(
        store, settings, candidates, components, log, not_corrected, not_selectable(settings)
    )
