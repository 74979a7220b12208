"""The dataset as a folder that other tools open: `datasets.load_dataset(folder)`.

Accepted pairs become Parquet with the pictures inside, one or more files per split, and a dataset
card. Duplicates are left out with the reason; a base prompt lies in one split only.
"""

import hashlib
import json
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from hoi_assets.errors import HoiError
from hoi_assets.hashing import digest_pixels
from hoi_assets.settings import Dataset
from hoi_assets.store.disk import writing
from hoi_assets.store.versions import Published, Store
from hoi_assets.taxonomy import Taxonomy

if TYPE_CHECKING:
    from PIL import Image

SPLITS = ("train", "validation", "test")
TEMPLATES = Path(__file__).parent / "templates"
CARD_TEMPLATE = "dataset_card.md.j2"
# A file is closed when its pictures exceed this.
SHARD_BYTES = 400 << 20
ROWS_PER_GROUP = 100
# A perceptual hash sees shapes only. Pictures whose 8 x 8 thumbnails differ by more than this
# (mean over pixels and channels, 0..255) are not duplicates: a red ball is not a blue ball.
MAX_COLOUR_DIFFERENCE = 10.0

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
ROWS_SCHEMA: dict[str, Any] = {
    "image_id": pl.String,
    "prompt_id": pl.String,
    "base_prompt_id": pl.String,
    "category": pl.String,
    "prompt": pl.String,
    "pixels": pl.String,
    "split": pl.String,
    "status": pl.String,
    "reason": pl.String,
}


@dataclass(frozen=True)
class Duplicate:
    """`image_id` shows what `of`, which is kept, shows; `kind` is exact or perceptual."""

    image_id: str
    of: str
    kind: str

    @property
    def reason(self) -> str:
        """For the ledger."""
        return f"{self.kind}_duplicate of {self.of}"


def near_duplicates(images: Iterable[tuple[str, "Image.Image"]], distance: int) -> list[Duplicate]:
    """Find pictures that repeat an earlier one.

    Exact: equal pixels. Perceptual: 64-bit pHash (DCT of brightness; Zauner 2010) at most
    `distance` bits apart, and alike in colour. The first of a kind is kept, so the order matters
    and what is added at the end never pushes out what came before.

    Args:
        images: (id, picture), taken one at a time.
        distance: 0..64 bits.
    """
    import imagehash

    seen: dict[str, tuple[str, str]] = {}
    kept: list[str] = []
    hashes = array("Q")
    colours: list[np.ndarray] = []
    found = []
    for image_id, image in images:
        pixels = digest_pixels(image)
        if pixels in seen:
            found.append(Duplicate(image_id, *seen[pixels]))
            continue
        rgb = image.convert("RGB")
        bits = int(str(imagehash.phash(rgb)), 16)
        colour = np.asarray(rgb.resize((8, 8)), dtype=np.float32)
        apart = np.bitwise_count(np.array(hashes, dtype=np.uint64) ^ np.uint64(bits))
        near = next(
            (
                number
                for number in np.flatnonzero(apart <= distance)
                if np.abs(colours[number] - colour).mean() <= MAX_COLOUR_DIFFERENCE
            ),
            None,
        )
        if near is not None:
            seen[pixels] = kept[near], "perceptual"
            found.append(Duplicate(image_id, *seen[pixels]))
            continue
        seen[pixels] = image_id, "exact"
        kept.append(image_id)
        hashes.append(bits)
        colours.append(colour)
    return found


