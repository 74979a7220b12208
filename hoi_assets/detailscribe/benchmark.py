"""Prompts of the InterActing benchmark (DetailScribe, arXiv 2504.08714): the official files, or the
built-in set (asset `interacting_prompts`).

A file is a scenario, with one JSON object per line, of exactly `topic` and `prompt`. Topics repeat,
so they are not keys: a row's id is made of its scenario, its prompt and how often that came before.
A line that cannot be used becomes a failed row with file, line and reason; the others are used.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl

from hoi_assets.detailscribe.columns import STATUS_COLUMNS
from hoi_assets.errors import HoiError
from hoi_assets.grammar.plans import SCENARIOS
from hoi_assets.hashing import digest, digest_file
from hoi_assets.settings import ROOT, expand_user
from hoi_assets.store.tables import Column, Table
from hoi_assets.taxonomy import ID_LENGTH
from hoi_assets.text import text_problem

BUILT_IN = ROOT / "data" / "interacting"
FIELDS = ("topic", "prompt")
# The longest official prompt seen so far has 63 words.
MAX_PROMPT_WORDS = 200
MAX_PROMPT_CHARACTERS = 4000
# A hundred times the official files; a larger one is no list of prompts and is not read.
MAX_FILE_BYTES = 16 * 1024 * 1024
QUOTED_CHARACTERS = 60

BENCHMARK_ROWS = Table(
    "rows",
    "One prompt of the benchmark, or what is wrong with a line or a file.",
    (
        Column("row_id", pl.String, "hash of scenario and prompt, 16 hex digits"),
        Column("scenario", pl.String, "scenario of the benchmark"),
        Column("topic", pl.String, "topic as written; empty in a failed row"),
        Column("prompt", pl.String, "prompt as written; empty in a failed row"),
        Column("source", pl.String, "name of the file"),
        Column("line", pl.Int64, "line in the file, from 1; null for a whole file", nullable=True),
        *STATUS_COLUMNS,
    ),
    key=("row_id",),
)


@dataclass(frozen=True)
class OfficialFile:
    """One file as its authors publish it.

    Attributes:
        rows: how many it has.
        sha256: of its bytes; None: unknown.
    """

    scenario: str
    name: str
    rows: int
    sha256: str | None


OFFICIAL_FILES = (
    OfficialFile(
        "functional",
        "functional_600.jsonl",
        600,
        "6e15b596cc818822669f3d6802b441bd3d4b3d53b09c5e72d5a21f0c32e28f21",
    ),
    OfficialFile(
        "compositional",
        "compositional_200.jsonl",
        200,
        "6706730223a3a3bb5d462e13bec28fc139de9caa5bb64cd142625ae527ac91c9",
    ),
    OfficialFile(
        "multi_subject",
        "multi_subject_200.jsonl",
        200,
        "c0def35f494ae9cd403dfe3f13aee9db50b1e9fa066e1d4964cdf9f533e0c382",
    ),
)


@dataclass(frozen=True)
class BenchmarkRow:
    """One line of a benchmark file, or what is wrong with a whole file.

    Attributes:
        row_id: 16 hex digits; the same when lines above it are added or removed.
        topic, prompt: as written; empty in a failed row.
        source: name of the file.
        line: from 1; None where the reason is about the whole file.
        reason: `code: detail` of a failed row.
    """

    row_id: str
    scenario: str
    topic: str
    prompt: str
    source: str
    line: int | None
    status: Literal["accepted", "failed"]
    reason: str | None


class UnusableLine(Exception):
    """A line that cannot be used, as `code: detail`."""


def benchmark_folder(folder: str | None) -> Path:
    """The folder that the setting `interacting.folder` names; None names the built-in set."""
    return BUILT_IN if folder is None else expand_user(folder)


def read_benchmark(
    folder: Path = BUILT_IN, scenarios: Sequence[str] = SCENARIOS, most: int | None = None
) -> list[BenchmarkRow]:
    """Rows of a folder in order of scenario and line; blank lines are skipped.

    A scenario's file has its official name, or `<scenario>.jsonl`. A file with an official name is
    checked against the official count and hash; a failed row without line number says what differs.

    Args:
        most: how many usable rows of each scenario to take, from the first; None takes all.

    Raises:
        HoiError: no such folder, or none of the scenarios' files in it.
    """
    found = {scenario: _file_of(folder, scenario) for scenario in scenarios}
    if not any(path.is_file() for path in found.values()):
        names = ", ".join(path.name for path in found.values())
        raise HoiError(
            f"no benchmark file in {folder}: looked for {names}",
            f"`hoi interacting fetch {folder}` gets the official files; without "
            "interacting.folder the built-in benchmark serves",
        )
    return [row for scenario, path in found.items() for row in _read_file(path, scenario, most)]


def benchmark_frame(rows: Sequence[BenchmarkRow]) -> pl.DataFrame:
    """A frame of BENCHMARK_ROWS."""
    return BENCHMARK_ROWS.frame(vars(row) for row in rows)


def benchmark_digest(folder: Path, scenario: str) -> str | None:
    """Hash of a scenario's file, as an input of the asset; None if there is no file."""
    path = _file_of(folder, scenario)
    if not path.is_file():
        return None
    return _too_large(path) or digest_file(path)


