"""Tables of votes: of one study, of all studies, and how far each rater has come."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from hoi_assets.errors import HoiError
from hoi_assets.hashing import digest, digest_file
from hoi_assets.rating.raters import RATERS_FILE, read_raters
from hoi_assets.rating.study import (
    STUDY_FILE,
    Item,
    Study,
    read_fault,
    read_study,
    showings,
    study_folders,
)
from hoi_assets.rating.votes import VOTES_FILE, Key, Line, Vote, read_lines
from hoi_assets.store.tables import Column, Table

_STUDY = Column("study", pl.String, "name of the study")
_MODE = Column("mode", pl.String, "rating, pairwise or verify")
VOTE_ROWS = Table(
    "rows",
    "one vote, for each method or pair of methods that it judges",
    (
        _STUDY,
        Column("suite", pl.String, "suite of the pictures; null for none", nullable=True),
        _MODE,
        Column("line", pl.Int64, "number of the vote's line in votes.jsonl, from 1"),
        Column("status", pl.String, "accepted or rejected"),
        Column("reason", pl.String, "why the vote was rejected", nullable=True),
        Column("voted_at", pl.Datetime("us", "UTC"), "when; null if unreadable", nullable=True),
        Column("rater", pl.String, "the rater's pseudonym; null if unreadable", nullable=True),
        Column("item", pl.String, "what was judged; null if unreadable", nullable=True),
        Column("prompt_id", pl.String, "its prompt; the unit of every mean", nullable=True),
        Column("prompt", pl.String, "the sentence that was shown", nullable=True),
        Column("scenario", pl.String, "InterActing's scenario; null elsewhere", nullable=True),
        Column("category", pl.String, "hand pose; null elsewhere", nullable=True),
        Column("question", pl.String, "key of the question; null if unreadable", nullable=True),
        Column("repeat", pl.Boolean, "whether the item was shown again", nullable=True),
        Column("place", pl.Int64, "place in the rater's order, from 1", nullable=True),
        Column("on_left", pl.String, "side shown on the left; pairwise only", nullable=True),
        Column("image_a", pl.String, "pixel digest of side a", nullable=True),
        Column("method_a", pl.String, "method that drew side a", nullable=True),
        Column("image_b", pl.String, "pixel digest of side b; pairwise only", nullable=True),
        Column("method_b", pl.String, "method that drew side b; pairwise only", nullable=True),
        Column(
            "choice",
            pl.String,
            "a, tie or b in pairwise studies; the kind of fault in verify studies",
            nullable=True,
        ),
        Column("score", pl.Int64, "1..5, or 0 and 1 in verify studies", nullable=True),
    ),
    key=("study", "line", "method_a", "method_b"),
)
STUDIES = Table(
    "studies",
    "one study",
    (
        _STUDY,
        Column("mode", pl.String, "rating, pairwise or verify; null if damaged", nullable=True),
        Column("items", pl.Int64, "items to judge; null if damaged", nullable=True),
        Column("raters", pl.Int64, "raters with an accepted vote", nullable=True),
        Column("votes", pl.Int64, "accepted votes", nullable=True),
        Column("rejected", pl.Int64, "rejected votes", nullable=True),
        Column("status", pl.String, "accepted, or failed where it cannot be read"),
        Column("reason", pl.String, "why it cannot be read", nullable=True),
    ),
    key=("study",),
)
EQUAL_PAIRS = Table(
    "equal",
    "two methods with the same pixels for a prompt: a tie that no rater is shown",
    (
        _STUDY,
        Column("prompt_id", pl.String, "the prompt"),
        Column("scenario", pl.String, "InterActing's scenario; null elsewhere", nullable=True),
        Column("category", pl.String, "hand pose; null elsewhere", nullable=True),
        Column("method_a", pl.String, "one method"),
        Column("method_b", pl.String, "the other method"),
        Column("suite", pl.String, "suite of the pictures; null for none", nullable=True),
    ),
)
PROGRESS = Table(
    "progress",
    "one rater of a study",
    (
        _STUDY,
        _MODE,
        Column("rater", pl.String, "the rater's pseudonym"),
        Column("answered", pl.Int64, "answers given"),
        Column("of", pl.Int64, "answers asked for"),
    ),
    key=("study", "rater"),
)

_FILES = (STUDY_FILE, VOTES_FILE)


@dataclass(frozen=True)
class Collected:
    """What `collect_votes` found: tables of VOTE_ROWS, STUDIES and EQUAL_PAIRS."""

    votes: pl.DataFrame
    studies: pl.DataFrame
    equal: pl.DataFrame


def votes_table(folder: Path) -> pl.DataFrame:
    """All votes of a study, one row per line and pair of methods, methods unblinded.

    A row is `accepted`, or `rejected` with the reason: it was superseded or withdrawn later, or it
    names an unknown rater, item or question, or its answer is out of range. Where methods made the
    same pixels, one line gives a row for each.

    Returns:
        Table of VOTE_ROWS. Pairwise fills choice ("a", "tie", "b") and both sides, other modes fill
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
        reason = _rejection(line, later.get(line.vote.key))
        later.setdefault(line.vote.key, line)
        start |= {"status": "rejected" if reason else "accepted", "reason": reason}
        rows += reversed(list(_vote_rows(start, line.vote, items[line.vote.item])))
    return pl.DataFrame(rows[::-1], schema=VOTE_ROWS.schema)


