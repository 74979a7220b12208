"""Rows of the InterActing benchmark (arXiv 2504.08714): the official files, or the built-in set.

One JSON object a line with exactly `topic` and `prompt`; the file is the scenario. Topics repeat
and are no keys: a row's id comes from its scenario, its prompt and how often that stood before.
What cannot be used becomes a failed row with file, line and reason; the rest goes on.
"""

import hashlib
import http.client
import json
import re
import unicodedata
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from hoi_assets.errors import HoiError
from hoi_assets.grammar.plans import SCENARIOS
from hoi_assets.hashing import digest, digest_file
from hoi_assets.settings import ROOT
from hoi_assets.store.disk import replace_bytes, writing
from hoi_assets.taxonomy import ID_LENGTH

if TYPE_CHECKING:
    import polars as pl

BUILT_IN = ROOT / "data" / "interacting"
FIELDS = ("topic", "prompt")
# The longest of the official prompts read so far has 63 words.
MAX_PROMPT_WORDS = 200
MAX_PROMPT_CHARACTERS = 4000
QUOTED_CHARACTERS = 60

RAW_FILES = "https://raw.githubusercontent.com"
REPOSITORY = "gxy000/DetailScribe"
COMMIT = "1d5a6484208f281d6d45a8d097af62fc143bfaec"
FILES_FOLDER = "InterActing/data/original_prompt"
FETCH_TIMEOUT_S = 30.0
MAX_FILE_BYTES = 16 * 1024 * 1024
FILE_MODE = 0o644


@dataclass(frozen=True)
class OfficialFile:
    """One file as its authors publish it.

    Attributes:
        sha256: of its bytes; None where it could not be had to compute it.
    """

    scenario: str
    name: str
    rows: int
    sha256: str | None


OFFICIAL = (
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
    OfficialFile("multi_subject", "multi_subject_200.jsonl", 200, None),
)


@dataclass(frozen=True)
class BenchmarkRow:
    """One line of a benchmark file, or what is wrong with a whole file.

    Attributes:
        row_id: 16 hex digits; stays when lines above it come or go.
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


@dataclass(frozen=True)
class Fetched:
    """A file that `fetch` put into the folder. `verified`: its hash is the one known beforehand."""

    name: str
    rows: int
    sha256: str
    verified: bool


class _Bad(Exception):
    """A line that cannot be used, as `code: detail`."""


def benchmark_folder(folder: str | None) -> Path:
    """The folder of the setting `interacting.folder`; None is the built-in set's."""
    return BUILT_IN if folder is None else Path(folder).expanduser()


def read_benchmark(
    folder: Path = BUILT_IN, scenarios: Sequence[str] = SCENARIOS, most: int | None = None
) -> list[BenchmarkRow]:
    """Rows of a folder in order of scenario and line; blank lines are skipped.

    A scenario's file has its official name, or `<scenario>.jsonl`. Official names are held to the
    official count and hash; where these differ, a failed row without line number says so.

    Args:
        most: the first so many usable rows of each scenario; None takes all.

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
    return [row for scenario, path in found.items() for row in _read(path, scenario, most)]


def benchmark_table(rows: Sequence[BenchmarkRow]) -> "pl.DataFrame":
    """Rows as a table: row_id, scenario, topic, prompt, source, line, status, reason."""
    import polars as pl

    schema = {name: pl.String for name in BenchmarkRow.__dataclass_fields__}
    return pl.DataFrame([asdict(row) for row in rows], schema={**schema, "line": pl.Int64})


def benchmark_digest(folder: Path, scenario: str) -> str | None:
    """Hash of a scenario's file, to know whether it changed; None where there is none."""
    path = _file_of(folder, scenario)
    return digest_file(path) if path.is_file() else None


def fetch(
    folder: Path,
    repository: str = REPOSITORY,
    commit: str = COMMIT,
    base_url: str = RAW_FILES,
    files: Sequence[OfficialFile] = OFFICIAL,
    timeout_s: float = FETCH_TIMEOUT_S,
) -> list[Fetched]:
    """Get the official files from their authors' repository; all are checked before one is written.

    Args:
        folder: made where absent. The authors give no licence: keep it out of what you publish.
        repository, commit: owner/name and the 40 digits of a commit.
        base_url: of a server that has `<repository>/<commit>/<path>`.

    Raises:
        HoiError: the built-in set's folder, no network, no such file, or a count, format or hash
            that is not the expected one; the folder is left as it was.
    """
    if not re.fullmatch(r"[0-9a-f]{40}", commit):
        raise HoiError(
            f"{commit!r} is no commit: 40 digits 0-9 and a-f in lower case",
            "a branch or tag can move, so that rows could no longer be told apart: name a commit",
        )
    if folder.resolve() == BUILT_IN:
        raise HoiError(
            f"{folder} holds the built-in benchmark, and official files there would hide it",
            "name a folder of your own",
        )
    contents = {}
    for file in files:
        url = f"{base_url}/{repository}/{commit}/{FILES_FOLDER}/{file.name}"
        contents[file] = _download(url, folder, timeout_s)
        _check(file, contents[file], url)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        if (folder / file.name).is_dir():
            raise HoiError(
                f"{folder / file.name} is a folder where a file is to be",
                "remove it, or name another folder; nothing was written",
            )
    fetched = []
    for file, data in contents.items():
        replace_bytes(folder / file.name, data, folder, durable=False, mode=FILE_MODE)
        fetched.append(Fetched(file.name, file.rows, _sha256(data), file.sha256 is not None))
    return fetched


def _file_of(folder: Path, scenario: str) -> Path:
    official = folder / next(file.name for file in OFFICIAL if file.scenario == scenario)
    own = folder / f"{scenario}.jsonl"
    return own if own.is_file() and not official.is_file() else official


