"""Baseline `refine`: the critique's corrected prompt drawn from noise, without re-denoising."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from hoi_assets.detailscribe.baselines.compute import draw_candidates, images_within_budget
from hoi_assets.detailscribe.image_rows import REFINE, Record, redrawable_row
from hoi_assets.detailscribe.selection import ComponentsByRow, select_by_critic
from hoi_assets.engines.image_spec import ImageSpec
from hoi_assets.engines.sd3.compute import multi_seed_specs
from hoi_assets.progress import Log
from hoi_assets.settings import Settings
from hoi_assets.store.versions import Store


def draw_refined_prompts(
    store: Store,
    settings: Settings,
    initial: Sequence[Record],
    components: ComponentsByRow,
    corrected: Mapping[str, str | None],
    log: Log,
) -> list[Record]:
    """The initial image as candidate 0, then images of the corrected prompt; the critic selects.

    Args:
        initial: rows of `initial_images` that can be refined. components: by row_id.
        corrected: corrected prompts by row_id; None: nothing to correct.
    """
    wanted: dict[str, list[ImageSpec]] = {}
    for row in initial:
        prompt, plain = corrected[row["row_id"]], redrawable_row(row, settings)
        more = images_within_budget(settings, plain) - 1
        wanted[row["row_id"]] = (
            []
            if prompt is None or not more
            else multi_seed_specs(replace(plain, prompt=prompt), more)
        )
    drawn = draw_candidates(store, settings, initial, wanted, REFINE, 1, "refined prompts", log)
    candidates = {
        row["row_id"]: [row | {"method": REFINE, "candidate": 0}, *drawn[row["row_id"]]]
        for row in initial
    }
    not_corrected = [row_id for row_id, own in drawn.items() if not own]
    return select_by_critic(store, settings, candidates, components, log, not_corrected)
