"""Scores of a folder of images, whoever made them.

Scores depend on pixels and prompts alone: neither on names nor on the order of files or lines.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from hoi_assets.engines.text_tokens import PROMPT_CUT, PROMPT_TOKENS, prompt_values
from hoi_assets.errors import HoiError
from hoi_assets.evaluation.columns import CI_HIGH, CI_LOW, METRIC, PROMPTS
from hoi_assets.evaluation.folder_reading import FolderImage
from hoi_assets.evaluation.read_prompts import count_read_tokens
from hoi_assets.evaluation.run_metrics import Describe, Rows, score_rows
from hoi_assets.hashing import digest, digest_pixels
from hoi_assets.picture_files import open_picture
from hoi_assets.progress import Log
from hoi_assets.settings import Settings
from hoi_assets.statistics import (
    SAMPLES,
    Numbers,
    group_means,
    mean_interval,
    percentile_rank,
)
from hoi_assets.store.disk import replace_bytes, writing
from hoi_assets.store.images import ImageStore
from hoi_assets.store.tables import Column, Table
from hoi_assets.store.versions import Store, parquet_bytes

if TYPE_CHECKING:
    from PIL import Image

TABLE_SUFFIXES = (".parquet", ".csv")
FILE_MODE = 0o644

FOLDER_SCORES = Table(
    "scores",
    "value of one metric for one file, or a file or line that could not be scored",
    (
        Column("file", pl.String, "name below the folder; empty where a line names no file"),
        Column("line", pl.Int64, "line of the prompts file, from 1", nullable=True),
        Column("prompt", pl.String, "the prompt", nullable=True),
        Column("pixels", pl.String, "digest of the pixels; null if unreadable", nullable=True),
        Column("metric", pl.String, "name of the metric; null if not scored", nullable=True),
        Column("value", pl.Float64, "the score; null where it could not be had", nullable=True),
        PROMPT_TOKENS,
        PROMPT_CUT,
        Column(
            "percentile",
            pl.Float64,
            "percentile of the value among the reference set's scores, 0..100",
            nullable=True,
        ),
        Column("status", pl.String, "accepted or failed"),
        Column("reason", pl.String, "code: detail, where it failed", nullable=True),
    ),
)
FOLDER_SUMMARY = Table(
    "summary",
    "mean of one metric over the folder",
    (
        METRIC,
        Column("n", pl.Int64, "images with a score"),
        PROMPTS,
        Column("missing", pl.Int64, "images without a score"),
        Column("mean", pl.Float64, "mean over prompts; null without a score", nullable=True),
        CI_LOW,
        CI_HIGH,
        Column(
            "percentile",
            pl.Float64,
            "percentile of the mean among the reference set's scores, 0..100",
            nullable=True,
        ),
    ),
    key=("metric",),
)

# By metric, a value or the reason (`code: detail`) why it is missing.
Asked = list[dict[str, tuple[float | None, str | None]]]
Ask = Callable[[Store, Rows], Asked]


class FolderStore(Store):
    """A store that also opens pictures where they lie, by the digest of their pixels.

    Args:
        home: as of `Store`; scores that are known there are not computed again.
        paths: by digest.
    """

    def __init__(self, home: Path, paths: Mapping[str, Path]) -> None:
        super().__init__(home)
        self._paths = paths

    @cached_property
    def images(self) -> ImageStore:
        """The images of the store and of the folder."""
        return _FolderImages(self.home / "images", self.staging, self._paths)


class _FolderImages(ImageStore):
    def __init__(self, folder: Path, temporary: Path, paths: Mapping[str, Path]) -> None:
        super().__init__(folder, temporary)
        self._paths = paths

    def open(self, digest: str) -> "Image.Image":
        path = self._paths.get(digest)
        if path is None:
            return super().open(digest)
        try:
            image = open_picture(path)
        except ValueError as error:
            raise _changed(path) from error
        if digest_pixels(image) != digest:
            raise _changed(path)
        return image


def _changed(path: Path) -> HoiError:
    return HoiError(
        f"{path} changed while it was scored", "leave the folder unchanged and run again"
    )


def folder_store(home: Path, images: Path, pictures: Sequence[FolderImage]) -> FolderStore:
    """The store at `home` with the pictures of the folder."""
    return FolderStore(home, {one.pixels: images / one.file for one in pictures if one.pixels})


def score_pictures(
    store: Store,
    settings: Settings,
    pictures: Sequence[FolderImage],
    describe: Describe,
    log: Log,
    ask: Ask | None = None,
) -> pl.DataFrame:
    """Every metric of every picture.

    Args:
        store: see `folder_store`.
        describe: by prompt, the fields `phrases` and `questions`, and `reason` where there are
            none; see `run_metrics.score_rows`.
        ask: a further judge of the rows, e.g. an endpoint's rating.

    Returns:
        Table of FOLDER_SCORES, sorted by file, one row per metric, `percentile` not yet known. A
        metric that could not be had is failed, with the reason. A picture that could not be scored
        has one row, without a metric.
    """
    # One row for equal pictures of one prompt. By content, not by name: the order gives the places.
    pairs = sorted({(one.pixels, one.prompt) for one in pictures if one.pixels and one.prompt})
    rows = [{"pixels": pixels, "prompt": prompt} for pixels, prompt in pairs]
    parts = describe([row["prompt"] for row in rows])
    rows = [{**row, **part} for row, part in zip(rows, parts, strict=True)]
    found: Asked = [
        {name: (value, _explain_missing(value, row)) for name, value in values.items()}
        for row, values in zip(rows, score_rows(store, settings, rows, log), strict=True)
    ]
    if ask is not None:
        found = [own | more for own, more in zip(found, ask(store, rows), strict=True)]
    by_pair = dict(zip(pairs, found, strict=True))
    read = dict(zip(pairs, count_read_tokens(store, settings, rows), strict=True))
    lines = []
    for one in pictures:
        record = {name: getattr(one, name) for name in ("file", "line", "prompt", "pixels")}
        if one.pixels is None or one.prompt is None:
            lines.append({**record, "status": "failed", "reason": one.reason})
            continue
        for metric, (value, reason) in by_pair[one.pixels, one.prompt].items():
            status = "failed" if value is None else "accepted"
            columns = {"metric": metric, "value": value, "status": status, "reason": reason}
            count = read[one.pixels, one.prompt].get(metric)
            lines.append({**record, **columns, **prompt_values(count)})
    return pl.DataFrame(
        [{name: line.get(name) for name in FOLDER_SCORES.schema} for line in lines],
        schema=FOLDER_SCORES.schema,
    )


def _explain_missing(value: float | None, row: Mapping[str, Any]) -> str | None:
    if value is not None:
        return None
    return row.get("reason") or "nothing_to_ask: the prompt names nothing to ask about"


def scores_digest(scores: pl.DataFrame) -> str:
    """Hash of pixels, prompts and scores, whatever the files are called: 64 hex digits."""
    own = scores.filter(pl.col("value").is_not_null())
    return digest(sorted(own.select("pixels", "prompt", "metric", "value").iter_rows()))


def with_percentiles(scores: pl.DataFrame, reference: Mapping[str, Numbers]) -> pl.DataFrame:
    """The table of `score_pictures` with each value's percentile (0..100) in the reference set."""
    ranks = [
        percentile_rank(value, reference.get(metric, ()))
        for metric, value in scores.select("metric", "value").iter_rows()
    ]
    return scores.with_columns(pl.Series("percentile", ranks, dtype=pl.Float64))


