"""A store with a few published pictures of both pipelines, to make studies of."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from hoi_assets.detailscribe.image_rows import IMAGE_ROWS
from hoi_assets.ppv.candidates import CANDIDATE_ROWS
from hoi_assets.ppv.evaluation_images import EVALUATION_IMAGE_ROWS, METHODS
from hoi_assets.store.versions import Store
from hoi_assets_tests.rating.conftest import picture


def publish(store: Store, asset: str, partition: str, table: pl.DataFrame) -> None:
    """Put a table `rows` in force."""
    with store.stage(asset, partition) as out:
        out.write_table("rows", table)
        store.publish(out, {"code_version": "1"}, None, {})


def publish_evaluation(store: Store, prompts: int = 4, images_per_prompt: int = 1) -> None:
    """`hoi_evaluation_images` of two categories, the last picture of each failed."""
    for place, category in enumerate(("hook", "worn")):
        rows = list(_evaluated(store, category, prompts, images_per_prompt, 1000 * place))
        rows[-1] |= {"pixels": None, "status": "failed", "reason": "out of memory"}
        publish(
            store,
            "hoi_evaluation_images",
            category,
            pl.DataFrame(rows, schema=EVALUATION_IMAGE_ROWS.schema),
        )


def _evaluated(
    store: Store, category: str, prompts: int, images: int, first: int
) -> Iterator[dict[str, Any]]:
    numbers = iter(range(first, first + 1000))
    for suite in ("hoi", "general"):
        for prompt in range(prompts):
            for method in METHODS:
                for seed in range(images):
                    yield {
                        "suite": suite,
                        "method": method,
                        "evaluation_prompt_id": f"{category}-{suite}-{prompt}",
                        "category": category,
                        "prompt": f"a {category} hand holds cup {prompt}",
                        "seed": seed,
                        "pixels": store.images.put(picture(next(numbers))),
                        "status": "accepted",
                    }


def publish_interacting(store: Store) -> None:
    """`refined_images` and `baseline_images` of one scenario: two pictures each, one chosen."""
    for asset, methods, first in (
        ("refined_images", ("detailscribe", "craft"), 0),
        ("baseline_images", ("plain", "rewrite"), 100),
    ):
        rows = [
            {
                "row_id": f"row-{row}",
                "scenario": "functional",
                "prompt": f"a hand stirs pot {row}",
                "method": method,
                "seed": 7,
                "pixels": store.images.put(picture(first + 10 * place + 2 * row + chosen)),
                "denoiser_evaluations": 28,
                "selected": bool(chosen),
                "status": "accepted",
            }
            for place, method in enumerate(methods)
            for row in range(3)
            for chosen in (0, 1)
        ]
        publish(store, asset, "functional", pl.DataFrame(rows, schema=IMAGE_ROWS.schema))


def publish_candidates(store: Store, prompts: int) -> None:
    """`candidate_images` of one category, one picture a prompt."""
    rows = [
        {
            "image_id": f"i{number}",
            "prompt_id": f"p{number}",
            "category": "hook",
            "prompt": f"a hand carries bag {number}",
            "seed": number,
            "pixels": store.images.put(picture(5000 + number)),
            "status": "accepted",
        }
        for number in range(prompts)
    ]
    publish(store, "candidate_images", "hook", pl.DataFrame(rows, schema=CANDIDATE_ROWS.schema))


def small_store(home: Path) -> Store:
    """Evaluation images, pictures of the second line, and candidates."""
    store = Store(home)
    publish_evaluation(store)
    publish_interacting(store)
    publish_candidates(store, 3)
    return store
