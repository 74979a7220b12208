"""Baseline `refine`: a corrected prompt drawn from noise, without re-denoising.

The prompt is the critique's; under the published protocol it is one that the endpoint suggests on
seeing the initial image, without components.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from hoi_assets.detailscribe.baselines.compute import draw_candidates, new_images
from hoi_assets.detailscribe.baselines.refiner import (
    EndpointRefiner,
    RefineRequest,
    suggest_prompts,
)
from hoi_assets.detailscribe.image_rows import REFINE, Record, failed_row, redrawable_row
from hoi_assets.detailscribe.selection import (
    ComponentsByRow,
    not_selectable,
    select_by_critic,
)
from hoi_assets.engines.image_spec import ImageSpec
from hoi_assets.engines.sd3.compute import multi_seed_specs
from hoi_assets.llm.shown_image import ShownImage
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
    failed: list[Record] = []
    if settings.critic.protocol == "published":
        corrected, failed = _suggested(store, settings, initial, log)
        initial = [row for row in initial if row["row_id"] in corrected]
    wanted: dict[str, list[ImageSpec]] = {}
    for row in initial:
        prompt, plain = corrected[row["row_id"]], redrawable_row(row, settings)
        more = new_images(settings, plain)[REFINE]
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
    chosen = select_by_critic(
        store, settings, candidates, components, log, not_corrected, not_selectable(settings)
    )
    return [*chosen, *failed]


def _suggested(
    store: Store, settings: Settings, initial: Sequence[Record], log: Log
) -> tuple[dict[str, str | None], list[Record]]:
    """Prompts that the endpoint suggests, by row_id, and a failed row for each image without."""
    requests = [
        RefineRequest(row["prompt"], ShownImage.of_store(store, row["pixels"])) for row in initial
    ]
    replies = suggest_prompts(requests, EndpointRefiner(settings.critic), store.ledger, log)
    found = list(zip(initial, replies, strict=True))
    return (
        {row["row_id"]: reply.value for row, reply in found if reply.value is not None},
        [
            failed_row(row, REFINE, f"refine: {reply.reason}")
            for row, reply in found
            if reply.value is None
        ],
    )
