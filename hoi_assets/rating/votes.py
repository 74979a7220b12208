"""Votes: one line each in `votes.jsonl`, appended and flushed to disk before the page hears of it.

Nothing is ever rewritten. The last line of a (rater, item, repeat, question) counts, earlier ones
stay as history; an answer of null takes a vote back.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
from filelock import FileLock, Timeout

from hoi_assets.errors import HoiError
from hoi_assets.hashing import digest, digest_file
from hoi_assets.rating.raters import RATERS_FILE, read_raters
from hoi_assets.rating.study import (
    ANSWERS,
    EQUAL_PAIRS,
    STUDY_FILE,
    Answer,
    Item,
    Side,
    Study,
    equal_pairs,
    read_study,
    showings,
    study_folders,
)
from hoi_assets.store.disk import sync, writing

VOTES_FILE = "votes.jsonl"
LOCK_FILE = "serve.lock"
MAX_LINE_BYTES = 4096
MAX_TOLD_CHARACTERS = 60
MAX_PLACE = 1_000_000

VOTES: dict[str, Any] = {
    "study": pl.String,
    "suite": pl.String,
    "mode": pl.String,
    "line": pl.Int64,
    "status": pl.String,
    "reason": pl.String,
    "voted_at": pl.Datetime("us", "UTC"),
    "rater": pl.String,
    "item": pl.String,
    "prompt_id": pl.String,
    "prompt": pl.String,
    "scenario": pl.String,
    "category": pl.String,
    "question": pl.String,
    "repeat": pl.Boolean,
    "place": pl.Int64,
    "on_left": pl.String,
    "image_a": pl.String,
    "method_a": pl.String,
    "image_b": pl.String,
    "method_b": pl.String,
    "choice": pl.String,
    "score": pl.Int64,
}

STUDIES: dict[str, Any] = {
    "study": pl.String,
    "mode": pl.String,
    "items": pl.Int64,
    "raters": pl.Int64,
    "votes": pl.Int64,
    "rejected": pl.Int64,
    "status": pl.String,
    "reason": pl.String,
}
PROGRESS: dict[str, Any] = {
    "study": pl.String,
    "mode": pl.String,
    "rater": pl.String,
    "answered": pl.Int64,
    "of": pl.Int64,
}

_FILES = (STUDY_FILE, VOTES_FILE)

EQUAL: dict[str, Any] = {"study": pl.String, **EQUAL_PAIRS}

Key = tuple[str, str, bool, str]


@dataclass(frozen=True)
class Vote:
    """One line of the file.

    Args:
        at: UTC time in ISO 8601.
        repeat: whether the item was shown for the second time.
        answer: 1..5, 0 or 1, or "a", "tie", "b", by the study's mode; None takes the vote back.
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
        """What there is one answer to."""
        return self.rater, self.item, self.repeat, self.question


@dataclass(frozen=True)
class Line:
    """A line of the file: its number from 1, and the vote or the reason why it is none."""

    number: int
    vote: Vote | None
    reason: str | None


@dataclass(frozen=True)
class Collected:
    """What `collect` found: tables of VOTES and STUDIES, and of EQUAL: pairs that nobody was shown
    because both methods made the same pixels."""

    votes: pl.DataFrame
    studies: pl.DataFrame
    equal: pl.DataFrame


class VoteFile:
    """The votes of one study, open for adding. One at a time, also across processes.

    Args:
        folder: the study's folder.

    Raises:
        HoiError: the study is being served elsewhere.
    """

    def __init__(self, folder: Path) -> None:
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
                # A line torn by a power cut: it was never confirmed; end it and leave it be.
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
                    # What did not fit says why it did not.
                    os.write(self._file, line[written:])
                os.fsync(self._file)
            except OSError:
                os.ftruncate(self._file, size)
                raise

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
        for number, raw in enumerate(file, start=1):
            if raw.strip():
                yield _line(number, raw, study, items, raters)


def votes_table(folder: Path) -> pl.DataFrame:
    """All votes of a study, one row per line and pair of methods, methods unblinded.

    A row is `accepted`, or `rejected` with the reason: it was superseded or withdrawn later, or it
    names an unknown rater, item or question, or its answer is out of range. Where methods made the
    same pixels, one line gives a row for each.

    Returns:
        Table of VOTES. Pairwise fills choice ("a", "tie", "b") and both sides; the other modes fill
        score and side a.

    Raises:
        HoiError: no study in `folder`, or its manifest or list of raters is damaged.
    """
    study = read_study(folder)
    items = {item.item: item for item in study.items}
    lines = list(read_lines(folder, study))
    later: dict[Key, Line] = {}
    rows: list[dict[str, Any]] = []
    for line in reversed(lines):
        start = {"study": folder.name, "mode": study.mode, "line": line.number}
        if line.vote is None:
            rows.append(start | {"status": "rejected", "reason": line.reason})
            continue
        reason = _superseded(line, later.get(line.vote.key))
        later.setdefault(line.vote.key, line)
        start |= {"status": "rejected" if reason else "accepted", "reason": reason}
        rows += reversed(list(_rows(start, line.vote, items[line.vote.item])))
    return pl.DataFrame(rows[::-1], schema=VOTES)


def collect(home: Path) -> Collected:
    """What people said in all studies below `home`, by name of the study.

    A damaged study is a `failed` row of `studies` with the reason; the others are read.
    """
    studies: list[dict[str, Any]] = []
    votes, equal = [pl.DataFrame(schema=VOTES)], [pl.DataFrame(schema=EQUAL)]
    for folder in study_folders(home):
        try:
            study, table = read_study(folder), votes_table(folder)
        except HoiError as error:
            row = {"study": folder.name, "status": "failed", "reason": str(error)}
        else:
            row = _summary(folder.name, study, table)
            votes.append(table)
            named = equal_pairs(study).with_columns(pl.lit(folder.name).alias("study"))
            equal.append(named.select(list(EQUAL)))
        studies.append(row)
    return Collected(pl.concat(votes), pl.DataFrame(studies, schema=STUDIES), pl.concat(equal))


