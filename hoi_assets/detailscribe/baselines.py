"""Plain baselines at the compute of DetailScribe: more seeds, a rewritten prompt, a refined one.

The budget of a row is what its initial picture and all its variants take, in forward passes of the
denoiser; a baseline draws as many plain pictures as that pays. An image endpoint, when set, paints
one picture a prompt, at a compute that nobody tells.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import polars as pl

from hoi_assets.detailscribe.benchmark_images import (
    SCHEMA,
    draw_benchmark,
    picture_record,
    row_to_vary,
)
from hoi_assets.detailscribe.critique import NoRoom, extended
from hoi_assets.detailscribe.rewrite import EndpointRewriter, rewrite
from hoi_assets.detailscribe.variants import (
    NOTHING,
    Components,
    Record,
    candidate_of,
    choose,
    judged,
    split_failed,
)
from hoi_assets.engines.cached_scores import cached_clip_scores
from hoi_assets.engines.image_spec import ImageSpec
from hoi_assets.engines.sd3.compute import (
    denoiser_evaluations,
    images_within_budget,
    multi_seed_specs,
    variant_evaluations,
)
from hoi_assets.llm.image_endpoint import EndpointPainter, paint
from hoi_assets.progress import Log
from hoi_assets.settings import Settings
from hoi_assets.store.versions import Store

MULTI_SEED, MULTI_SEED_CLIP, REWRITE, REFINE, ENDPOINT = (
    "multi_seed",
    "multi_seed_clip",
    "rewrite",
    "refine",
    "endpoint",
)
CLIP_RULE = "CLIPScore against the prompt"
ONE_PICTURE = "none: one picture"


def baseline_table(
    store: Store,
    settings: Settings,
    initial: pl.DataFrame,
    components: Components,
    critiqued: pl.DataFrame,
    log: Log,
) -> pl.DataFrame:
    """Every baseline's candidates for every initial picture, one `selected` each.

    `multi_seed`: the plain picture and more seeds, chosen by the critic; `multi_seed_clip`: the
    same pictures, chosen by CLIPScore; `rewrite`: the prompt rewritten before anything is seen, by
    `rewriter.endpoint` where it is set, else by saying its components again; `refine`: the plain
    picture, then pictures drawn from noise under the critique's corrected prompt; `endpoint`, when
    `painter.endpoint` is set: an image endpoint's one picture of every prompt.

    Args:
        initial: rows of `initial_images`. components: by row_id.
        critiqued: rows of `image_critiques`.

    Returns:
        Table of SCHEMA.
    """
    painted = _painted(store, settings, initial.to_dicts(), log)
    methods = (MULTI_SEED, MULTI_SEED_CLIP, REWRITE, REFINE)
    records, corrected, failed = split_failed(initial, critiqued, components, methods)
    seeds = _more_seeds(store, settings, records, log)
    rewritten, unwritten = _rewritten(store, settings, records, components, log)
    made = [
        *_chosen(store, settings, seeds, components, log),
        *_by_clip(store, settings, seeds, log),
        *_chosen(store, settings, rewritten, components, log),
        *unwritten,
        *_refined(store, settings, records, components, corrected, log),
        *failed,
        *painted,
    ]
    return pl.DataFrame(made, schema=SCHEMA)


def budget(settings: Settings, row: ImageSpec) -> int:
    """Forward passes of a row's initial picture and all its variants."""
    options = settings.refining
    return denoiser_evaluations(row) + variant_evaluations(
        row, options.switch_steps, options.s_reference
    )


def _count(settings: Settings, row: ImageSpec) -> int:
    return images_within_budget(row, budget(settings, row))


def _more_seeds(
    store: Store, settings: Settings, initial: Sequence[Record], log: Log
) -> dict[str, list[Record]]:
    wanted = {
        row["row_id"]: multi_seed_specs(plain, _count(settings, plain))[1:]
        for row in initial
        for plain in [row_to_vary(row, settings)]
    }
    drawn = _drawn(store, settings, initial, wanted, MULTI_SEED, 1, "more seeds", log)
    return {
        row["row_id"]: [
            row | {"method": MULTI_SEED, "candidate": 0},
            *drawn[row["row_id"]],
        ]
        for row in initial
    }


def _rewritten(
    store: Store, settings: Settings, initial: Sequence[Record], components: Components, log: Log
) -> tuple[dict[str, list[Record]], list[Record]]:
    """Candidates by row, and a failed record for each prompt that the endpoint did not rewrite."""
    wanted: dict[str, list[ImageSpec]] = {}
    failed: list[Record] = []
    told = _rewordings(store, settings, initial, components, log)
    for row in initial:
        text, reason = told[row["row_id"]]
        if text is None:
            said = {"candidate": 0, "selected": False, "status": "failed"}
            failed.append(row | said | {"method": REWRITE, "reason": f"rewrite: {reason}"})
            continue
        first = replace(row_to_vary(row, settings), prompt=text)
        wanted[row["row_id"]] = multi_seed_specs(first, _count(settings, first))
    able = [row for row in initial if row["row_id"] in wanted]
    drawn = _drawn(store, settings, able, wanted, REWRITE, 0, "rewritten prompts", log)
    return drawn, failed


