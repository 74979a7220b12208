"""A folder of images and the file of their prompts, read for `hoi score`.

Prompts come in one file, matched to the images by its form:
    .jsonl  one object a line with `file` (name below the folder) and `prompt`
    .csv    a heading with the columns `file` and `prompt`; quotes round a prompt with a comma
    .txt    one prompt a line, for the images in the order of their sorted names; only where there
            are as many lines as images, and names sort alike as text and as numbers
Further fields are ignored, and so are hidden files. A line that says two things, as a key given
twice does or a comma outside of quotes, is refused with its number.
"""

import csv
import io
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hoi_assets.errors import HoiError
from hoi_assets.hashing import digest_pixels, files_below
from hoi_assets.picture_files import FORMAT_NAMES, PICTURE_SUFFIXES, open_picture
from hoi_assets.text import printable_name, text_problem

MAX_PROMPT_WORDS = 200
MAX_PROMPTS_BYTES = 64 * 1024 * 1024
QUOTED_CHARACTERS = 60


@dataclass(frozen=True)
class FolderImage:
    """An image and its prompt, or what is wrong with a file or a line.

    Attributes:
        file: name below the folder, with `/`; empty where a line names no file.
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
    """One line of a prompts file; without `file` or with a `reason` it names no image."""

    number: int
    file: str
    prompt: str | None
    reason: str | None = None


def read_folder(images: Path, prompts: Path) -> list[FolderImage]:
    """Every file of the folder and every line of the prompts file, sorted by file, then line.

    Raises:
        HoiError: no such folder or file, a form that is not known or cannot be read at all, a file
            that two lines name, or a `.txt` whose lines match the pictures in more ways than one.
    """
    if not images.is_dir():
        raise HoiError(f"{images} is not a folder", "name the folder that holds the pictures")
    if not prompts.is_file():
        raise HoiError(f"{prompts} is not a file", "name a .jsonl, .csv or .txt file of prompts")
    try:
        below = files_below(images)
    except OSError as error:
        raise HoiError(
            f"{error.filename} cannot be read: {error.strerror}", "allow to read the folder"
        ) from error
    files = {
        name: path
        for name, path in below
        if not any(part.startswith(".") for part in Path(name).parts)
        and os.path.realpath(path) != os.path.realpath(prompts)
    }
    lines = _read_lines(prompts, [name for name in files if _is_picture(name)])
    _check_distinct(prompts, lines)
    by_file = {line.file: line for line in lines if line.file}
    found = [_read_image(name, path, by_file.get(name)) for name, path in files.items()]
    found += [_without_image(line) for line in lines if line.file not in files]
    return sorted(found, key=lambda one: (one.file, one.line or 0))


def _is_picture(name: str) -> bool:
    return Path(name).suffix.lower() in PICTURE_SUFFIXES


def _read_image(name: str, path: Path, line: _Line | None) -> FolderImage:
    number, prompt = (line.number, line.prompt) if line else (None, None)
    if text_problem(name):
        return FolderImage(
            printable_name(name), number, prompt, None, f"file_name: {text_problem(name)}"
        )
    if line is not None and line.reason:
        return FolderImage(name, number, prompt, None, line.reason)
    if line is None:
        reason = "no_prompt: no line names this file"
        if not _is_picture(name):
            reason = f"not_a_picture: no line names this file, and it is no {FORMAT_NAMES} by name"
        return FolderImage(name, None, None, None, reason)
    try:
        return FolderImage(name, number, prompt, digest_pixels(open_picture(path)), None)
    except ValueError as error:
        return FolderImage(name, number, prompt, None, f"unreadable_picture: {error}")


def _without_image(line: _Line) -> FolderImage:
    reason = line.reason or "missing_file: not in the folder"
    return FolderImage(line.file, line.number, line.prompt, None, reason)


def _read_lines(prompts: Path, pictures: Sequence[str]) -> list[_Line]:
    readers = {".jsonl": _from_jsonl, ".csv": _from_csv}
    suffix = prompts.suffix.lower()
    data = _bytes(prompts).removeprefix(b"\xef\xbb\xbf")
    if suffix in readers:
        return list(readers[suffix](prompts, data))
    if suffix == ".txt":
        return _from_txt(prompts, data, pictures)
    raise HoiError(
        f"{prompts.name}: prompts are read from .jsonl, .csv or .txt, not {suffix or 'this'}",
        'write one {"file": "a.png", "prompt": "..."} a line into a .jsonl file',
    )


def _bytes(prompts: Path) -> bytes:
    try:
        with prompts.open("rb") as file:
            data = file.read(MAX_PROMPTS_BYTES + 1)
    except OSError as error:
        raise HoiError(
            f"{prompts} cannot be read: {error.strerror}", "allow to read the file"
        ) from error
    if len(data) > MAX_PROMPTS_BYTES:
        raise HoiError(
            f"{prompts.name} is larger than {MAX_PROMPTS_BYTES // 1024**2} MiB",
            "score the folder in parts",
        )
    return data


def _from_jsonl(prompts: Path, data: bytes) -> Iterator[_Line]:
    # Bytes are split, since text has more line ends than JSON lines do.
    for number, raw in enumerate(data.split(b"\n"), start=1):
        if not raw.strip():
            continue
        try:
            row = json.loads(raw.decode("utf-8"), object_pairs_hook=_Object)
        except UnicodeDecodeError as error:
            yield _Line(number, "", None, f"not_utf8: at byte {error.start + 1}")
        except json.JSONDecodeError as error:
            yield _Line(number, "", None, f"broken_line: {error.msg} at character {error.colno}")
        except (ValueError, RecursionError) as error:
            yield _Line(number, "", None, f"broken_line: {error}")
        else:
            yield _line(number, row)


class _Object(dict[str, Any]):
    """A JSON object; `repeated` is a key that it gives twice."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        names = [name for name, _ in pairs]
        several = len(self) < len(names)
        self.repeated = next(n for n in names if names.count(n) > 1) if several else None


