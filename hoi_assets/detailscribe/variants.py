"""The two refinement arms over the initial pictures: DetailScribe's switch steps, and CRAFT-like
rounds. The critic chooses, and no metric of another judge does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from hoi_assets.detailscribe.benchmark_images import (
    SCHEMA,
    draw_benchmark,
    draw_variants,
    picture_record,
    plain_row,
    row_to_vary,
    variant_record,
)
from hoi_assets.detailscribe.components import Component
from hoi_assets.detailscribe.craft import Round, askable, next_step
from hoi_assets.detailscribe.critics import (
    SELECTION_RULE,
    Merit,
    Picture,
    best,
    corrections,
    critiques,
    holding,
    merit,
)
from hoi_assets.detailscribe.critique import Critique, no_critique
from hoi_assets.engines.sd3.redenoising import Redenoising
from hoi_assets.progress import Log
from hoi_assets.settings import Settings
from hoi_assets.store.versions import Store

PLAIN, DETAILSCRIBE, CRAFT = "plain", "detailscribe", "craft"
NOTHING = f"{SELECTION_RULE}; nothing to correct: the initial picture stands"

Components = Mapping[str, tuple[Component, ...]]
Record = dict[str, Any]


def judged(
    store: Store,
    settings: Settings,
    records: Sequence[Record],
    components: Components,
    log: Log,
) -> list[Critique | None]:
    """The critic's view of drawn pictures by their *original* prompts; None where not drawn."""
    drawn = [one for one in records if one["pixels"] is not None]
    found = critiques(
        store,
        settings,
        [
            Picture(one["row_id"], one["prompt"], components[one["row_id"]], one["pixels"])
            for one in drawn
        ],
        log,
    )
    told = iter(found)
    return [next(told) if one["pixels"] is not None else None for one in records]


def choose(candidates: Sequence[Record], found: Sequence[Critique | None]) -> list[Record]:
    """A row's candidates with what the critic says of each, and its choice marked.

    Where none could be judged, none is selected and the candidates are failed with the reason.
    """
    merits: list[Merit | None] = [None if one is None else merit(one) for one in found]
    chosen = best(merits)
    records = []
    for place, (one, own, critique) in enumerate(zip(candidates, merits, found, strict=True)):
        record = one | {
            "held": own.held if own else None,
            "probability": own.probability if own else None,
            "selected": place == chosen,
            "why": SELECTION_RULE if place == chosen else None,
        }
        if own is None and critique is not None:
            record |= {"status": "failed", "reason": f"critic: {critique.reason}"}
        records.append(record)
    return records


def initial_table(
    store: Store, settings: Settings, prompts: pl.DataFrame, log: Log
) -> pl.DataFrame:
    """The plain picture of each usable row of `interacting_prompts`; a table of SCHEMA."""
    asked = prompts.to_dicts()
    rows = [
        plain_row(settings, one["row_id"], one["prompt"], position)
        for position, one in enumerate(asked)
    ]
    label = f"initial pictures of {asked[0]['scenario']}" if asked else "initial pictures"
    drawn = draw_benchmark(store, settings, rows, label, log, keep_latents=True)
    return pl.DataFrame(
        [
            candidate_of(one, PLAIN, 0, picture_record(known)) | {"selected": True}
            for one, known in zip(asked, drawn, strict=True)
        ],
        schema=SCHEMA,
    )


def critique_initial(
    store: Store,
    settings: Settings,
    initial: pl.DataFrame,
    components: Components,
    log: Log,
) -> list[Critique]:
    """The critique of every initial picture; it fails for one not drawn or without components."""
    records = initial.to_dicts()
    able = [one for one in records if one["pixels"] is not None and one["row_id"] in components]
    told = {
        one["row_id"]: critique
        for one, critique in zip(able, judged(store, settings, able, components, log), strict=True)
    }
    made = []
    for one in records:
        critique = told.get(one["row_id"])
        if critique is None:
            undrawn = one["pixels"] is None
            reason = f"no_picture: {one['reason']}" if undrawn else "no_components: see its row"
            critique = no_critique(one["row_id"], one["prompt"], reason)
        made.append(replace(critique, image_id=one["image_id"]))
    return made


def split_failed(
    initial: pl.DataFrame,
    critiqued: pl.DataFrame,
    components: Components,
    methods: Sequence[str],
) -> tuple[list[Record], dict[str, str | None], list[Record]]:
    """Rows of `initial_images` that can be refined, with their corrected prompts (None: nothing to
    correct), and a failed record per method for each of the others."""
    told = {row["row_id"]: row for row in critiqued.iter_rows(named=True)}
    able: list[Record] = []
    corrected: dict[str, str | None] = {}
    failed: list[Record] = []
    for row in initial.iter_rows(named=True):
        critique = told.get(row["row_id"])
        # Parents are published apart: one held back by its gate is older than the other.
        if critique is None:
            reason = "critique: none of this row"
        elif critique.get("image_id") != row["image_id"]:
            reason = "critique: of another picture"
        elif critique["status"] != "accepted":
            reason = f"critique: {critique['reason']}"
        elif row["row_id"] not in components:
            reason = "no_components: see its row"
        else:
            able.append(row)
            corrected[row["row_id"]] = critique["corrected_prompt"]
            continue
        said = {"candidate": 0, "selected": False, "status": "failed", "reason": reason}
        failed += [row | {"method": method} | said for method in methods]
    return able, corrected, failed


