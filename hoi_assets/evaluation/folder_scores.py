"""Scores of a folder of pictures that one already has, whoever made them.

Prompts come in one file, matched to the pictures by its form:
    .jsonl  one object a line with `file` (name below the folder) and `prompt`
    .csv    a heading with the columns `file` and `prompt`
    .txt    one prompt a line, for the pictures in the order of their sorted names; only where there
            are as many lines as pictures, and names sort alike as text and as numbers
Further fields are left alone. Hidden files are no part of the folder. Scores depend on pixels and
prompts alone: neither on names nor on the order of files or lines.
"""

import csv
import io
import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from hoi_assets.errors import HoiError
from hoi_assets.evaluation.run_metrics import Describe, Rows, score_rows
from hoi_assets.hashing import digest, digest_pixels, files_below
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
from hoi_assets.store.versions import Store, parquet_bytes

if TYPE_CHECKING:
    from PIL import Image

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})
TABLE_SUFFIXES = (".parquet", ".csv")
MAX_SIDE_PX = 16384
MAX_PROMPT_WORDS = 200
FILE_MODE = 0o644

TABLE: dict[str, Any] = {
    "file": pl.String,
    "line": pl.Int64,
    "prompt": pl.String,
    "pixels": pl.String,
    "metric": pl.String,
    "value": pl.Float64,
    "percentile": pl.Float64,
    "status": pl.String,
    "reason": pl.String,
}
SUMMARY: dict[str, Any] = {
    "metric": pl.String,
    "n": pl.Int64,
    "prompts": pl.Int64,
    "missing": pl.Int64,
    "mean": pl.Float64,
    "ci_low": pl.Float64,
    "ci_high": pl.Float64,
    "percentile": pl.Float64,
}

# By metric, a value or the reason (`code: detail`) why there is none.
Asked = list[dict[str, tuple[float | None, str | None]]]
Ask = Callable[[Store, Rows], Asked]


@dataclass(frozen=True)
class Picture:
    """A picture and its prompt, or what is wrong with a file or a line.

    Attributes:
        file: name below the folder, with `/`; empty where a line names none.
        line: of the prompts file, from 1; None where no line is about this file.
        pixels: digest of its pixels; None where it cannot be scored.
        reason: `code: detail` where it cannot.
    """

    file: str
    line: int | None
    prompt: str | None
    pixels: str | None
    reason: str | None


@dataclass(frozen=True)
class _Line:
    """One line of a prompts file; without `file` or with a `reason` it names no picture."""

    number: int
    file: str
    prompt: str | None
    reason: str | None = None


# --- reading --------------------------------------------------------------------------------------


def read_folder(images: Path, prompts: Path) -> list[Picture]:
    """Every file of the folder and every line of the prompts file, sorted by file, then line.

    Raises:
        HoiError: no such folder or file, a form that is not known or cannot be read at all, a file
            that two lines name, or a `.txt` whose lines match the pictures in more ways than one.
    """
    if not images.is_dir():
        raise HoiError(f"{images} is no folder", "name the folder that holds the pictures")
    if not prompts.is_file():
        raise HoiError(f"{prompts} is no file", "name a .jsonl, .csv or .txt file of prompts")
    files = {
        name: path
        for name, path in files_below(images)
        if not any(part.startswith(".") for part in Path(name).parts)
        and path.resolve() != prompts.resolve()
    }
    lines = _read_lines(prompts, [name for name in files if _is_picture(name)])
    _check_distinct(prompts, lines)
    by_file = {line.file: line for line in lines if line.file}
    found = [_judgeable(name, path, by_file.get(name)) for name, path in files.items()]
    found += [_without_picture(line) for line in lines if line.file not in files]
    return sorted(found, key=lambda one: (one.file, one.line or 0))


def _is_picture(name: str) -> bool:
    return Path(name).suffix.lower() in PICTURE_SUFFIXES


