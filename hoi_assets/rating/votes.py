"""Votes: one line each in `votes.jsonl`, appended and flushed to disk before the page is answered.

Nothing is ever rewritten. The last line of a (rater, item, repeat, question) counts, earlier ones
stay as history; an answer of null takes a vote back.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from hoi_assets.errors import HoiError
from hoi_assets.rating.raters import read_raters
from hoi_assets.rating.study import Answer, Item, Side, Study
from hoi_assets.store.disk import sync, writing

VOTES_FILE = "votes.jsonl"
LOCK_FILE = "serve.lock"
MAX_LINE_BYTES = 4096
MAX_QUOTED_CHARACTERS = 60
MAX_PLACE = 1_000_000

Key = tuple[str, str, bool, str]


@dataclass(frozen=True)
class Vote:
    """One line of the file.

    Args:
        at: UTC time in ISO 8601.
        repeat: whether the item was shown for the second time.
        answer: 1..5, 0 or 1, or "a", "tie", "b", by the study's mode, or a fault as
            "extra_finger@512,300"; None takes the vote back.
        on_left: which side was on the left.
        place: place in the rater's order, from 1.
    """

    at: str
    rater: str
    item: str
    repeat: bool
    question: str
    answer: Answer | None
    on_left: Side
    place: int

    @property
    def key(self) -> Key:
        """What a vote answers; the last vote of each key counts."""
        return self.rater, self.item, self.repeat, self.question


@dataclass(frozen=True)
class Line:
    """A line of the file: its number from 1, and the vote or why it is not one."""

    number: int
    vote: Vote | None
    reason: str | None


class VoteFile:
    """The votes of one study, open for adding. One at a time, also across processes.

    Args:
        folder: the study's folder.
        saved: called after each vote, in the thread of `add`.

    Raises:
        HoiError: the study is being served elsewhere.
    """

    def __init__(self, folder: Path, saved: Callable[[], None] = lambda: None) -> None:
        self._saved = saved
        self.path = folder / VOTES_FILE
        self._lock = FileLock(folder / LOCK_FILE)
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise HoiError(
                f"{folder} is being served already", "use that page, or stop it first"
            ) from error
        with writing(self.path):
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            sync(folder)
            size = os.fstat(self._file).st_size
            if size and os.pread(self._file, 1, size - 1) != b"\n":
                # A line torn by a power cut was never confirmed: end it before the next one.
                os.write(self._file, b"\n")

    def add(self, vote: Vote) -> None:
        """Append one vote; on return it is on disk. Not for two threads at once.

        Raises:
            DiskFull: no room; the file is as it was before.
        """
        line = (json.dumps(asdict(vote), ensure_ascii=False) + "\n").encode("utf-8")
        size = os.fstat(self._file).st_size
        with writing(self.path):
            try:
                written = os.write(self._file, line)
                if written < len(line):
                    # Write the rest again so that the OS raises its error.
                    os.write(self._file, line[written:])
                os.fsync(self._file)
            except OSError:
                os.ftruncate(self._file, size)
                raise
        self._saved()

    def close(self) -> None:
        """Let another process serve the study."""
        os.close(self._file)
        self._lock.release()


def now() -> str:
    """UTC time in ISO 8601, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def read_lines(folder: Path, study: Study) -> Iterator[Line]:
    """Every line of the study's votes in order; blank ones are skipped.

    Raises:
        HoiError: the list of raters is damaged.
    """
    path = folder / VOTES_FILE
    if not path.exists():
        return
    raters = read_raters(folder)
    items = {item.item: item for item in study.items}
    with path.open("rb") as file:
        for number, (raw, size) in enumerate(_raw_lines(file), start=1):
            if size > MAX_LINE_BYTES:
                yield Line(number, None, f"{size} bytes, more than {MAX_LINE_BYTES}")
            elif raw.strip():
                yield _parse_line(number, raw, study, items, raters)


def _raw_lines(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Each line's beginning and its whole size; one that does not end is never in memory."""
    while raw := file.readline(MAX_LINE_BYTES + 1):
        size, end = len(raw), raw
        while not end.endswith(b"\n") and (end := file.readline(MAX_LINE_BYTES)):
            size += len(end)
        yield raw, size


def _parse_line(
    number: int, raw: bytes, study: Study, items: Mapping[str, Item], raters: Mapping[str, str]
) -> Line:
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        return Line(number, None, "is not JSON")
    reason = _find_problem(found, study, items, raters)
    return Line(number, None, reason) if reason else Line(number, Vote(**found), None)


def _find_problem(
    found: Any, study: Study, items: Mapping[str, Item], raters: Mapping[str, str]
) -> str | None:
    """Why a parsed line is not a vote of this study; None where it is."""
    fields = Vote.__dataclass_fields__.keys()
    if not isinstance(found, dict) or found.keys() != fields:
        return f"must hold exactly {', '.join(fields)}"
    for field in ("at", "rater", "item", "question", "on_left"):
        if not isinstance(found[field], str):
            return f"{field} {_quote(found[field])} is not text"
    if found["rater"] not in raters:
        return f"unknown rater {_quote(found['rater'])}"
    if found["item"] not in items:
        return f"unknown item {_quote(found['item'])}"
    asked = {question.key: question for question in study.questions}.get(found["question"])
    if asked is None:
        return f"unknown question {_quote(found['question'])}"
    answer = found["answer"]
    if answer is not None and not asked.allows(answer, study.mode):
        return f"answer {_quote(answer)} is not {asked.answers(study.mode)}"
    if type(found["repeat"]) is not bool or type(found["place"]) is not int:
        return "repeat or place is of the wrong type"
    if not 1 <= found["place"] <= MAX_PLACE:
        return f"place {_quote(found['place'])} is not from 1 to {MAX_PLACE}"
    if found["on_left"] not in ("a", "b"):
        return f"on_left {_quote(found['on_left'])} is not a or b"
    try:
        moment = datetime.fromisoformat(found["at"])
        if moment.tzinfo is None:
            return f"at {_quote(found['at'])} has no time zone"
        moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return f"at {_quote(found['at'])} is not a time"
    return None


def _quote(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MAX_QUOTED_CHARACTERS else text[:MAX_QUOTED_CHARACTERS] + "..."