def split_by_base_prompt(
    base_prompt_ids: Iterable[str],
    validation_share: float,
    test_share: float,
    seed: int = 0,
) -> dict[str, str]:
    """Assign each base prompt to train, validation or test.

    An id's place in 0..1 is the hash of (seed, id): test below `test_share`, then validation, then
    train. So adding base prompts moves none of the others, with one exception: while a split would
    be empty and there are at least three base prompts, it borrows from the largest split the one
    that lies nearest to its range.

    Returns:
        By base prompt id: train, validation or test. Fewer than three ids are all train.
    """
    places = {name: _place(seed, name) for name in sorted(set(base_prompt_ids))}
    if len(places) < len(SPLITS):
        return dict.fromkeys(places, SPLITS[0])
    bounds = {
        "test": (0.0, test_share),
        "validation": (test_share, test_share + validation_share),
        "train": (test_share + validation_share, 1.0),
    }
    split = {
        name: next((s for s, (low, high) in bounds.items() if low <= place < high), "train")
        for name, place in places.items()
    }
    for empty in bounds:
        if empty in split.values():
            continue
        members = [[name for name, own in split.items() if own == other] for other in bounds]
        largest = sorted(members, key=len)[-1]
        middle = sum(bounds[empty]) / 2
        nearest = min(largest, key=lambda name: abs(places[name] - middle))
        split[nearest] = empty
    return split


def _place(seed: int, name: str) -> float:
    return int(hashlib.sha256(f"{seed}\n{name}".encode()).hexdigest()[:13], 16) / 16**13


