"""The dataset as files that other tools open: Parquet with the images inside, and a card.

`datasets.load_dataset(folder)` opens `<folder>/data/<split>-*.parquet`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from hoi_assets.picture_marks import mark_png
from hoi_assets.ppv.splits import SPLITS
from hoi_assets.settings import Dataset
from hoi_assets.store.disk import writing
from hoi_assets.taxonomy import Taxonomy

TEMPLATES = Path(__file__).parent / "templates"
CARD_TEMPLATE = "dataset_card.md.j2"
# A file is closed when its images exceed this.
SHARD_BYTES = 400 << 20
ROWS_PER_GROUP = 100
DATASET_COLUMNS = (
    "image_id",
    "text",
    "category",
    "object",
    "colour",
    "material",
    "skin_tone",
    "side",
    "view",
    "light",
    "background",
    "base_prompt_id",
    "prompt_id",
    "p_fidelity",
    "p_alignment",
    "pixels",
    "verifier_version",
)


def write_dataset_files(
    folder: Path, rows: pl.DataFrame, read_image: Callable[[str], bytes]
) -> dict[str, int]:
    """Write `<folder>/data/<split>-00000.parquet` and on; a split without rows has no file.

    Equal rows give equal bytes. Pictures carry the mark of AI generation; those of
    `ROWS_PER_GROUP` rows are in memory at a time.

    Args:
        rows: with `split`, `prompt`, `pixels` and any of `DATASET_COLUMNS`.
        read_image: encoded bytes (PNG) of a pixel digest.

    Returns:
        Number of rows by split.
    """
    data, counts = folder / "data", dict[str, int]()
    with writing(data):
        data.mkdir(parents=True, exist_ok=True)
        for split in SPLITS:
            own = rows.filter(pl.col("split") == split)
            _write_split(data, split, own, read_image)
            counts[split] = own.height
    return counts


def _write_split(
    data: Path,
    split: str,
    rows: pl.DataFrame,
    read_image: Callable[[str], bytes],
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = dataset_arrow_schema()
    writer, shard, size = None, 0, 0
    try:
        for part in rows.iter_slices(ROWS_PER_GROUP):
            records = [_record(row, read_image) for row in part.iter_rows(named=True)]
            if writer is None or size > SHARD_BYTES:
                if writer is not None:
                    writer.close()
                path = data / f"{split}-{shard:05d}.parquet"
                writer, shard, size = (
                    pq.ParquetWriter(path, schema, compression="zstd"),
                    shard + 1,
                    0,
                )
            writer.write_table(pa.Table.from_pylist(records, schema=schema))
            size += sum(len(record["image"]["bytes"]) for record in records)
    finally:
        if writer is not None:
            writer.close()


def _record(row: Mapping[str, Any], read_image: Callable[[str], bytes]) -> dict[str, Any]:
    image = {"bytes": mark_png(read_image(row["pixels"])), "path": f"{row['image_id']}.png"}
    return {
        "image": image,
        **{name: row.get(name) for name in DATASET_COLUMNS},
        "text": row["prompt"],
    }


def dataset_arrow_schema() -> Any:
    """The Arrow schema, with the metadata that marks the image column for `datasets`.

    The metadata is what `datasets.Features(...).arrow_schema` writes; that package takes seconds
    to import and is not needed for it.
    """
    import pyarrow as pa

    numbers = {"p_fidelity", "p_alignment"}
    fields = [pa.field("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))]
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    for name in DATASET_COLUMNS:
        fields.append(pa.field(name, pa.float64() if name in numbers else pa.string()))
        kind = "float64" if name in numbers else "string"
        features[name] = {"dtype": kind, "_type": "Value"}
    metadata = json.dumps({"info": {"features": features}})
    return pa.schema(fields, metadata={"huggingface": metadata})


def dataset_card(
    rows: pl.DataFrame,
    taxonomy: Taxonomy,
    config: Dataset,
    *,
    candidates: int,
    duplicates: int,
    missing: Sequence[str],
    versions: Mapping[str, str],
    statements: Mapping[str, str],
    sources: Mapping[str, str],
) -> str:
    """The dataset card (README.md): YAML header, what the verifier can tell, counts, provenance,
    licences, known limits.

    Args:
        statements: by version of `verifier`, what it can and cannot tell.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # Markdown
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    grouped = rows.group_by("category", "split").len().iter_rows()
    sizes = {(category, split): size for category, split, size in grouped}
    counts = {
        category: {split: sizes.get((category, split), 0) for split in SPLITS}
        for category in rows["category"].unique(maintain_order=True)
    }
    return environment.get_template(CARD_TEMPLATE).render(
        splits=[split for split in SPLITS if (rows["split"] == split).any()],
        all_splits=SPLITS,
        columns=DATASET_COLUMNS,
        counts=counts,
        names={key: taxonomy.categories[key].name for key in counts},
        total=rows.height,
        base_prompts=rows["base_prompt_id"].n_unique(),
        candidates=candidates,
        duplicates=duplicates,
        missing=list(missing),
        versions=dict(sorted(versions.items())),
        statements=dict(statements),
        sources=dict(sources),
        config=config,
    )