def collect_votes(home: Path) -> Collected:
    """All votes in all studies below `home`, by name of the study.

    A damaged study is a `failed` row of `studies` with the reason; the others are read.
    """
    studies: list[dict[str, Any]] = []
    votes, equal = (
        [pl.DataFrame(schema=VOTE_ROWS.schema)],
        [pl.DataFrame(schema=EQUAL_PAIRS.schema)],
    )
    for folder in study_folders(home):
        try:
            study, table = read_study(folder), votes_table(folder)
        except HoiError as error:
            row = {"study": folder.name, "status": "failed", "reason": str(error)}
        else:
            row = _study_row(folder.name, study, table)
            votes.append(table)
            pairs = [{"study": folder.name} | pair.model_dump() for pair in study.equal]
            equal.append(EQUAL_PAIRS.frame(pairs))
        studies.append(row)
    return Collected(
        pl.concat(votes), pl.DataFrame(studies, schema=STUDIES.schema), pl.concat(equal)
    )


def votes_digest(home: Path) -> str:
    """Digest of all that `collect_votes` reads: 64 hex digits; every vote changes it."""
    return digest(
        [
            [folder.name, _raters_digest(folder), *(_file_digest(folder, n) for n in _FILES)]
            for folder in study_folders(home)
        ]
    )


def count_answers(folder: Path) -> pl.DataFrame:
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
            "of": _asked(study, rater, given.filter(rater=rater)),
        }
        for rater in sorted(read_raters(folder))
    ]
    return pl.DataFrame(rows, schema=PROGRESS.schema)


def _asked(study: Study, rater: str, given: pl.DataFrame) -> int:
    """How many answers are asked of a rater, who gave those."""
    always = sum(question.after is None for question in study.questions)
    after = [question.after for question in study.questions if question.after is not None]
    more = sum(given.filter(question=key, score=answer).height for key, answer in after)
    return len(showings(study, rater)) * always + more


def _study_row(name: str, study: Study, votes: pl.DataFrame) -> dict[str, Any]:
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
    """Digest of the names alone: new links for the same raters change no vote."""
    try:
        return digest(sorted(read_raters(folder)))
    except HoiError:
        return digest_file(folder / RATERS_FILE)


def _file_digest(folder: Path, name: str) -> str | None:
    path = folder / name
    return digest_file(path) if path.exists() else None


def _rejection(line: Line, last: Line | None) -> str | None:
    if line.vote is None or line.vote.answer is None:
        return "takes an earlier vote back"
    if last is None or last.vote is None:
        return None
    done = "withdrawn at" if last.vote.answer is None else "superseded by"
    return f"{done} line {last.number}"


def _vote_rows(start: dict[str, Any], vote: Vote, item: Item) -> Iterator[dict[str, Any]]:
    a, b = item.pictures[0], item.pictures[-1]
    pair, fault = len(item.pictures) == 2, read_fault(vote.answer)
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
        "choice": vote.answer if pair else fault and fault.kind,
        "score": None if pair or fault else vote.answer,
    }
    for method_a in a.methods:
        for method_b in b.methods if pair else (None,):
            yield common | {"method_a": method_a, "method_b": method_b}
