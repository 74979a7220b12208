"""Refined images (asset `refined_images`): DetailScribe's variants, CRAFT-like rounds, and local
repair and an image-editing model where they are set.

Re-denoising (DetailScribe, arXiv 2504.08714): the first `s` denoising steps use the prompt, the
others the corrected prompt. There is one variant per switch step `s`, and all share the initial
image's seed.
"""

from collections.abc import Mapping, Sequence

import polars as pl

from hoi_assets.detailscribe.benchmark_images import draw_variants
from hoi_assets.detailscribe.craft_rounds import draw_craft_rounds
from hoi_assets.detailscribe.image_edit import draw_image_edits
from hoi_assets.detailscribe.image_rows import (
    CRAFT,
    DETAILSCRIBE,
    IMAGE_EDIT,
    LOCAL_REPAIR,
    Record,
    candidate_row,
    image_rows_frame,
    redrawable_row,
    variant_columns,
)
from hoi_assets.detailscribe.initial_images import split_refinable
from hoi_assets.detailscribe.local_repair import draw_local_repairs
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
) -> dict[str, pl.DataFrame]:
    """Every method's candidates for every initial image, one selected per method.

    Args:
        initial: rows of `initial_images`. components: by row_id.
        critiques: rows of `image_critiques`.

    Returns:
        By name of the table: `rows`, a frame of IMAGE_ROWS: methods `detailscribe` (candidate 0 is
        the initial image, then one variant per switch step), `craft` (one candidate per round) and,
        where they are set, `local_repair` (the initial image, then its repairs), with table
        REPAIRS, and `image_edit` (the initial image, then its edits), with table EDITS.
    """
    methods = [DETAILSCRIBE, CRAFT]
    if settings.local_repair is not None:
        methods.append(LOCAL_REPAIR)
    if settings.models.editor is not None:
        methods.append(IMAGE_EDIT)
    refinable, corrected, failed = split_refinable(initial, critiques, components, methods)
    records = [
        *_draw_switch_step_variants(store, settings, refinable, components, corrected, log),
        *draw_craft_rounds(store, settings, refinable, components, log),
    ]
    tables: dict[str, pl.DataFrame] = {}
    if settings.local_repair is not None:
        repaired = draw_local_repairs(
            store, settings, settings.local_repair, refinable, components, corrected, log
        )
        records += repaired.records
        tables["repairs"] = repaired.repairs
    if settings.models.editor is not None:
        edited = draw_image_edits(store, settings, refinable, components, log)
        records += edited.records
        tables["edits"] = edited.edits
    return {"rows": image_rows_frame(store, settings, [*records, *failed], log), **tables}


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
