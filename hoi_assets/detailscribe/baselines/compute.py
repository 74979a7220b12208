"""The compute that a baseline may spend, and its images.

A row's budget is the number of denoiser evaluations (NFE) of its initial image and all its
variants. A baseline draws as many plain images as that pays for.
"""

from collections.abc import Mapping, Sequence

from hoi_assets.detailscribe.benchmark_images import draw_benchmark_images
from hoi_assets.detailscribe.image_rows import (
    MULTI_SEED,
    REFINE,
    REWRITE,
    Record,
    candidate_row,
    image_columns,
)
from hoi_assets.engines.image_spec import ImageSpec
from hoi_assets.engines.sd3.compute import (
    affordable_images,
    denoiser_evaluations,
    variant_evaluations,
)
from hoi_assets.progress import Log
from hoi_assets.settings import Settings
from hoi_assets.store.versions import Store


def evaluation_budget(settings: Settings, row: ImageSpec) -> int:
    """Denoiser evaluations of a row's initial image and all its variants."""
    options = settings.redenoising
    return denoiser_evaluations(row) + variant_evaluations(
        row, options.switch_steps, options.s_reference
    )


def images_within_budget(settings: Settings, row: ImageSpec) -> int:
    """How many plain images like `row` its budget pays for; at least one."""
    return affordable_images(row, evaluation_budget(settings, row))


def new_images(settings: Settings, row: ImageSpec) -> dict[str, int]:
    """How many images each baseline draws for a prompt; the initial image `row` is there already.

    Refine's are drawn only where there is something to correct.
    """
    options, paid = settings.redenoising, images_within_budget(settings, row)
    one = options.baseline_images == "one"
    return {
        MULTI_SEED: (paid if options.seeds is None else len(options.seeds)) - 1,
        REWRITE: 1 if one else paid,
        REFINE: 1 if one else paid - 1,
    }


def draw_candidates(
    store: Store,
    settings: Settings,
    initial: Sequence[Record],
    wanted: Mapping[str, Sequence[ImageSpec]],
    method: str,
    first_number: int,
    label: str,
    log: Log,
) -> dict[str, list[Record]]:
    """A method's images of every row, by row_id.

    Args:
        initial: rows of `initial_images`.
        wanted: what to draw, by row_id; may be empty for a row.
        first_number: `candidate` of a row's first image.
        label: for progress messages.
    """
    rows = [row for own in wanted.values() for row in own]
    drawn = draw_benchmark_images(store, settings, rows, label, log) if rows else []
    images = iter(drawn)
    return {
        row["row_id"]: [
            candidate_row(row, method, number, image_columns(next(images)))
            for number, _ in enumerate(wanted[row["row_id"]], start=first_number)
        ]
        for row in initial
    }