def _read(path: Path, scenario: str, most: int | None) -> Iterator[BenchmarkRow]:
    """Rows of one file, those about the whole file first."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        yield _about_file(scenario, path.name, "missing_file: not in the folder")
        return
    except OSError as error:
        yield _about_file(scenario, path.name, f"unreadable_file: {error.strerror}")
        return
    rows = _rows(data, scenario, path.name)
    official = next((file for file in OFFICIAL if file.name == path.name), None)
    if official:
        yield from (
            _about_file(scenario, path.name, problem)
            for problem in _departures(official, data, len(rows))
        )
    elif not rows:
        yield _about_file(scenario, path.name, "empty_file: no lines")
    usable = 0
    for row in rows:
        usable += row.status == "accepted"
        if most is not None and usable > most:
            return
        yield row


def _about_file(scenario: str, name: str, reason: str) -> BenchmarkRow:
    code = reason.partition(":")[0]
    row_id = digest({"scenario": scenario, "source": name, "problem": code})[:ID_LENGTH]
    return BenchmarkRow(row_id, scenario, "", "", name, None, "failed", reason)


def _departures(official: OfficialFile, data: bytes, rows: int) -> Iterator[str]:
    if rows != official.rows:
        yield f"wrong_count: {rows} rows, the official file has {official.rows}"
    if official.sha256 not in (None, _sha256(data)):
        yield f"wrong_hash: sha256 {_sha256(data)}, the official file has {official.sha256}"


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _rows(data: bytes, scenario: str, source: str) -> list[BenchmarkRow]:
    # Bytes are split, since text has more line ends than JSON lines do.
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    before: Counter[tuple[str, str]] = Counter()
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            topic, prompt = _topic_and_prompt(line)
            status, reason, known = "accepted", None, prompt
        except _Bad as error:
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


def _topic_and_prompt(line: bytes) -> tuple[str, str]:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = line[error.start]
        raise _Bad(f"not_utf8: byte 0x{byte:02x} at place {error.start + 1}") from error
    try:
        # Pairs, so that a key given twice is seen.
        pairs = json.loads(text, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        raise _Bad(f"broken_line: {_short(str(error) or 'nested too deep')}") from error
    if not isinstance(pairs, _Pairs):
        raise _Bad(f"no_object: {_short(text)}")
    names = [name for name, _ in pairs]
    for field in FIELDS:
        if field not in names:
            raise _Bad(f"missing_key: {field}")
    extra = [name for name in names if name not in FIELDS or names.count(name) > 1]
    if extra:
        raise _Bad(f"extra_key: {_short(extra[0])}")
    given = dict(pairs)
    for field in FIELDS:
        _check_text(field, given[field])
    if not any(sign.isalnum() for sign in given["prompt"]):
        raise _Bad("empty: prompt says nothing")
    if len(given["prompt"].split()) > MAX_PROMPT_WORDS:
        raise _Bad(f"too_many_words: {len(given['prompt'].split())}, at most {MAX_PROMPT_WORDS}")
    if len(given["prompt"]) > MAX_PROMPT_CHARACTERS:
        raise _Bad(f"too_long: {len(given['prompt'])} characters, at most {MAX_PROMPT_CHARACTERS}")
    return given["topic"], given["prompt"]


class _Pairs(list[tuple[str, Any]]):
    """The fields of a JSON object in order."""


def _check_text(field: str, value: Any) -> None:
    if not isinstance(value, str):
        raise _Bad(f"no_text: {field} is {_shown(value)}")
    for place, sign in enumerate(value, start=1):
        # Controls, lone halves of a pair, and separators of lines and paragraphs.
        if unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp"):
            raise _Bad(f"control_character: U+{ord(sign):04X} in {field} at character {place}")


def _shown(value: Any) -> str:
    return f"a list or object of {len(value)}" if isinstance(value, list) else _short(str(value))


def _short(text: str) -> str:
    """At most 60 characters in quotes, all of them printable ASCII."""
    return ascii(text if len(text) <= QUOTED_CHARACTERS else f"{text[:QUOTED_CHARACTERS]}…")


def _download(url: str, folder: Path, timeout_s: float) -> bytes:
    if urlsplit(url).scheme not in ("http", "https"):
        raise HoiError(f"{url} is no web address", "give a base URL with http or https")
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as answer:
            data: bytes = answer.read(MAX_FILE_BYTES + 1)
    except urllib.error.HTTPError as error:
        raise HoiError(
            f"{url} answered {error.code}",
            "the repository or its files may have moved: name another commit, or put the files "
            f"into {folder} by hand",
        ) from error
    # A name that cannot be resolved is an OSError, a transfer that breaks off is not.
    except (OSError, http.client.HTTPException) as error:
        raise HoiError(
            f"cannot fetch {url}: {getattr(error, 'reason', None) or repr(error)}",
            f"connect to the network and try again, or put the files into {folder} by hand; "
            "without them the built-in benchmark serves (leave interacting.folder out)",
        ) from error
    if len(data) > MAX_FILE_BYTES:
        raise HoiError(
            f"{url} has more than {MAX_FILE_BYTES} bytes", "name the commit of the official files"
        )
    return data


def _check(file: OfficialFile, data: bytes, url: str) -> None:
    """Hold a download to its count, form and hash."""
    rows = _rows(data, file.scenario, file.name)
    problems = [f"line {row.line}: {row.reason}" for row in rows if row.status == "failed"]
    problems += _departures(file, data, len(rows))
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise HoiError(
            f"{url} is not the official file: {'; '.join(problems[:3])}{more}",
            "nothing was written; try again, or name the commit of the official files",
        )
