"""Triples for training correctors: a flawed picture, its critique, an accepted picture.

Three sources, told apart by the column `source`:
    detailscribe  an initial image that its critic found wanting, and the refined image that was
                  chosen for the prompt and shows every component
    verifier      a candidate that the verifier rejected, and an accepted one of the same prompt
    twins         a spoilt render of the tiny world and its clean twin; the flaw is known
What found no accepted picture is a rejected row with its reason.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from hoi_assets.errors import HoiError
from hoi_assets.export.cards import render, size_category
from hoi_assets.export.dataset import arrow_schema
from hoi_assets.export.folder import Draft, Exported, Plan, export
from hoi_assets.export.pairs import BATCH_ROWS, VERDICTS, export_id
from hoi_assets.export.pictures import marked_picture
from hoi_assets.export.twins import SPLITS as TWIN_SPLITS
from hoi_assets.export.twins import twin_triples, twins_digest
from hoi_assets.progress import Log
from hoi_assets.store.staging import parquet_bytes
from hoi_assets.store.tables import Column, Table
from hoi_assets.store.versions import Published, Store

CRITIQUES, REFINED = "image_critiques", "refined_images"
PICTURES = ("flawed", "accepted")
COLUMNS = ("id", "source", "text", "critique", "corrected_text")
SOURCES = ("detailscribe", "verifier", "twins")

LEFT_OUT = Table(
    "rejected",
    "a flawed picture without an accepted one",
    (
        Column("id", pl.String, "opaque id, 20 hex digits"),
        Column("source", pl.String, "detailscribe or verifier"),
        Column("text", pl.String, "the prompt"),
        Column("reason", pl.String, "why there is no triple"),
    ),
    key=("source", "id"),
)
RATES = Table(
    "filter_rates",
    "how many flawed pictures became triples",
    (
        Column("source", pl.String, "detailscribe, verifier or twins"),
        Column("flawed", pl.Int64, "flawed pictures"),
        Column("triples", pl.Int64, "those with an accepted picture"),
        Column("share", pl.Float64, "triples / flawed; null without any", "0..1", nullable=True),
    ),
    key=("source",),
)


@dataclass(frozen=True)
class Triple:
    """One triple, or why there is none.

    Attributes:
        critique: JSON text; a list of findings, objects.
        flawed, accepted: pixel digests of the store; `accepted` None where there is none.
        reason: why there is none.
    """

    id: str
    source: str
    text: str
    critique: str
    corrected_text: str | None
    flawed: str
    accepted: str | None
    reason: str | None = None


def export_triples(
    store: Store, folder: Path, pool: Path | None, log: Log = lambda _: None
) -> Exported:
    """Export the triples of the versions in force to `folder`.

    Args:
        pool: of rendered scenes, for its twins; None leaves them out.

    Raises:
        HoiError: there is no source at all, or as `folder.export`.

    Example:
        >>> export_triples(store, Path("triples"), Path("data/pool"))  # doctest: +SKIP
    """
    published = [one for one in store.all_current() if one.asset in (CRITIQUES, REFINED, VERDICTS)]
    twins = None if pool is None else twins_digest(pool)
    if not published and twins is None:
        raise HoiError(
            f"{store.location} holds no critique, no verdict and no twins to make triples of",
            "run the pipelines first (`hoi run`)",
        )
    made_from = {one.name: one.version for one in published} | ({"twins": twins} if twins else {})
    by_source = {
        "detailscribe": list(_of_detailscribe(store)),
        "verifier": list(_of_verifier(store)),
    }

    def write(draft: Draft) -> None:
        counts = []
        for source, found in by_source.items():
            whole = [one for one in found if one.accepted is not None]
            counts.append((source, len(found), len(whole)))
            if whole:
                draft.add(
                    f"data/{source}-00000.parquet",
                    partial(_write, _records(store, whole)),
                )
        if pool is not None and twins is not None:
            total = 0
            for split in TWIN_SPLITS:
                records = list(twin_triples(pool, split))
                total += len(records)
                draft.add(
                    f"data/twins-{TWIN_SPLITS.index(split):05d}.parquet",
                    partial(_write, iter(records)),
                )
            counts.append(("twins", total, total))
        rows = [one for found in by_source.values() for one in found if one.accepted is None]
        left_out = LEFT_OUT.frame(vars(one) for one in rows)
        draft.add_bytes("rejected/rejected.parquet", parquet_bytes(left_out))
        rates = RATES.frame(
            {"source": name, "flawed": all_, "triples": n, "share": n / all_ if all_ else None}
            for name, all_, n in counts
        )
        draft.add_bytes("filter_rates/filter_rates.parquet", parquet_bytes(rates))
        draft.add_text("README.md", _card(rates, made_from))

    return export(folder, Plan("triples", made_from), write, log)


def _of_detailscribe(store: Store) -> Iterator[Triple]:
    for scenario in store.partitions(CRITIQUES):
        critiques = store.require(CRITIQUES, scenario)
        refined = store.current(REFINED, scenario)
        initial = store.current("initial_images", scenario)
        if initial is None:
            continue
        drawn = dict(initial.table("rows").select("image_id", "pixels").iter_rows())
        chosen = _chosen(refined)
        findings = critiques.table("findings").partition_by("row_id", as_dict=True)
        for row in critiques.table("rows").sort("row_id").iter_rows(named=True):
            if row["status"] != "accepted" or row["nothing_to_correct"]:
                continue
            found = findings[row["row_id"],]
            accepted, reason = _accepted(chosen.get(row["row_id"]), row, drawn[row["image_id"]])
            yield Triple(
                id=export_id(f"{row['row_id']} {row['image_id']}"),
                source="detailscribe",
                text=row["prompt"],
                critique=_findings(found),
                corrected_text=row["corrected_prompt"],
                flawed=drawn[row["image_id"]],
                accepted=accepted,
                reason=reason,
            )


def _chosen(refined: Published | None) -> dict[str, dict[str, Any]]:
    """The image that was selected for each row of the benchmark."""
    if refined is None:
        return {}
    rows = refined.table("rows").filter(pl.col("selected"))
    return {row["row_id"]: row for row in rows.iter_rows(named=True)}


def _accepted(
    chosen: dict[str, Any] | None, critique: dict[str, Any], flawed: str
) -> tuple[str | None, str | None]:
    """Pixels of the accepted picture, or the reason why there is none."""
    if chosen is None or chosen["pixels"] is None:
        return None, "no refined picture is published"
    if chosen["pixels"] == flawed:
        return None, "the initial picture was chosen: no variant was better"
    satisfied, wanted = chosen["satisfied"], critique["components"]
    if satisfied is None or satisfied < wanted:
        return None, f"the chosen picture shows {satisfied or 0} of {wanted} components"
    return chosen["pixels"], None


def _findings(rows: pl.DataFrame) -> str:
    names = ("subject", "relation", "object", "satisfied", "confidence", "problem", "correction")
    records = [{name: row[name] for name in names} for row in rows.sort("rank").to_dicts()]
    return json.dumps(records, ensure_ascii=False)


def _of_verifier(store: Store) -> Iterator[Triple]:
    for category in store.partitions(VERDICTS):
        rows = store.require(VERDICTS, category).table("rows").sort("image_id")
        best = rows.filter(pl.col("status") == "accepted").sort(
            pl.col("p_fidelity") * pl.col("p_alignment"), "image_id", descending=[True, False]
        )
        accepted = {row["prompt_id"]: row["pixels"] for row in reversed(best.to_dicts())}
        for row in rows.filter(pl.col("status") == "rejected").iter_rows(named=True):
            names = ("reason", "p_fidelity", "p_alignment", "defect_kind", "defect_share")
            finding = {name: row[name] for name in names if row.get(name) is not None}
            pixels = accepted.get(row["prompt_id"])
            yield Triple(
                id=export_id(row["image_id"]),
                source="verifier",
                text=row["prompt"],
                critique=json.dumps([finding], ensure_ascii=False),
                corrected_text=None,
                flawed=row["pixels"],
                accepted=pixels,
                reason=None if pixels else "no candidate of this prompt was accepted",
            )


def _records(store: Store, triples: list[Triple]) -> Iterator[dict[str, Any]]:
    for one in triples:
        pixels = {"flawed": one.flawed, "accepted": one.accepted or ""}
        yield {
            **{name: getattr(one, name) for name in COLUMNS},
            **{name: marked_picture(store, digest) for name, digest in pixels.items()},
        }


def _write(records: Iterator[dict[str, Any]], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = arrow_schema(PICTURES, COLUMNS)

    def table(rows: list[dict[str, Any]]) -> Any:
        shaped = [
            row
            | {name: {"bytes": row[name], "path": f"{row['id']}-{name}.png"} for name in PICTURES}
            for row in rows
        ]
        return pa.Table.from_pylist(shaped, schema=schema)

    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        waiting: list[dict[str, Any]] = []
        for record in records:
            waiting.append(record)
            if len(waiting) == BATCH_ROWS:
                writer.write_table(table(waiting))
                waiting = []
        if waiting:
            writer.write_table(table(waiting))


def _card(rates: pl.DataFrame, made_from: dict[str, str]) -> str:
    return render(
        "triples.md.j2",
        {
            "rates": rates.to_dicts(),
            "size": size_category(int(rates["triples"].sum())),
            "columns": [*PICTURES, *COLUMNS],
            "versions": dict(sorted(made_from.items())),
        },
    )
