"""Baseline `endpoint`: an image endpoint's one image of every prompt, if one is set."""

from collections.abc import Sequence

from hoi_assets.detailscribe.image_rows import ENDPOINT, Record, candidate_row
from hoi_assets.llm.image_endpoint import ImageClient, generate_images
from hoi_assets.progress import Log
from hoi_assets.settings import Settings
from hoi_assets.store.versions import Store

ONE_IMAGE_RULE = "none: one picture"


def draw_by_image_endpoint(
    store: Store, settings: Settings, initial: Sequence[Record], log: Log
) -> list[Record]:
    """One row per prompt, selected where the endpoint drew an image; [] without an endpoint.

    Args:
        initial: rows of `initial_images`, also those not drawn.
    """
    if settings.image_endpoint.endpoint is None:
        return []
    options = settings.redenoising
    endpoint = ImageClient(settings.image_endpoint, store.images)
    prompts = [row["prompt"] for row in initial]
    images = generate_images(prompts, endpoint, store, (options.width, options.height), log)
    return [
        candidate_row(
            row,
            ENDPOINT,
            0,
            {
                "image_id": image.image_id,
                "drawn_prompt": row["prompt"],
                "seed": settings.image_endpoint.seed,
                "width": options.width,
                "height": options.height,
                "denoiser_evaluations": 0,
                "pixels": image.pixels,
                "pixel_std": image.pixel_std,
                "selected": image.pixels is not None,
                "why": None if image.pixels is None else f"{ONE_IMAGE_RULE}; {image.drawn_by}",
                "status": "failed" if image.pixels is None else "accepted",
                "reason": image.reason,
            },
        )
        for row, image in zip(initial, images, strict=True)
    ]