def refined_table(
    store: Store,
    settings: Settings,
    initial: pl.DataFrame,
    components: Components,
    critiqued: pl.DataFrame,
    log: Log,
) -> pl.DataFrame:
    """Both arms' candidates of every initial picture.

    Args:
        initial: rows of `initial_images`. components: by row_id.
        critiqued: rows of `image_critiques`.

    Returns:
        Table of SCHEMA: methods `detailscribe` (candidate 0 the initial picture, then one per
        switch step) and `craft` (one per round); one `selected` of each.
    """
    records, corrected, failed = split_failed(initial, critiqued, components, (DETAILSCRIBE, CRAFT))
    made = [
        *_detailscribe(store, settings, records, components, corrected, log),
        *_craft(store, settings, records, components, log),
        *failed,
    ]
    return pl.DataFrame(made, schema=SCHEMA)


def _detailscribe(
    store: Store,
    settings: Settings,
    initial: Sequence[Record],
    components: Components,
    corrected: Mapping[str, str | None],
    log: Log,
) -> list[Record]:
    label = f"variants of {initial[0]['scenario']}" if initial else "variants"
    wanted = {
        row["row_id"]: Redenoising(row_to_vary(row, settings), prompt)
        for row in initial
        if (prompt := corrected[row["row_id"]]) is not None
    }
    drawn = dict(
        zip(
            wanted,
            draw_variants(store, settings, list(wanted.values()), label, log),
            strict=True,
        )
    )
    candidates = {
        row["row_id"]: [
            row | {"method": DETAILSCRIBE, "candidate": 0},
            *(
                candidate_of(row, DETAILSCRIBE, number, variant_record(variant))
                for number, variant in enumerate(drawn.get(row["row_id"], ()), start=1)
            ),
        ]
        for row in initial
    }
    every = [one for own in candidates.values() for one in own]
    told = iter(judged(store, settings, every, components, log))
    records = []
    for row_id, own in candidates.items():
        chosen = choose(own, [next(told) for _ in own])
        if row_id not in wanted:
            chosen = [one | {"why": NOTHING if one["selected"] else None} for one in chosen]
        records += chosen
    return records


def _craft(
    store: Store,
    settings: Settings,
    initial: Sequence[Record],
    components: Components,
    log: Log,
) -> list[Record]:
    """Rounds of all rows side by side, so that a round's pictures are drawn in batches."""
    first = {row["row_id"]: row for row in initial}
    records: dict[str, list[Record]] = {row_id: [] for row_id in first}
    found: dict[str, list[Critique | None]] = {row_id: [] for row_id in first}
    rounds: dict[str, list[Round]] = {row_id: [] for row_id in first}
    stops: dict[str, str] = {}
    fresh = [row | {"method": CRAFT, "candidate": 0} for row in initial]
    while fresh:
        number = fresh[0]["candidate"] + 1
        edits: dict[str, str] = {}
        for record, critique in zip(
            fresh, judged(store, settings, fresh, components, log), strict=True
        ):
            row_id = record["row_id"]
            records[row_id].append(record)
            found[row_id].append(critique)
            answers = None if critique is None else _answers(critique, components[row_id])
            if answers is None:
                stops[row_id] = "not_judged"
                continue
            rounds[row_id].append(Round(record["drawn_prompt"], answers))
            step = next_step(
                record["prompt"],
                components[row_id],
                rounds[row_id],
                corrections(critique) if critique else None,
                settings.refining.craft_rounds,
                settings.critic.max_words,
            )
            if step.prompt is None:
                stops[row_id] = step.stop or ""
            else:
                edits[row_id] = step.prompt
        rows = [
            replace(row_to_vary(first[row_id], settings), prompt=text)
            for row_id, text in edits.items()
        ]
        label = f"edits of round {number}"
        drawn = draw_benchmark(store, settings, rows, label, log) if rows else []
        fresh = [
            candidate_of(first[row_id], CRAFT, number, picture_record(known))
            for row_id, known in zip(edits, drawn, strict=True)
        ]
    return [
        one | ({"why": f"{one['why']}; rounds ended: {stops[row_id]}"} if one["selected"] else {})
        for row_id, own in records.items()
        for one in choose(own, found[row_id])
    ]


def _answers(critique: Critique, components: tuple[Component, ...]) -> dict[int, bool] | None:
    """The critic's answers to the questions CRAFT asks; None where it gave none."""
    holds = holding(critique)
    if not holds:
        return None
    answers: dict[int, bool] = {}
    while questions := askable(components, answers):
        answers |= {one.number: holds[one.number] for one in questions}
    return answers


def candidate_of(initial: Record, method: str, candidate: int, drawn: Record) -> Record:
    """The record of another picture for the same benchmark row."""
    return {name: initial[name] for name in ("row_id", "scenario", "prompt")} | {
        "method": method,
        "candidate": candidate,
        "held": None,
        "probability": None,
        "selected": False,
        "why": None,
        **drawn,
    }
