"""The dataset as a Hugging Face dataset: Parquet with the pictures inside, and a card.

`datasets.load_dataset(folder, streaming=True)` opens the accepted pairs;
`load_dataset(folder, "rejected")` and `"filter_rates"` what was left out, and how much of it.
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

from hoi_assets.export.c2pa import Sign, Signer, signed_by
from hoi_assets.export.cards import dataset_card
from hoi_assets.export.folder import Draft, Exported, Plan, export
from hoi_assets.export.pairs import NUMBERS, PAIR_COLUMNS, Pairs, read_pairs
from hoi_assets.progress import Log
from hoi_assets.store.staging import parquet_bytes
from hoi_assets.store.versions import Store


def export_dataset(
    store: Store, folder: Path, log: Log = lambda _: None, signer: Signer | None = None
) -> Exported:
    """Export the dataset in force to `folder`.

    Args:
        signer: gives every picture a C2PA manifest; None: the mark in XMP alone.

    Raises:
        HoiError: there is no dataset, or as `folder.export`.

    Example:
        >>> export_dataset(store, Path("pairs"))  # doctest: +SKIP
    """
    pairs = Pairs.open(store)

    def write(draft: Draft) -> None:
        for path in pairs.files:
            draft.add(f"data/{path.name}", partial(_write, path, signer))
        add_left_out(pairs, draft)
        draft.add_text("README.md", dataset_card(pairs, "dataset"))

    return export(folder, Plan("dataset", pairs.made_from, signed_by(signer)), write, log)


def add_left_out(pairs: Pairs, draft: Draft) -> None:
    """Add the rejected rows and the filter rates as Parquet."""
    for number, rows in enumerate(pairs.rejected()):
        draft.add_bytes(f"rejected/rejected-{number:05d}.parquet", parquet_bytes(rows))
    draft.add_bytes("filter_rates/filter_rates.parquet", parquet_bytes(pairs.rates))


def _write(source: Path, sign: Sign | None, target: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema()
    with pq.ParquetWriter(target, schema, compression="zstd") as writer:
        for rows in read_pairs(source, sign):
            records = [
                {**row, "image": {"bytes": row["png"], "path": f"{row['id']}.png"}} for row in rows
            ]
            writer.write_table(pa.Table.from_pylist(records, schema=schema))


def _schema() -> Any:
    """The Arrow schema, with the metadata that marks the picture's column for `datasets`."""
    return arrow_schema(("image",), PAIR_COLUMNS)


def arrow_schema(pictures: tuple[str, ...], columns: tuple[str, ...]) -> Any:
    """An Arrow schema of pictures, then text and numbers, as `datasets` reads it."""
    import pyarrow as pa

    picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    fields = [pa.field(name, picture) for name in pictures]
    features: dict[str, Any] = {name: {"_type": "Image"} for name in pictures}
    for name in columns:
        number = name in NUMBERS
        fields.append(pa.field(name, pa.float64() if number else pa.string()))
        features[name] = {"dtype": "float64" if number else "string", "_type": "Value"}
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})