def _judgeable(name: str, path: Path, line: _Line | None) -> Picture:
    number, prompt = (line.number, line.prompt) if line else (None, None)
    if text_problem(name):
        shown = name.encode("ascii", "backslashreplace").decode()
        return Picture(shown, number, prompt, None, f"file_name: {text_problem(name)}")
    if line is not None and line.reason:
        return Picture(name, number, prompt, None, line.reason)
    if not _is_picture(name):
        return Picture(name, number, prompt, None, "not_a_picture: no png, jpg or webp")
    if line is None:
        return Picture(name, None, None, None, "no_prompt: no line names this file")
    try:
        return Picture(name, number, prompt, digest_pixels(open_picture(path)), None)
    except ValueError as error:
        return Picture(name, number, prompt, None, f"unreadable_picture: {error}")


def _without_picture(line: _Line) -> Picture:
    reason = line.reason or "missing_file: not in the folder"
    return Picture(line.file, line.number, line.prompt, None, reason)


def open_picture(path: Path) -> "Image.Image":
    """A picture as RGB, turned as its camera says; see `hoi_assets.pictures.as_rgb`.

    Raises:
        ValueError: it cannot be decoded, or is too large.
    """
    from PIL import Image

    from hoi_assets.pictures import BROKEN, as_rgb

    try:
        with Image.open(path) as opened:
            # The header is enough to refuse a picture that would fill the memory.
            if max(opened.size) > MAX_SIDE_PX:
                raise ValueError(f"{opened.width}x{opened.height} px, at most {MAX_SIDE_PX} a side")
            return as_rgb(opened)
    except (Image.DecompressionBombError, *BROKEN) as error:
        # Its words may name the whole path, or nothing.
        said = str(error).replace(str(path), path.name)
        raise ValueError(" ".join(said.split()) or type(error).__name__) from error


def _read_lines(prompts: Path, pictures: Sequence[str]) -> list[_Line]:
    readers = {".jsonl": _from_jsonl, ".csv": _from_csv}
    suffix = prompts.suffix.lower()
    data = prompts.read_bytes().removeprefix(b"\xef\xbb\xbf")
    if suffix in readers:
        return list(readers[suffix](prompts, data))
    if suffix == ".txt":
        return _from_txt(prompts, data, pictures)
    raise HoiError(
        f"{prompts.name}: prompts are read from .jsonl, .csv or .txt, not {suffix or 'this'}",
        'write one {"file": "a.png", "prompt": "..."} a line into a .jsonl file',
    )


def _from_jsonl(prompts: Path, data: bytes) -> Iterator[_Line]:
    # Bytes are split, since text has more line ends than JSON lines do.
    for number, raw in enumerate(data.split(b"\n"), start=1):
        if not raw.strip():
            continue
        try:
            row = json.loads(raw.decode("utf-8"))
        except UnicodeDecodeError as error:
            yield _Line(number, "", None, f"not_utf8: at byte {error.start + 1}")
        except (ValueError, RecursionError) as error:
            yield _Line(number, "", None, f"broken_line: {error}")
        else:
            yield _line(number, row)


def _line(number: int, row: Any) -> _Line:
    if not isinstance(row, dict):
        return _Line(number, "", None, "no_object: the line is no JSON object")
    file, prompt = row.get("file"), row.get("prompt")
    if not isinstance(file, str) or not file:
        return _Line(number, "", None, "missing_key: file")
    if text_problem(file):
        return _Line(number, "", None, f"file: {text_problem(file)}")
    if prompt is None:
        return _Line(number, file, None, "missing_key: prompt")
    problem = prompt_problem(prompt)
    return _Line(number, file, None if problem else prompt, problem)