def votes_digest(home: Path) -> str:
    """Digest of all that `collect` reads: 64 hex digits, another after every vote."""
    return digest(
        [
            [folder.name, _raters_digest(folder), *(_file_digest(folder, n) for n in _FILES)]
            for folder in study_folders(home)
        ]
    )


def progress(folder: Path) -> pl.DataFrame:
    """How many answers each rater gave, of how many.

    Returns:
        Table of PROGRESS, one row per rater with a link.

    Raises:
        HoiError: as `votes_table`.
    """
    study = read_study(folder)
    given = votes_table(folder).filter(status="accepted").unique(["line"])
    rows = [
        {
            "study": folder.name,
            "mode": study.mode,
            "rater": rater,
            "answered": given.filter(rater=rater).height,
            "of": len(showings(study, rater)) * len(study.questions),
        }
        for rater in sorted(read_raters(folder))
    ]
    return pl.DataFrame(rows, schema=PROGRESS)


def _summary(name: str, study: Study, votes: pl.DataFrame) -> dict[str, Any]:
    lines = votes.unique(["line"])
    accepted = lines.filter(status="accepted")
    return {
        "study": name,
        "mode": study.mode,
        "items": len(study.items),
        "raters": accepted["rater"].n_unique(),
        "votes": accepted.height,
        "rejected": lines.height - accepted.height,
        "status": "accepted",
    }


def _raters_digest(folder: Path) -> str:
    """Of the names alone: new links for the same raters change no vote."""
    try:
        return digest(sorted(read_raters(folder)))
    except HoiError:
        return digest_file(folder / RATERS_FILE)


def _file_digest(folder: Path, name: str) -> str | None:
    path = folder / name
    return digest_file(path) if path.exists() else None


def _superseded(line: Line, last: Line | None) -> str | None:
    if line.vote is None or line.vote.answer is None:
        return "takes an earlier vote back"
    if last is None or last.vote is None:
        return None
    done = "withdrawn at" if last.vote.answer is None else "superseded by"
    return f"{done} line {last.number}"


def _rows(start: dict[str, Any], vote: Vote, item: Item) -> Iterator[dict[str, Any]]:
    a, b = item.pictures[0], item.pictures[-1]
    pair = len(item.pictures) == 2
    common = start | {
        "voted_at": datetime.fromisoformat(vote.at),
        "rater": vote.rater,
        "suite": item.suite,
        "item": item.item,
        "prompt_id": item.prompt_id,
        "prompt": item.prompt,
        "scenario": item.scenario,
        "category": item.category,
        "question": vote.question,
        "repeat": vote.repeat,
        "place": vote.place,
        "on_left": vote.on_left if pair else None,
        "image_a": a.image,
        "image_b": b.image if pair else None,
        "choice": vote.answer if pair else None,
        "score": None if pair else vote.answer,
    }
    for method_a in a.methods:
        for method_b in b.methods if pair else (None,):
            yield common | {"method_a": method_a, "method_b": method_b}


def _line(
    number: int, raw: bytes, study: Study, items: Mapping[str, Item], raters: Mapping[str, str]
) -> Line:
    if len(raw) > MAX_LINE_BYTES:
        return Line(number, None, f"{len(raw)} bytes, more than {MAX_LINE_BYTES}")
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        return Line(number, None, "is not JSON")
    reason = _fault(found, study, items, raters)
    return Line(number, None, reason) if reason else Line(number, Vote(**found), None)


def _fault(
    found: Any, study: Study, items: Mapping[str, Item], raters: Mapping[str, str]
) -> str | None:
    """Why a parsed line is no vote of this study, or None."""
    fields = Vote.__dataclass_fields__.keys()
    if not isinstance(found, dict) or found.keys() != fields:
        return f"must hold exactly {', '.join(fields)}"
    for field in ("at", "rater", "item", "question", "on_left"):
        if not isinstance(found[field], str):
            return f"{field} {_told(found[field])} is not text"
    if found["rater"] not in raters:
        return f"unknown rater {_told(found['rater'])}"
    if found["item"] not in items:
        return f"unknown item {_told(found['item'])}"
    if found["question"] not in {question.key for question in study.questions}:
        return f"unknown question {_told(found['question'])}"
    # type() and not isinstance(): JSON's true is no score of 1.
    answer, allowed = found["answer"], ANSWERS[study.mode]
    if answer is not None and not any(type(answer) is type(a) and answer == a for a in allowed):
        return f"answer {_told(answer)} is not one of {', '.join(str(a) for a in allowed)}"
    if type(found["repeat"]) is not bool or type(found["place"]) is not int:
        return "repeat or place is of the wrong type"
    if not 1 <= found["place"] <= MAX_PLACE:
        return f"place {_told(found['place'])} is not from 1 to {MAX_PLACE}"
    if found["on_left"] not in ("a", "b"):
        return f"on_left {_told(found['on_left'])} is not a or b"
    try:
        moment = datetime.fromisoformat(found["at"])
        if moment.tzinfo is None:
            return f"at {_told(found['at'])} has no time zone"
        moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return f"at {_told(found['at'])} is not a time"
    return None


def _told(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MAX_TOLD_CHARACTERS else text[:MAX_TOLD_CHARACTERS] + "..."