def package(
    store: Store,
    config: Dataset,
    taxonomy: Taxonomy,
    *,
    verdicts: Mapping[str, Published],
    prompts: Mapping[str, Published],
    missing: Sequence[str],
    folder: Path,
    sources: Mapping[str, str] | None = None,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Write the accepted pairs of all published categories as a dataset.

    Args:
        verdicts: versions of `verified_pairs` by category; prompts: of `detailed_prompts`.
        missing: categories without a published version, for the card.
        folder: where the dataset goes; made if absent.
        sources: further provenance for the card, e.g. {"base model": "..., revision ..."}.

    Returns:
        rows (image_id, prompt_id, base_prompt_id, category, prompt, pixels, split, status
        accepted | rejected, reason), one per accepted verdict; and a summary of one row.

    Raises:
        HoiError: no pair was accepted, or a picture is missing or damaged.
    """
    pairs = _accepted(taxonomy, verdicts, prompts)
    if not pairs.height:
        raise HoiError(
            f"hoi_dataset: no accepted pair in {', '.join(verdicts) or 'any category'}",
            "draw more candidates (candidates.per_prompt, candidates.budget) or lower "
            "verifier.target_precision",
        )
    ids, pixels = pairs["image_id"].to_list(), pairs["pixels"].to_list()
    duplicates = {
        duplicate.image_id: duplicate
        for duplicate in near_duplicates(
            ((image, store.images.open(name)) for image, name in zip(ids, pixels, strict=True)),
            config.perceptual_hash_distance,
        )
    }
    splits = split_by_base_prompt(
        pairs.filter(~pl.col("image_id").is_in(list(duplicates)))["base_prompt_id"],
        config.validation_share,
        config.test_share,
        config.seed,
    )
    decided = [
        {
            **row,
            "split": None if row["image_id"] in duplicates else splits[row["base_prompt_id"]],
            "status": "rejected" if row["image_id"] in duplicates else "accepted",
            "reason": duplicates[row["image_id"]].reason if row["image_id"] in duplicates else None,
        }
        for row in pairs.iter_rows(named=True)
    ]
    kept = [row for row in decided if row["status"] == "accepted"]
    counts = write_dataset(folder, kept, lambda name: store.images.path(name).read_bytes())
    summary = {
        "rows": len(kept),
        "categories": len({row["category"] for row in kept}),
        **counts,
        "duplicates": len(duplicates),
        "missing_categories": ", ".join(missing),
    }
    versions = {one.name: one.version for one in (*verdicts.values(), *prompts.values())}
    card = dataset_card(
        kept,
        taxonomy,
        config,
        candidates=sum(one.table("rows").height for one in verdicts.values()),
        duplicates=len(duplicates),
        missing=missing,
        versions=versions,
        sources=sources or {},
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
    table = [{name: row[name] for name in ROWS_SCHEMA} for row in decided]
    return pl.DataFrame(table, schema=ROWS_SCHEMA), pl.DataFrame([summary])


def _accepted(
    taxonomy: Taxonomy, verdicts: Mapping[str, Published], prompts: Mapping[str, Published]
) -> pl.DataFrame:
    """Accepted pairs with what their prompts say, in the order of taxonomy and image id."""
    tables = []
    for category in [key for key in taxonomy.categories if key in verdicts]:
        if category not in prompts:
            raise HoiError(
                f"hoi_dataset: detailed_prompts/{category} is not published",
                f"materialise detailed_prompts for {category}",
            )
        said = prompts[category].table("rows")
        columns = [name for name in said.columns if name in (*DATASET_COLUMNS, "base_prompt_id")]
        said = said.select(columns).unique("prompt_id", keep="first").drop("category", strict=False)
        pairs = verdicts[category].table("rows").filter(pl.col("status") == "accepted")
        tables.append(pairs.sort("image_id").join(said, on="prompt_id", how="left"))
    return pl.concat(tables, how="diagonal_relaxed") if tables else pl.DataFrame()


def write_dataset(
    folder: Path, rows: Sequence[Mapping[str, Any]], read_picture: Callable[[str], bytes]
) -> dict[str, int]:
    """Write `<folder>/data/<split>-00000.parquet` and on; a split without rows has no file.

    Equal rows give equal bytes.

    Args:
        rows: with `split`, `prompt`, `pixels` and any of DATASET_COLUMNS.
        read_picture: encoded bytes (PNG) of a pixel digest.

    Returns:
        Number of rows by split.
    """
    data = folder / "data"
    with writing(data):
        data.mkdir(parents=True, exist_ok=True)
        for split in SPLITS:
            _write_split(data, split, [r for r in rows if r["split"] == split], read_picture)
    return {split: sum(row["split"] == split for row in rows) for split in SPLITS}


def _write_split(
    data: Path,
    split: str,
    rows: Sequence[Mapping[str, Any]],
    read_picture: Callable[[str], bytes],
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _arrow_schema()
    writer, shard, size = None, 0, 0
    try:
        for start in range(0, len(rows), ROWS_PER_GROUP):
            records = [_record(row, read_picture) for row in rows[start : start + ROWS_PER_GROUP]]
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


def _record(row: Mapping[str, Any], read_picture: Callable[[str], bytes]) -> dict[str, Any]:
    image = {"bytes": read_picture(row["pixels"]), "path": f"{row['image_id']}.png"}
    return {
        "image": image,
        **{name: row.get(name) for name in DATASET_COLUMNS},
        "text": row["prompt"],
    }


def _arrow_schema() -> Any:
    """Columns as Arrow, with the note by which `datasets` knows the picture column.

    The note is what `datasets.Features(...).arrow_schema` writes; that package takes seconds to
    import and is not needed for it.
    """
    import pyarrow as pa

    numbers = {"p_fidelity", "p_alignment"}
    fields = [pa.field("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))]
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    for name in DATASET_COLUMNS:
        fields.append(pa.field(name, pa.float64() if name in numbers else pa.string()))
        kind = "float64" if name in numbers else "string"
        features[name] = {"dtype": kind, "_type": "Value"}
    note = json.dumps({"info": {"features": features}})
    return pa.schema(fields, metadata={"huggingface": note})


def dataset_card(
    rows: Sequence[Mapping[str, Any]],
    taxonomy: Taxonomy,
    config: Dataset,
    *,
    candidates: int,
    duplicates: int,
    missing: Sequence[str],
    versions: Mapping[str, str],
    sources: Mapping[str, str],
) -> str:
    """The dataset card (README.md): YAML header, counts, provenance, licences, known limits."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # Markdown
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    counts = {
        category: {
            split: sum(r["category"] == category and r["split"] == split for r in rows)
            for split in SPLITS
        }
        for category in dict.fromkeys(row["category"] for row in rows)
    }
    return environment.get_template(CARD_TEMPLATE).render(
        splits=[split for split in SPLITS if any(row["split"] == split for row in rows)],
        all_splits=SPLITS,
        columns=DATASET_COLUMNS,
        counts=counts,
        names={key: taxonomy.categories[key].name for key in counts},
        total=len(rows),
        base_prompts=len({row["base_prompt_id"] for row in rows}),
        candidates=candidates,
        duplicates=duplicates,
        missing=list(missing),
        versions=dict(sorted(versions.items())),
        verifier_versions=sorted({row["verifier_version"] for row in rows}),
        sources=dict(sources),
        config=config,
    )