def _line(number: int, row: Any) -> _Line:
    if not isinstance(row, dict):
        return _Line(number, "", None, "no_object: the line is no JSON object")
    file, prompt = row.get("file"), row.get("prompt")
    repeated = row.repeated if isinstance(row, _Object) else None
    if repeated is not None:
        file = "" if repeated == "file" else _usable_name(file)
        return _Line(number, file, None, f"repeated_key: {repeated[:QUOTED_CHARACTERS]!a}")
    if not isinstance(file, str) or not file:
        return _Line(number, "", None, "missing_key: file")
    if text_problem(file):
        return _Line(number, "", None, f"file: {text_problem(file)}")
    if prompt is None:
        return _Line(number, file, None, "missing_key: prompt")
    problem = prompt_problem(prompt)
    return _Line(number, file, None if problem else prompt, problem)


def _from_csv(prompts: Path, data: bytes) -> Iterator[_Line]:
    reader = csv.reader(io.StringIO(_text(prompts, data), newline=""), strict=True)
    heading: list[str] = []
    try:
        heading = next(reader, [])
        for name in ("file", "prompt"):
            if heading.count(name) != 1:
                problem = "names twice the" if name in heading else "has no"
                raise HoiError(
                    f"{prompts.name}: its first line {problem} column {name!r}",
                    "begin it with a heading that names the columns file and prompt",
                )
        before = reader.line_num
        for row in reader:
            if row:
                yield _csv_line(before + 1, heading, row)
            before = reader.line_num
    except csv.Error as error:
        raise HoiError(
            f"{prompts.name}, line {reader.line_num}: {error}",
            "correct that line, or a quote before it that does not end",
        ) from error


def _csv_line(number: int, heading: Sequence[str], row: Sequence[str]) -> _Line:
    problem = None
    if len(row) > len(heading):
        problem = f"too_many_fields: {len(row)}, the heading has {len(heading)}: put a text with "
        problem += "a comma in quotes"
    elif any(re.match(r"\s+\"", field) for field in row):
        problem = "space_before_quote: a quote opens a text only right after the comma"
    if problem is None:
        return _line(number, dict(zip(heading, row, strict=False)))
    # Where the file comes first, a comma too many is not in its name.
    return _Line(number, _usable_name(row[0]) if heading[0] == "file" else "", None, problem)


def _usable_name(file: Any) -> str:
    return file if isinstance(file, str) and text_problem(file) is None else ""


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
            f"{prompts.name}: ambiguous: lexical and natural order of the files differ: {odd[0]} "
            f"comes before {odd[1]} as text and after it by number",
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
    """Why this is not a prompt, as `code: detail`; None where it is.

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


def _check_distinct(prompts: Path, lines: Sequence[_Line]) -> None:
    first: dict[str, int] = {}
    for line in lines:
        if line.file and line.file in first:
            raise HoiError(
                f"{prompts.name}: lines {first[line.file]} and {line.number} both name {line.file}",
                "leave one of them; a picture has one prompt",
            )
        first[line.file] = line.number
