"""Initial images (asset `initial_images`), their critiques (`image_critiques`), and which of them
the later stages can refine."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import polars as pl

from hoi_assets.detailscribe.benchmark_images import draw_benchmark_images, plain_row
from hoi_assets.detailscribe.critique import Critique, failed_critique
from hoi_assets.detailscribe.image_rows import (
    PLAIN,
    Record,
    candidate_row,
    failed_row,
    image_columns,
    image_rows_frame,
)
from hoi_assets.detailscribe.published_critic import PublishedCritic, critique_as_published
from hoi_assets.detailscribe.selection import (
    ComponentsByRow,
    critique_candidates,
    critique_requests,
)
from hoi_assets.progress import Log
from hoi_assets.settings import Settings
from hoi_assets.store.versions import Store


def draw_initial_images(
    store: Store, settings: Settings, prompts: pl.DataFrame, log: Log
) -> pl.DataFrame:
    """The benchmark model's image of each prompt; latents at the switch steps are stored.

    Args:
        prompts: accepted rows of `interacting_prompts`.

    Returns:
        Frame of IMAGE_ROWS, method `plain`.
    """
    benchmark_rows = prompts.to_dicts()
    rows = [
        plain_row(settings, one["row_id"], one["prompt"], position)
        for position, one in enumerate(benchmark_rows)
    ]
    scenario = benchmark_rows[0]["scenario"] if benchmark_rows else "no prompts"
    label = f"initial images of {scenario}"
    images = draw_benchmark_images(store, settings, rows, label, log, keep_latents=True)
    records = [
        candidate_row(one, PLAIN, 0, image_columns(known)) | {"selected": True}
        for one, known in zip(benchmark_rows, images, strict=True)
    ]
    return image_rows_frame(store, settings, records, log)


def critique_initial_images(
    store: Store,
    settings: Settings,
    initial: pl.DataFrame,
    components: ComponentsByRow,
    log: Log,
    topics: Mapping[str, str] | None = None,
) -> list[Critique]:
    """The critique of every initial image; it fails for one not drawn or without components.

    Args:
        initial: rows of `initial_images`. components: by row_id.
        topics: by row_id, for the published protocol.

    Raises:
        HoiError: the critic cannot be used at all, or the published protocol has no endpoint.
    """
    records = initial.to_dicts()
    able = [one for one in records if one["pixels"] is not None and one["row_id"] in components]
    judged: Sequence[Critique | None]
    if settings.critic.protocol == "published":
        requests = critique_requests(store, able, components, topics)
        judged = critique_as_published(
            requests, PublishedCritic(settings.critic), store.ledger, log
        )
    else:
        judged = critique_candidates(store, settings, able, components, log)
    found = {one["row_id"]: critique for one, critique in zip(able, judged, strict=True)}
    critiques = []
    for one in records:
        critique = found.get(one["row_id"])
        if critique is None:
            not_drawn = one["pixels"] is None
            reason = f"no_picture: {one['reason']}" if not_drawn else "no_components: see its row"
            critique = failed_critique(one["row_id"], one["prompt"], reason)
        critiques.append(replace(critique, image_id=one["image_id"]))
    return critiques


def split_refinable(
    initial: pl.DataFrame,
    critiques: pl.DataFrame,
    components: ComponentsByRow,
    methods: Sequence[str],
) -> tuple[list[Record], dict[str, str | None], list[Record]]:
    """Split initial images into those that can be refined and failed rows for the others.

    Args:
        initial: rows of `initial_images`. components: by row_id.
        critiques: rows of `image_critiques`.
        methods: each gets a failed row for an image that cannot be refined.

    Returns:
        The refinable rows; their corrected prompts by row_id (None: nothing to correct); the
        failed rows.
    """
    by_row = {row["row_id"]: row for row in critiques.iter_rows(named=True)}
    refinable: list[Record] = []
    corrected: dict[str, str | None] = {}
    failed: list[Record] = []
    for row in initial.iter_rows(named=True):
        critique = by_row.get(row["row_id"])
        # Parents are published one by one: if a gate blocked one, it is older than the other.
        if critique is None:
            reason = "critique: none of this row"
        elif critique.get("image_id") != row["image_id"]:
            reason = "critique: of another picture"
        elif critique["status"] != "accepted":
            reason = f"critique: {critique['reason']}"
        elif row["row_id"] not in components:
            reason = "no_components: see its row"
        else:
            refinable.append(row)
            corrected[row["row_id"]] = critique["corrected_prompt"]
            continue
        failed += [failed_row(row, method, reason) for method in methods]
    return refinable, corrected, failed
