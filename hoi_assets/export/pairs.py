"""What the dataset's exports share: accepted pairs, rejected rows with reasons, filter rates.

All of it is read from the version of `hoi_dataset` in force and from the very versions that it was
made from.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from hoi_assets.engines.vilt.verifier_statement import statements_by_version
from hoi_assets.export.c2pa import Sign
from hoi_assets.picture_marks import TRAINED, mark_png
from hoi_assets.ppv.dataset_files import DATASET_COLUMNS
from hoi_assets.store.tables import Column, Table
from hoi_assets.store.versions import Published, Store

DATASET, VERDICTS, PROMPTS = "hoi_dataset", "verified_pairs", "detailed_prompts"
ID_DIGITS = 20
BATCH_ROWS = 100
OWN_IDS = ("image_id", "prompt_id", "base_prompt_id")  # of the home; never exported as they are
# Columns of an exported pair besides the picture, in order.
PAIR_COLUMNS = (
    "id",
    *(name for name in DATASET_COLUMNS if name != "image_id"),
)
NUMBERS = frozenset({"p_fidelity", "p_alignment"})

REJECTED = Table(
    "rejected",
    "one prompt or pair that did not reach the dataset",
    (
        Column("id", pl.String, "opaque id, 20 hex digits"),
        Column("category", pl.String, "hand-pose category"),
        Column("stage", pl.String, "where it ended: detailed_prompts, verified_pairs, hoi_dataset"),
        Column("status", pl.String, "rejected or failed"),
        Column("reason", pl.String, "why"),
        Column("text", pl.String, "the caption; empty where there is none"),
        Column("p_fidelity", pl.Float64, "probability: free of defects", nullable=True),
        Column("p_alignment", pl.Float64, "probability: agrees with the caption", nullable=True),
        Column("defect_kind", pl.String, "likeliest kind of defect", nullable=True),
    ),
    key=("stage", "id"),
)
FILTER_RATES = Table(
    "filter_rates",
    "how many rows of a stage ended in one way",
    (
        Column("category", pl.String, "hand-pose category, or all"),
        Column("stage", pl.String, "detailed_prompts, verified_pairs or hoi_dataset"),
        Column("status", pl.String, "accepted, rejected or failed"),
        Column("code", pl.String, "the reason's code; null where accepted", nullable=True),
        Column("rows", pl.Int64, "rows that ended so"),
        Column("of", pl.Int64, "rows of the category in that stage"),
        Column("share", pl.Float64, "rows / of", "0..1"),
    ),
    key=("category", "stage", "status", "code"),
)


def export_id(own_id: str) -> str:
    """The opaque id under which a row of the home is exported: 20 hex digits.

    Example:
        >>> export_id("0123456789abcdef")
        '66a8150077c79d69b070'
    """
    return hashlib.sha256(f"hoi-export\n{own_id}".encode()).hexdigest()[:ID_DIGITS]


@dataclass(frozen=True)
class Pairs:
    """The dataset of a store, with what was left out on the way.

    Attributes:
        dataset: version of `hoi_dataset`.
        stages: versions of detailed_prompts and verified_pairs that it was made from, by stage,
            then by category.
    """

    store: Store
    dataset: Published
    stages: Mapping[str, Mapping[str, Published]]

    @staticmethod
    def open(store: Store) -> "Pairs":
        """The dataset in force.

        Raises:
            HoiError: there is none, or a version that it was made from was pruned.
        """
        dataset = store.require(DATASET)
        made_from = _flat(dataset.inputs) | dataset.parents
        stages: dict[str, dict[str, Published]] = {PROMPTS: {}, VERDICTS: {}}
        for name, version in sorted(made_from.items()):
            asset, _, category = name.partition("/")
            if asset in stages and category:
                stages[asset][category] = store.version(asset, category, version)
        return Pairs(store, dataset, stages)

    @property
    def made_from(self) -> dict[str, str]:
        """Versions of all that is read, by "asset" or "asset/partition"."""
        parts = [one for stage in self.stages.values() for one in stage.values()]
        return {one.name: one.version for one in (self.dataset, *parts)}

    @property
    def categories(self) -> list[str]:
        return sorted(self.stages[VERDICTS])

    @cached_property
    def files(self) -> list[Path]:
        """The dataset's Parquet files, `<split>-<number>.parquet`, checked, in order of name."""
        return sorted((self.dataset.file("dataset") / "data").glob("*.parquet"))

    @cached_property
    def statements(self) -> dict[str, str]:
        """By version of the verifiers, what they can and cannot tell."""
        return statements_by_version(self.store, self._verifiers())

    def rejected(self) -> Iterator[pl.DataFrame]:
        """Tables `REJECTED`, one per stage and category that left something out."""
        for stage, by_category in self.stages.items():
            for category, published in by_category.items():
                rows = published.table("rows").filter(pl.col("status") != "accepted")
                if rows.height:
                    yield _rejected_rows(rows, stage, category)
        duplicates = self.dataset.table("rows").filter(pl.col("status") != "accepted")
        for (category,), rows in duplicates.group_by("category", maintain_order=True):
            yield _rejected_rows(rows, DATASET, str(category))

    @cached_property
    def rates(self) -> pl.DataFrame:
        """Table `FILTER_RATES`, of every category and of all together."""
        counted = [
            _counted(published.table("rows"), stage, category)
            for stage, by_category in self.stages.items()
            for category, published in by_category.items()
        ]
        packed = self.dataset.table("rows")
        counted += [
            _counted(rows, DATASET, str(category))
            for (category,), rows in packed.group_by("category", maintain_order=True)
        ]
        each = pl.concat(counted)
        every = each.group_by("stage", "status", "code").agg(pl.col("rows").sum())
        whole = every.with_columns(category=pl.lit("all")).select(each.columns)
        found = pl.concat([whole, each]).with_columns(
            of=pl.col("rows").sum().over("category", "stage")
        )
        order = {PROMPTS: 0, VERDICTS: 1, DATASET: 2}
        return (
            found.with_columns(share=pl.col("rows") / pl.col("of"))
            .sort(
                pl.col("category") != "all",
                "category",
                pl.col("stage").replace_strict(order),
                "status",
                "code",
                nulls_last=True,
            )
            .select(*FILTER_RATES.schema)
        )

    def counts(self) -> dict[str, int]:
        """Accepted pairs by split."""
        rows = self.dataset.table("rows").filter(pl.col("status") == "accepted")
        return dict(rows.group_by("split").len().sort("split").iter_rows())

    def _verifiers(self) -> set[str]:
        return {
            version
            for published in self.stages[VERDICTS].values()
            for version in published.table("rows")["verifier_version"].unique()
        }