def _from_csv(prompts: Path, data: bytes) -> Iterator[_Line]:
    reader = csv.DictReader(io.StringIO(_text(prompts, data), newline=""))
    try:
        missing = [name for name in ("file", "prompt") if name not in (reader.fieldnames or ())]
        if missing:
            raise HoiError(
                f"{prompts.name}: its first line has no column {missing[0]!r}",
                "begin it with a heading that names the columns file and prompt",
            )
        for row in reader:
            yield _line(reader.line_num, row)
    except csv.Error as error:
        raise HoiError(
            f"{prompts.name}, line {reader.line_num}: {error}", "mend the line it names"
        ) from error


def _from_txt(prompts: Path, data: bytes, pictures: Sequence[str]) -> list[_Line]:
    lines = _text(prompts, data).replace("\r\n", "\n").rstrip("\n").split("\n")
    remedy = 'name the pictures: one {"file": "a.png", "prompt": "..."} a line in a .jsonl file'
    if len(lines) != len(pictures):
        raise HoiError(
            f"{prompts.name} has {len(lines)} lines, the folder {len(pictures)} pictures", remedy
        )
    by_number = sorted(pictures, key=_by_number)
    if by_number != list(pictures):
        odd = next(pair for pair in zip(pictures, by_number, strict=True) if pair[0] != pair[1])
        raise HoiError(
            f"{prompts.name}: which line is which picture's is not plain: {odd[0]} comes before "
            f"{odd[1]} by its letters and after it by its number",
            remedy,
        )
    return [
        _line(number, {"file": file, "prompt": line})
        for number, (file, line) in enumerate(zip(pictures, lines, strict=True), start=1)
    ]


def _by_number(name: str) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", name)
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts]