def _too_large(path: Path) -> str | None:
    size = path.stat().st_size
    over = size > MAX_FILE_BYTES
    return f"too_large: {size} bytes, at most {MAX_FILE_BYTES} are read" if over else None


def _file_of(folder: Path, scenario: str) -> Path:
    official = folder / next(file.name for file in OFFICIAL_FILES if file.scenario == scenario)
    own = folder / f"{scenario}.jsonl"
    return own if own.is_file() and not official.is_file() else official


def _read_file(path: Path, scenario: str, most: int | None) -> Iterator[BenchmarkRow]:
    """Rows of one file, those about the whole file first."""
    try:
        problem = _too_large(path)
        if problem:
            yield _file_problem(scenario, path.name, problem)
            return
        data = path.read_bytes()
    except FileNotFoundError:
        yield _file_problem(scenario, path.name, "missing_file: not in the folder")
        return
    except OSError as error:
        yield _file_problem(scenario, path.name, f"unreadable_file: {error.strerror}")
        return
    rows = parse_rows(data, scenario, path.name)
    official = next((file for file in OFFICIAL_FILES if file.name == path.name), None)
    if official:
        yield from (
            _file_problem(scenario, path.name, problem)
            for problem in find_differences(official, data, len(rows))
        )
    elif not rows:
        yield _file_problem(scenario, path.name, "empty_file: no lines")
    usable = 0
    for row in rows:
        usable += row.status == "accepted"
        if most is not None and usable > most:
            return
        yield row


def _file_problem(scenario: str, name: str, reason: str) -> BenchmarkRow:
    code = reason.partition(":")[0]
    row_id = digest({"scenario": scenario, "source": name, "problem": code})[:ID_LENGTH]
    return BenchmarkRow(row_id, scenario, "", "", name, None, "failed", reason)


def find_differences(official: OfficialFile, data: bytes, rows: int) -> Iterator[str]:
    """How a file of `rows` rows differs from the official one, as `code: detail`."""
    if rows != official.rows:
        yield f"wrong_count: {rows} rows, the official file has {official.rows}"
    if official.sha256 not in (None, sha256_of(data)):
        yield f"wrong_hash: sha256 {sha256_of(data)}, the official file has {official.sha256}"


def sha256_of(data: bytes) -> str:
    """SHA-256 of bytes, 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def parse_rows(data: bytes, scenario: str, source: str) -> list[BenchmarkRow]:
    """Rows of a file's content; `source` is its name. Blank lines are skipped."""
    # Bytes are split: text has line ends that JSON lines do not have.
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    before: Counter[tuple[str, str]] = Counter()
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            topic, prompt = _parse_line(line)
            status, reason, known = "accepted", None, prompt
        except UnusableLine as error:
            topic, prompt, status, reason = "", "", "failed", str(error)
            known = line.decode("utf-8", errors="backslashreplace")
        key = (status, known)
        facts = {"scenario": scenario, "status": status, "text": known, "before": before[key]}
        before[key] += 1
        row_id = digest(facts)[:ID_LENGTH]
        rows.append(
            BenchmarkRow(row_id, scenario, topic, prompt, source, number, status, reason)  # type: ignore[arg-type]
        )
    return rows


def _parse_line(line: bytes) -> tuple[str, str]:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = line[error.start]
        raise UnusableLine(f"not_utf8: byte 0x{byte:02x} at place {error.start + 1}") from error
    try:
        # Pairs show a key that is given twice.
        pairs = json.loads(text, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        raise UnusableLine(f"broken_line: {_short(str(error) or 'nested too deep')}") from error
    if not isinstance(pairs, _Pairs):
        raise UnusableLine(f"no_object: {_short(text)}")
    names = [name for name, _ in pairs]
    for field in FIELDS:
        if field not in names:
            raise UnusableLine(f"missing_key: {field}")
    extra = [name for name in names if name not in FIELDS or names.count(name) > 1]
    if extra:
        raise UnusableLine(f"extra_key: {_short(extra[0])}")
    given = dict(pairs)
    for field in FIELDS:
        _check_text(field, given[field])
    if not any(sign.isalnum() for sign in given["prompt"]):
        raise UnusableLine("empty: prompt says nothing")
    if len(given["prompt"].split()) > MAX_PROMPT_WORDS:
        raise UnusableLine(
            f"too_many_words: {len(given['prompt'].split())}, at most {MAX_PROMPT_WORDS}"
        )
    if len(given["prompt"]) > MAX_PROMPT_CHARACTERS:
        raise UnusableLine(
            f"too_long: {len(given['prompt'])} characters, at most {MAX_PROMPT_CHARACTERS}"
        )
    return given["topic"], given["prompt"]


class _Pairs(list[tuple[str, Any]]):
    """The fields of a JSON object in order."""


def _check_text(field: str, value: Any) -> None:
    if not isinstance(value, str):
        raise UnusableLine(f"no_text: {field} is {_shown(value)}")
    problem = text_problem(value)
    if problem is not None:
        raise UnusableLine(f"{problem} of {field}")


def _shown(value: Any) -> str:
    return f"a list or object of {len(value)}" if isinstance(value, list) else _short(str(value))


def _short(text: str) -> str:
    """At most 60 characters in quotes, all of them printable ASCII."""
    return ascii(text if len(text) <= QUOTED_CHARACTERS else f"{text[:QUOTED_CHARACTERS]}…")
