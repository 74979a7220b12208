"""Method `local_repair`: only what looks wrong in the initial image is drawn again (inpainting).

It spends what re-denoising spends: as many repairs, each with its own noise, as the denoiser
evaluations (NFE) of the variants pay for.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from hoi_assets.detailscribe.baselines.compute import evaluation_budget
from hoi_assets.detailscribe.benchmark_images import benchmark_model
from hoi_assets.detailscribe.image_rows import (
    LOCAL_REPAIR,
    Record,
    candidate_row,
    image_columns,
    redrawable_row,
)
from hoi_assets.detailscribe.repair_masks import RepairMask, repair_masks
from hoi_assets.detailscribe.selection import (
    SELECTION_RULE,
    ComponentsByRow,
    critique_candidates,
    select_by_critic,
)
from hoi_assets.engines.batch_sizes import recorded_at_once, settle_batch_size
from hoi_assets.engines.image_cache import CachedImage, get_or_generate
from hoi_assets.engines.image_spec import in_batches_of
from hoi_assets.engines.image_writing import NewImage
from hoi_assets.engines.inpainting import (
    INPAINT,
    InpaintSpec,
    inpaint_images,
    inpaint_key,
    is_sdxl,
    load_inpainting_model,
    try_repair_batch,
)
from hoi_assets.engines.sd3.compute import SCHEDULER as SD3_SCHEDULER
from hoi_assets.engines.sd3.compute import denoiser_evaluations, multi_seed_specs
from hoi_assets.progress import Log
from hoi_assets.settings import LocalRepair, ModelRef, Settings
from hoi_assets.store.tables import Column, Table
from hoi_assets.store.versions import Store
from hoi_assets.store.weights import model_digest
from hoi_assets.taxonomy import ID_LENGTH

NO_MASK = f"{SELECTION_RULE}; nothing to repair: the initial picture stands"
SDXL_SCHEDULER = "euler"

REPAIRS = Table(
    "repairs",
    "what local repair drew again in one initial image",
    (
        Column("row_id", pl.String, "row of interacting_prompts"),
        Column("source", pl.String, "what the mask comes from: critic or verifier"),
        Column(
            "mask",
            pl.String,
            "digest of a picture, white where it was drawn again; null: nowhere",
            nullable=True,
        ),
        Column("mask_share", pl.Float64, "share of the picture that was drawn again", "0..1"),
        Column("steps", pl.Int64, "denoising steps of a repair, the last ones", "steps"),
        Column("picture", pl.String, "digest of the initial image's pixels"),
    ),
    key=("row_id",),
    optional=True,
)


@dataclass(frozen=True)
class Repaired:
    """Candidates of all rows with one selected per row, and a row of REPAIRS for each."""

    records: list[Record]
    repairs: pl.DataFrame


def draw_local_repairs(
    store: Store,
    settings: Settings,
    options: LocalRepair,
    initial: Sequence[Record],
    components: ComponentsByRow,
    corrected: Mapping[str, str | None],
    log: Log,
) -> Repaired:
    """The initial image as candidate 0, then repairs of it; the critic selects.

    The new part is drawn under the corrected prompt, or under the prompt where the verifier sees a
    defect and the critic nothing to correct.

    Args:
        initial: rows of `initial_images` that can be refined. components: by row_id.
        corrected: corrected prompts by row_id; None: nothing to correct.

    Raises:
        HoiError: a model that is needed is not set, or gives no map.
    """
    critiques = critique_candidates(store, settings, initial, components, log)
    masks = repair_masks(store, settings, options, initial, critiques, log)
    scheduler = SDXL_SCHEDULER if is_sdxl(repair_model(settings)) else SD3_SCHEDULER
    specs = {
        row["row_id"]: _specs(
            settings, options, scheduler, row, masks[row["row_id"]], corrected[row["row_id"]]
        )
        for row in initial
    }
    drawn = _draw(store, settings, specs, log)
    candidates = {
        row["row_id"]: [
            row | {"method": LOCAL_REPAIR, "candidate": 0},
            *(
                candidate_row(row, LOCAL_REPAIR, number, columns)
                for number, columns in enumerate(drawn[row["row_id"]], start=1)
            ),
        ]
        for row in initial
    }
    records = [
        one | {"why": NO_MASK} if one["selected"] and not specs[one["row_id"]] else one
        for one in select_by_critic(store, settings, candidates, components, log)
    ]
    repairs = REPAIRS.frame(
        {
            "row_id": row["row_id"],
            "source": options.mask,
            "mask": masks[row["row_id"]].pixels,
            "mask_share": masks[row["row_id"]].share,
            "steps": repair_steps(options.strength, row["num_inference_steps"]),
            "picture": row["pixels"],
        }
        for row in initial
    )
    return Repaired(records, repairs)


def repair_model(settings: Settings) -> ModelRef:
    """What draws the new part: `models.repair`, else the benchmark model."""
    return settings.models.repair or benchmark_model(settings)


def repair_steps(strength: float, of: int) -> int:
    """How many of a picture's denoising steps a repair runs; at least one."""
    return max(1, round(strength * of))


