"""The dataset: the accepted pairs of all categories, de-duplicated, split and written as files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from hoi_assets.engines.vilt.verifier_statement import statements_by_version
from hoi_assets.errors import HoiError
from hoi_assets.ppv.dataset_files import DATASET_COLUMNS, dataset_card, write_dataset_files
from hoi_assets.ppv.image_duplicates import DuplicateImage, find_duplicate_images
from hoi_assets.ppv.splits import split_by_base_prompt
from hoi_assets.settings import Dataset
from hoi_assets.store.tables import Column, Table
from hoi_assets.store.versions import Store
from hoi_assets.taxonomy import Taxonomy

DATASET_ROWS = Table(
    "rows",
    "one accepted verdict: a pair of the dataset, or a duplicate that was left out",
    (
        Column("image_id", pl.String, "the image, 16 hex digits"),
        Column("prompt_id", pl.String, "its detailed prompt, 16 hex digits"),
        Column("base_prompt_id", pl.String, "its base prompt, 16 hex digits"),
        Column("category", pl.String, "hand-pose category"),
        Column("prompt", pl.String, "the caption"),
        Column("pixels", pl.String, "digest of the pixels"),
        Column("split", pl.String, "train, validation or test; null where rejected", nullable=True),
        Column("status", pl.String, "accepted, or rejected as a duplicate"),
        Column("reason", pl.String, "the image it duplicates, and how", nullable=True),
    ),
    key=("image_id",),
)
DATASET_SUMMARY = Table(
    "summary",
    "the dataset, counted",
    (
        Column("rows", pl.Int64, "pairs in the dataset"),
        Column("categories", pl.Int64, "categories with at least one pair"),
        Column("train", pl.Int64, "pairs of the train split"),
        Column("validation", pl.Int64, "pairs of the validation split"),
        Column("test", pl.Int64, "pairs of the test split"),
        Column("duplicates", pl.Int64, "accepted pairs left out as duplicates"),
        Column("missing_categories", pl.String, "categories without a published version"),
    ),
)


def package_dataset(
    store: Store,
    config: Dataset,
    taxonomy: Taxonomy,
    *,
    verdicts: Mapping[str, pl.DataFrame],
    prompts: Mapping[str, pl.DataFrame],
    versions: Mapping[str, str],
    missing: Sequence[str],
    folder: Path,
    sources: Mapping[str, str] | None = None,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Write the accepted pairs of all published categories as a dataset.

    Args:
        verdicts: rows of `verified_pairs` by category.
        prompts: rows of `detailed_prompts` by category.
        versions: what both were read from, by `asset/category`, for the card.
        missing: categories without a published version, for the card.
        folder: where the dataset is written; created if absent.
        sources: further provenance for the card, e.g. {"base model": "..., revision ..."}.

    Returns:
        Tables `DATASET_ROWS` and `DATASET_SUMMARY`.

    Raises:
        HoiError: no pair was accepted, or an image is missing or damaged.
    """
    pairs = _accepted_pairs(taxonomy, verdicts, prompts)
    if not pairs.height:
        raise HoiError(
            f"hoi_dataset: no accepted pair in {', '.join(verdicts) or 'any category'}",
            "draw more candidates (candidates.per_prompt, candidates.budget) or lower "
            "verifier.target_precision",
        )
    ids, pixels = pairs["image_id"].to_list(), pairs["pixels"].to_list()
    duplicates = {
        duplicate.image_id: duplicate
        for duplicate in find_duplicate_images(
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
    decided = _decide(pairs, duplicates, splits)
    accepted = decided.filter(pl.col("status") == "accepted")
    counts = write_dataset_files(folder, accepted, store.images.png_bytes)
    summary = {
        "rows": accepted.height,
        "categories": accepted["category"].n_unique(),
        **counts,
        "duplicates": len(duplicates),
        "missing_categories": ", ".join(missing),
    }
    card = dataset_card(
        accepted,
        taxonomy,
        config,
        candidates=sum(table.height for table in verdicts.values()),
        duplicates=len(duplicates),
        missing=missing,
        versions=versions,
        statements=statements_by_version(store, accepted["verifier_version"].unique()),
        sources=sources or {},
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
    rows = decided.select(pl.col(name).cast(kind) for name, kind in DATASET_ROWS.schema.items())
    return rows, DATASET_SUMMARY.frame([summary])


def _decide(
    pairs: pl.DataFrame, duplicates: Mapping[str, DuplicateImage], splits: Mapping[str, str]
) -> pl.DataFrame:
    """The pairs with `split`, `status` and `reason`; duplicates are rejected."""
    repeated = pl.DataFrame(
        {"image_id": list(duplicates), "_why": [one.reason for one in duplicates.values()]},
        schema={"image_id": pl.String, "_why": pl.String},
    )
    split = pl.col("base_prompt_id").replace_strict(splits, default=None, return_dtype=pl.String)
    dropped = pl.col("_why").is_not_null()
    return (
        pairs.join(repeated, on="image_id", how="left", maintain_order="left")
        .with_columns(
            split=pl.when(~dropped).then(split),
            status=pl.when(dropped).then(pl.lit("rejected")).otherwise(pl.lit("accepted")),
            reason=pl.col("_why"),
        )
        .drop("_why")
    )


def _accepted_pairs(
    taxonomy: Taxonomy, verdicts: Mapping[str, pl.DataFrame], prompts: Mapping[str, pl.DataFrame]
) -> pl.DataFrame:
    """Accepted pairs joined with their prompts' slots, ordered by taxonomy and image id."""
    tables = []
    for category in [key for key in taxonomy.categories if key in verdicts]:
        if category not in prompts:
            raise HoiError(
                f"hoi_dataset: detailed_prompts/{category} is not published",
                f"materialise detailed_prompts for {category}",
            )
        slots = prompts[category]
        columns = [name for name in slots.columns if name in (*DATASET_COLUMNS, "base_prompt_id")]
        slots = slots.select(columns).unique("prompt_id", keep="first")
        pairs = verdicts[category]
        kept = [name for name in pairs.columns if name in ("prompt", *DATASET_COLUMNS)]
        pairs = pairs.filter(pl.col("status") == "accepted").select(kept)
        tables.append(
            pairs.sort("image_id").join(
                slots.drop("category", strict=False), on="prompt_id", how="left"
            )
        )
    return pl.concat(tables, how="diagonal_relaxed") if tables else pl.DataFrame()
