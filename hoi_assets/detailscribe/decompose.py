"""Decompositions of prompts, and their two tables (asset `interaction_decompositions`)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from hoi_assets.detailscribe.columns import COMPONENT_COLUMNS, REPLY_COLUMNS, STATUS_COLUMNS
from hoi_assets.detailscribe.components import Component, dependencies
from hoi_assets.detailscribe.decomposers import Components, Decomposer
from hoi_assets.detailscribe.flat_form import to_flat
from hoi_assets.hashing import digest
from hoi_assets.llm.reply import Reply
from hoi_assets.llm.reply_cache import ReplyCache
from hoi_assets.progress import Log
from hoi_assets.store.ledger import Ledger
from hoi_assets.store.tables import Column, Table
from hoi_assets.taxonomy import ID_LENGTH

REPLY_KIND = "decomposition"

DECOMPOSITION_ROWS = Table(
    "rows",
    "One prompt of the benchmark and how it was decomposed.",
    (
        Column("row_id", pl.String, "row of interacting_prompts"),
        Column("prompt", pl.String, "the prompt"),
        Column("flat", pl.String, "the components in the published flat form; empty if it failed"),
        Column("components", pl.Int64, "number of components"),
        *STATUS_COLUMNS,
        *REPLY_COLUMNS,
    ),
    key=("row_id",),
)
DECOMPOSITION_COMPONENTS = Table(
    "components",
    "One component of a prompt.",
    (
        Column("row_id", pl.String, "row of interacting_prompts"),
        Column("component", pl.Int64, "number of the component, from 0"),
        *COMPONENT_COLUMNS,
        Column("depends_on", pl.List(pl.Int64), "numbers of the earlier components it depends on"),
    ),
    key=("row_id", "component"),
)


@dataclass(frozen=True)
class Decomposition:
    """A benchmark row's components, or the reason why there are none.

    Attributes:
        components: each after those it depends on; empty where it failed.
        reason: `code: detail` of a failed row.
        cost_usd: None where a price or the number of tokens is not known.
    """

    row_id: str
    prompt: str
    components: Components
    status: Literal["accepted", "failed"]
    reason: str | None
    model: str
    template_version: str
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None


def decompose(
    prompts: Iterable[tuple[str, str]],
    decomposer: Decomposer,
    cache: Ledger | None = None,
    log: Log = print,
) -> list[Decomposition]:
    """The decomposition of each (row_id, prompt), in their order. Equal prompts are asked once.

    Args:
        cache: replies by the hash of prompt and decomposer; a hit is not requested again.

    Raises:
        HoiError: the endpoint cannot be used at all, known at its first call.
    """
    rows = list(prompts)
    keys = {prompt: reply_key(prompt, decomposer.identity) for _, prompt in rows}
    outcomes = ReplyCache(
        cache if decomposer.caches else None,
        REPLY_KIND,
        encode=lambda components: [one.model_dump() for one in components],
        decode=lambda records: tuple(Component.model_validate(record) for record in records),
        log=log,
    ).get_or_request(
        {key: prompt for prompt, key in keys.items()},
        lambda missing, on_reply: decomposer.ask(missing, on_reply, log),
    )
    decompositions = [
        _decomposition(row_id, prompt, outcomes[keys[prompt]], decomposer)
        for row_id, prompt in rows
    ]
    failed = sum(one.status == "failed" for one in decompositions)
    log(f"{len(decompositions)} prompts decomposed, {failed} failed")
    return decompositions


def reply_key(prompt: str, identity: Mapping[str, Any]) -> str:
    """Hash of all that determines a decomposition: 16 hex digits."""
    return digest({"prompt": prompt, "decomposer": dict(identity)})[:ID_LENGTH]


def _decomposition(
    row_id: str, prompt: str, outcome: Reply[Components], decomposer: Decomposer
) -> Decomposition:
    return Decomposition(
        row_id=row_id,
        prompt=prompt,
        components=outcome.value or (),
        status="failed" if outcome.value is None else "accepted",
        reason=outcome.reason,
        model=outcome.model,
        template_version=decomposer.template_version,
        input_tokens=outcome.input_tokens,
        output_tokens=outcome.output_tokens,
        cost_usd=outcome.cost_usd,
    )


def decompositions_frame(decompositions: Sequence[Decomposition]) -> pl.DataFrame:
    """A frame of DECOMPOSITION_ROWS."""
    return DECOMPOSITION_ROWS.frame(
        {**vars(one), "flat": to_flat(one.components), "components": len(one.components)}
        for one in decompositions
    )


def components_frame(decompositions: Sequence[Decomposition]) -> pl.DataFrame:
    """A frame of DECOMPOSITION_COMPONENTS."""
    return DECOMPOSITION_COMPONENTS.frame(
        {
            "row_id": one.row_id,
            "component": number,
            **component.model_dump(),
            "depends_on": list(needed),
        }
        for one in decompositions
        for number, (component, needed) in enumerate(
            zip(one.components, dependencies(one.components), strict=True)
        )
    )


def read_components(frame: pl.DataFrame) -> dict[str, Components]:
    """Components by row_id, from a frame of DECOMPOSITION_COMPONENTS."""
    found: dict[str, list[Component]] = {}
    for record in frame.sort("row_id", "component").iter_rows(named=True):
        fields = {name: record[name] for name in Component.model_fields}
        found.setdefault(record["row_id"], []).append(Component(**fields))
    return {row_id: tuple(components) for row_id, components in found.items()}