def _text(prompts: Path, data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise HoiError(
            f"{prompts.name} is not UTF-8: byte {error.start + 1}", "save it as UTF-8"
        ) from error


def prompt_problem(prompt: Any) -> str | None:
    """Why this is no prompt, as `code: detail`; None where it is one.

    >>> prompt_problem(" ")
    'empty: the prompt says nothing'
    """
    if not isinstance(prompt, str):
        return f"no_text: the prompt is a {type(prompt).__name__}"
    if not prompt.strip():
        return "empty: the prompt says nothing"
    if len(prompt.split()) > MAX_PROMPT_WORDS:
        return f"too_many_words: {len(prompt.split())}, at most {MAX_PROMPT_WORDS}"
    return text_problem(prompt)


def text_problem(text: str) -> str | None:
    """The first control character, lone surrogate or line separator; None where there is none."""
    for place, sign in enumerate(text, start=1):
        if unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp"):
            return f"control_character: U+{ord(sign):04X} at character {place}"
    return None


def _check_distinct(prompts: Path, lines: Sequence[_Line]) -> None:
    first: dict[str, int] = {}
    for line in lines:
        if line.file and line.file in first:
            raise HoiError(
                f"{prompts.name}: lines {first[line.file]} and {line.number} both name {line.file}",
                "leave one of them; a picture has one prompt",
            )
        first[line.file] = line.number


# --- scoring --------------------------------------------------------------------------------------


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
    return HoiError(f"{path} changed while it was scored", "let it be, and run again")


def folder_store(home: Path, images: Path, pictures: Sequence[Picture]) -> FolderStore:
    """The store at `home` with the pictures of the folder."""
    return FolderStore(home, {one.pixels: images / one.file for one in pictures if one.pixels})


def score_pictures(
    store: Store,
    settings: Settings,
    pictures: Sequence[Picture],
    describe: Describe,
    log: Log,
    ask: Ask | None = None,
) -> pl.DataFrame:
    """Every metric of every picture.

    Args:
        store: see `folder_store`.
        describe: by prompt, the fields `phrases` and `questions`, and `reason` where there are
            none; see `scoring.score_rows`.
        ask: what else to ask of the rows, e.g. a judge's rating.

    Returns:
        Table of TABLE, sorted by file, one line per metric, `percentile` not yet known; where a
        metric could not be had it is failed, with the reason. A picture that could not be scored
        has one line, without metric.
    """
    # One row for equal pictures of one prompt. By content, not by name: the order gives the places.
    pairs = sorted({(one.pixels, one.prompt) for one in pictures if one.pixels and one.prompt})
    rows = [{"pixels": pixels, "prompt": prompt} for pixels, prompt in pairs]
    parts = describe([row["prompt"] for row in rows])
    rows = [{**row, **part} for row, part in zip(rows, parts, strict=True)]
    found: Asked = [
        {name: (value, _why(value, row)) for name, value in values.items()}
        for row, values in zip(rows, score_rows(store, settings, rows, log), strict=True)
    ]
    if ask is not None:
        found = [own | more for own, more in zip(found, ask(store, rows), strict=True)]
    by_pair = dict(zip(pairs, found, strict=True))
    lines = []
    for one in pictures:
        record = {name: getattr(one, name) for name in ("file", "line", "prompt", "pixels")}
        if one.pixels is None or one.prompt is None:
            lines.append({**record, "status": "failed", "reason": one.reason})
            continue
        for metric, (value, reason) in by_pair[one.pixels, one.prompt].items():
            status = "failed" if value is None else "accepted"
            told = {"metric": metric, "value": value, "status": status, "reason": reason}
            lines.append({**record, **told})
    return pl.DataFrame([{name: line.get(name) for name in TABLE} for line in lines], schema=TABLE)


def _why(value: float | None, row: Mapping[str, Any]) -> str | None:
    if value is not None:
        return None
    return row.get("reason") or "nothing_to_ask: the prompt names nothing to ask about"


def scores_digest(scores: pl.DataFrame) -> str:
    """Hash of what was scored and how high, whatever the files are called: 64 hex digits."""
    own = scores.filter(pl.col("value").is_not_null())
    return digest(sorted(own.select("pixels", "prompt", "metric", "value").iter_rows()))


# --- summary, reference and files -----------------------------------------------------------------


def with_percentiles(scores: pl.DataFrame, reference: Mapping[str, Numbers]) -> pl.DataFrame:
    """The table of `score_pictures` with each value's percentile (0..100) in the reference set."""
    ranks = [
        percentile_rank(value, reference.get(metric, ()))
        for metric, value in scores.select("metric", "value").iter_rows()
    ]
    return scores.with_columns(pl.Series("percentile", ranks, dtype=pl.Float64))


def summarise(
    scores: pl.DataFrame, reference: Mapping[str, Numbers], samples: int = SAMPLES
) -> pl.DataFrame:
    """Mean of each metric with its 95% bootstrap interval, and the mean's percentile.

    Returns:
        Table of SUMMARY. The prompt is the unit, as in `scorecards`: pictures of one prompt are
        averaged first. `n` counts pictures, `missing` those whose score could not be had.
    """
    rows = []
    judged = scores.filter(pl.col("metric").is_not_null())
    for (metric,), part in judged.group_by("metric", maintain_order=True):
        # In an order of their own, so that the resampling does not see the files' names.
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
    return pl.DataFrame(rows, schema=SUMMARY)


def read_scores(path: Path) -> dict[str, list[float]]:
    """Scores by metric of a table that `write_scores` wrote, as a reference set.

    Raises:
        HoiError: no such file, or no table with the columns metric and value.
    """
    check_table_name(path)
    if not path.is_file():
        raise HoiError(f"{path} is no file", "name a table that `hoi score` wrote")
    try:
        read = pl.read_parquet if path.suffix.lower() == ".parquet" else pl.read_csv
        table = read(path).select(pl.col("metric"), pl.col("value").cast(pl.Float64)).drop_nulls()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise HoiError(
            f"{path} is no table of scores: {str(error).splitlines()[0]}",
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
            f"{path.name}: scores are kept as {' or '.join(TABLE_SUFFIXES)}",
            "let the name end so",
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
    """Print a table of `summarise`.

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