def read_pairs(path: Path, sign: Sign | None = None) -> Iterator[list[dict[str, Any]]]:
    """The pairs of one of the dataset's files, `BATCH_ROWS` at a time: `PAIR_COLUMNS`, and `png`,
    the marked picture, signed where asked. Pixels and captions are as they were published."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(BATCH_ROWS):
            rows = [_exported(row) for row in batch.to_pylist()]
            yield [row | {"png": sign(row["png"])} for row in rows] if sign else rows


def _exported(row: dict[str, Any]) -> dict[str, Any]:
    ids = {name: export_id(row[name]) if row[name] else None for name in OWN_IDS}
    shown = {**row, **ids, "id": ids["image_id"]}
    return {
        **{name: shown[name] for name in PAIR_COLUMNS},
        "png": mark_png(row["image"]["bytes"], TRAINED),
    }


def _rejected_rows(rows: pl.DataFrame, stage: str, category: str) -> pl.DataFrame:
    key = "prompt_id" if stage == PROMPTS else "image_id"
    records = [
        {
            "id": export_id(row[key]),
            "category": category,
            "stage": stage,
            "status": row["status"],
            "reason": _without_own_ids(row["reason"]),
            "text": row["prompt"] or "",
            **{name: row.get(name) for name in ("p_fidelity", "p_alignment", "defect_kind")},
        }
        for row in rows.sort(key).iter_rows(named=True)
    ]
    return REJECTED.frame(records)


def _without_own_ids(reason: str | None) -> str:
    """A reason that names an image of the home names its export id."""
    return re.sub(
        r"(_duplicate of )(\S+)", lambda found: found[1] + export_id(found[2]), reason or ""
    )


def _counted(rows: pl.DataFrame, stage: str, category: str) -> pl.DataFrame:
    """Rows by how they ended: category, stage, status, code, rows."""
    code = pl.col("reason").cast(pl.String).str.extract(r"^([^:]+?)(?: of .*|:.*)?$")
    return (
        rows.select("status", code=pl.when(pl.col("status") != "accepted").then(code))
        .group_by("status", "code")
        .agg(rows=pl.len().cast(pl.Int64))
        .select(
            pl.lit(category).alias("category"),
            pl.lit(stage).alias("stage"),
            "status",
            "code",
            "rows",
        )
    )


def _flat(inputs: Mapping[str, Any]) -> dict[str, str]:
    """Names and versions of parents, at any depth of a version's inputs."""
    found: dict[str, str] = {}
    for name, value in inputs.items():
        if isinstance(value, Mapping):
            found |= _flat(value)
        elif isinstance(value, str):
            found[name] = value
    return found