def _rewordings(
    store: Store, settings: Settings, initial: Sequence[Record], components: Components, log: Log
) -> dict[str, tuple[str | None, str | None]]:
    """By row_id the rewritten prompt, or the reason why there is none."""
    if settings.rewriter.endpoint is not None:
        rewriter = EndpointRewriter(settings.rewriter)
        found = rewrite((row["prompt"] for row in initial), rewriter, store.ledger, log)
        return {
            row["row_id"]: (found[row["prompt"]].value, found[row["prompt"]].reason)
            for row in initial
        }
    told: dict[str, tuple[str | None, str | None]] = {}
    for row in initial:
        statements = [one.statement for one in components[row["row_id"]]]
        try:
            text = extended(row["prompt"], statements, settings.rewriter.max_words)
        except NoRoom:
            text = row["prompt"]  # too long to say more: the rewrite is the prompt itself
        told[row["row_id"]] = (text, None)
    return told


def _refined(
    store: Store,
    settings: Settings,
    initial: Sequence[Record],
    components: Components,
    corrected: Mapping[str, str | None],
    log: Log,
) -> list[Record]:
    wanted: dict[str, list[ImageSpec]] = {}
    for row in initial:
        prompt, plain = corrected[row["row_id"]], row_to_vary(row, settings)
        more = _count(settings, plain) - 1
        wanted[row["row_id"]] = (
            []
            if prompt is None or not more
            else multi_seed_specs(replace(plain, prompt=prompt), more)
        )
    drawn = _drawn(store, settings, initial, wanted, REFINE, 1, "refined prompts", log)
    candidates = {
        row["row_id"]: [row | {"method": REFINE, "candidate": 0}, *drawn[row["row_id"]]]
        for row in initial
    }
    return [
        one | ({"why": NOTHING} if one["selected"] and not drawn[one["row_id"]] else {})
        for one in _chosen(store, settings, candidates, components, log)
    ]


def _drawn(
    store: Store,
    settings: Settings,
    initial: Sequence[Record],
    wanted: Mapping[str, Sequence[ImageSpec]],
    method: str,
    first_number: int,
    label: str,
    log: Log,
) -> dict[str, list[Record]]:
    rows = [row for own in wanted.values() for row in own]
    known = iter(draw_benchmark(store, settings, rows, label, log) if rows else [])
    return {
        row["row_id"]: [
            candidate_of(row, method, number, picture_record(next(known)))
            for number, _ in enumerate(wanted[row["row_id"]], start=first_number)
        ]
        for row in initial
    }


def _painted(store: Store, settings: Settings, initial: Sequence[Record], log: Log) -> list[Record]:
    if settings.painter.endpoint is None:
        return []
    options = settings.refining
    painter = EndpointPainter(settings.painter, store.images)
    prompts = [row["prompt"] for row in initial]
    painted = paint(prompts, painter, store, (options.width, options.height), log)
    return [
        candidate_of(
            row,
            ENDPOINT,
            0,
            {
                "image_id": one.image_id,
                "drawn_prompt": row["prompt"],
                "seed": settings.painter.seed,
                "width": options.width,
                "height": options.height,
                "passes": 0,
                "pixels": one.pixels,
                "pixel_std": one.pixel_std,
                "selected": one.pixels is not None,
                "why": None if one.pixels is None else f"{ONE_PICTURE}; {one.drawn_by}",
                "status": "failed" if one.pixels is None else "accepted",
                "reason": one.reason,
            },
        )
        for row, one in zip(initial, painted, strict=True)
    ]


def _chosen(
    store: Store,
    settings: Settings,
    candidates: Mapping[str, list[Record]],
    components: Components,
    log: Log,
) -> list[Record]:
    every = [one for own in candidates.values() for one in own]
    told = iter(judged(store, settings, every, components, log))
    return [one for own in candidates.values() for one in choose(own, [next(told) for _ in own])]


def _by_clip(
    store: Store, settings: Settings, candidates: Mapping[str, list[Record]], log: Log
) -> list[Record]:
    every = [one for own in candidates.values() for one in own if one["pixels"] is not None]
    told = cached_clip_scores(store, settings, every, log)
    scores = {
        (one["row_id"], one["candidate"]): score for one, score in zip(every, told, strict=True)
    }
    records = []
    for row_id, own in candidates.items():
        judged_ones = [one for one in own if (row_id, one["candidate"]) in scores]
        chosen = max(
            judged_ones,
            key=lambda one: (scores[one["row_id"], one["candidate"]], -one["candidate"]),
            default=None,
        )
        records += [
            one
            | {
                "method": MULTI_SEED_CLIP,
                "selected": one is chosen,
                "why": CLIP_RULE if one is chosen else None,
            }
            for one in own
        ]
    return records