def summarise_folder(
    scores: pl.DataFrame, reference: Mapping[str, Numbers], samples: int = SAMPLES
) -> pl.DataFrame:
    """Mean of each metric with its 95% bootstrap interval, and the mean's percentile.

    Returns:
        Table of FOLDER_SUMMARY. The prompt is the unit, as in `make_scorecard`: pictures of one
        prompt are averaged first.
    """
    rows = []
    judged = scores.filter(pl.col("metric").is_not_null())
    for (metric,), part in judged.group_by("metric", maintain_order=True):
        # Sorted by content, so that resampling does not depend on the files' names.
        own = part.drop_nulls("value").sort("pixels", "prompt")
        means = group_means(own["value"].to_list(), own["prompt"].to_list())
        mean = mean_interval([means[prompt] for prompt in sorted(means)], samples)
        rows.append(
            {
                "metric": metric,
                "n": own.height,
                "prompts": mean.n,
                "missing": part.height - own.height,
                "mean": mean.value,
                "ci_low": mean.low,
                "ci_high": mean.high,
                "percentile": percentile_rank(mean.value, reference.get(str(metric), ())),
            }
        )
    return pl.DataFrame(rows, schema=FOLDER_SUMMARY.schema)


def read_scores(path: Path) -> dict[str, list[float]]:
    """Scores by metric of a table that `write_scores` wrote, as a reference set.

    Raises:
        HoiError: no such file, or no table with the columns metric and value.
    """
    check_table_name(path)
    if not path.is_file():
        raise HoiError(f"{path} is not a file", "name a table that `hoi score` wrote")
    try:
        read = pl.read_parquet if path.suffix.lower() == ".parquet" else pl.read_csv
        table = read(path).select(pl.col("metric"), pl.col("value").cast(pl.Float64)).drop_nulls()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise HoiError(
            f"{path} is not a table of scores: {str(error).splitlines()[0]}",
            "name a table that `hoi score` wrote",
        ) from error
    return {
        str(metric): part["value"].to_list()
        for (metric,), part in table.group_by("metric", maintain_order=True)
    }


def check_table_name(path: Path) -> None:
    """Refuse a table's name that does not end in one of TABLE_SUFFIXES.

    Raises:
        HoiError: it names the suffixes that are known.
    """
    if path.suffix.lower() not in TABLE_SUFFIXES:
        raise HoiError(
            f"{path.name}: scores are written as {' or '.join(TABLE_SUFFIXES)}",
            "end the name in one of these",
        )


def write_scores(scores: pl.DataFrame, path: Path) -> None:
    """Write the table as Parquet or CSV, by the name's end.

    Raises:
        HoiError: as `check_table_name`, or the place cannot be written.
    """
    check_table_name(path)
    parquet = path.suffix.lower() == ".parquet"
    write_file(path, parquet_bytes(scores) if parquet else scores.write_csv().encode())


def write_file(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; its folder is made where absent."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    replace_bytes(path, data, path.parent, durable=False, mode=FILE_MODE)


def print_summary(summary: pl.DataFrame, failed: int, reference: str) -> None:
    """Print a table of `summarise_folder`.

    Args:
        failed: how many files or lines could not be scored.
        reference: the set that percentiles are of.
    """
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table("metric", "n", "prompts", "missing", "mean", "95% interval", "percentile")
    for row in summary.iter_rows(named=True):
        low, high, percentile = row["ci_low"], row["ci_high"], row["percentile"]
        table.add_row(
            row["metric"],
            *(str(row[name]) for name in ("n", "prompts", "missing")),
            "–" if row["mean"] is None else f"{row['mean']:.4f}",
            "–" if low is None else f"{low:.4f} – {high:.4f}",
            "–" if percentile is None else f"{percentile:.1f}",
        )
    console.print(table)
    console.print(f"percentile: of the mean, among {reference}", soft_wrap=True)
    if failed:
        console.print(f"{failed} files or lines could not be scored; reasons are in the table")