def _specs(
    settings: Settings,
    options: LocalRepair,
    scheduler: str,
    row: Record,
    mask: RepairMask,
    corrected: str | None,
) -> list[InpaintSpec]:
    """As many repairs as the budget pays for; none without a mask."""
    if mask.pixels is None:
        return []
    plain = redrawable_row(row, settings)
    steps = repair_steps(options.strength, plain.steps)
    first = replace(plain, prompt=corrected or plain.prompt, scheduler=scheduler)
    one = InpaintSpec(first, row["pixels"], mask.pixels, steps)
    left = evaluation_budget(settings, plain) - denoiser_evaluations(plain)
    count = max(1, left // one.denoiser_evaluations)
    # The initial image's own seed is spent: its noise gave the fault.
    return [replace(one, row=each) for each in multi_seed_specs(first, count + 1)[1:]]


def _draw(
    store: Store, settings: Settings, specs: Mapping[str, Sequence[InpaintSpec]], log: Log
) -> dict[str, list[dict[str, Any]]]:
    """By row_id the columns of its repairs, found in the image cache or drawn now."""
    ref = repair_model(settings)
    base = model_digest(ref)
    keys = {row_id: [inpaint_key(one, base) for one in own] for row_id, own in specs.items()}
    wanted = {
        key: one
        for row_id, own in keys.items()
        for key, one in zip(own, specs[row_id], strict=True)
    }
    found = get_or_generate(
        store,
        wanted,
        _generate(store, settings, ref, base, log),
        recorded_at_once(settings.redenoising.batch_size),
        "local repairs",
        log,
    )
    return {
        row_id: [
            image_columns(
                CachedImage(wanted[key].row, key[:ID_LENGTH], base, found[key]),
            )
            | {"denoiser_evaluations": wanted[key].denoiser_evaluations}
            for key in own
        ]
        for row_id, own in keys.items()
    }


def _generate(
    store: Store, settings: Settings, ref: ModelRef, base: str, log: Log
) -> Callable[[Sequence[InpaintSpec]], Iterator[NewImage]]:

    def draw(missing: Sequence[InpaintSpec]) -> Iterator[NewImage]:
        from hoi_assets.engines.device import configure_torch

        loaded = load_inpainting_model(ref, configure_torch(settings))
        first, open_image = missing[0], store.images.open
        size = settle_batch_size(
            loaded,
            store.home,
            settings.redenoising.batch_size,
            (INPAINT, first.row.width, first.row.height),
            lambda count: try_repair_batch(loaded, first, count, open_image),
            log,
        )
        environment = loaded.environment(size)
        in_slots = [replace(one, row=in_batches_of(one.row, size)) for one in missing]
        for one in inpaint_images(loaded, in_slots, size, open_image):
            yield NewImage(
                inpaint_key(one.spec, base),
                one.spec.row.slot % one.batch_size,
                one.image,
                one.reason,
                environment | {"batch_size": one.batch_size},
                one.seconds,
            )

    return draw
