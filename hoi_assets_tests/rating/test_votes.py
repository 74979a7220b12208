"""Promises of votes: none is lost, the last counts, what is wrong is named and the rest goes on."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from hoi_assets.errors import HoiError
from hoi_assets.rating.raters import make_links
from hoi_assets.rating.study import read_study, study_folder
from hoi_assets.rating.study_making import StudyImage, make_study
from hoi_assets.rating.vote_tables import (
    VOTE_ROWS,
    collect_votes,
    count_answers,
    votes_digest,
    votes_table,
)
from hoi_assets.rating.votes import Vote, VoteFile
from hoi_assets.store.disk import DiskFull
from hoi_assets_tests.rating.conftest import picture, study_of
from hoi_assets_tests.store.conftest import file_size_limit

AT = "2026-01-02T03:04:05.678+00:00"


def vote(folder: Path, number: int = 0, answer: Any = "a", **changes: Any) -> dict[str, Any]:
    study = read_study(folder)
    return {
        "at": AT,
        "rater": "anna",
        "item": study.items[number].item,
        "repeat": False,
        "question": study.questions[0].key,
        "answer": answer,
        "on_left": "a",
        "place": number + 1,
    } | changes


def write(folder: Path, *lines: Any) -> None:
    make_links(folder, ["anna", "ben"])
    text = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (folder / "votes.jsonl").write_text("\n".join(text) + "\n", encoding="utf-8")


def test_study_without_votes_has_an_empty_table(pairwise: Path) -> None:
    table = votes_table(pairwise)
    assert table.height == 0 and dict(table.schema) == VOTE_ROWS.schema


def test_last_vote_counts_and_history_is_kept(pairwise: Path) -> None:
    ben = vote(pairwise, answer="b", rater="ben")
    write(pairwise, vote(pairwise), ben, vote(pairwise, answer="tie"), vote(pairwise, answer="b"))
    table = votes_table(pairwise)
    assert table.select("line", "rater", "choice", "status", "reason").rows() == [
        (1, "anna", "a", "rejected", "superseded by line 4"),
        (2, "ben", "b", "accepted", None),
        (3, "anna", "tie", "rejected", "superseded by line 4"),
        (4, "anna", "b", "accepted", None),
    ]


def test_withdrawn_vote_does_not_count(pairwise: Path) -> None:
    write(pairwise, vote(pairwise), vote(pairwise, answer=None), vote(pairwise, 1))
    table = votes_table(pairwise)
    assert table["status"].to_list() == ["rejected", "rejected", "accepted"]
    assert table["reason"].to_list()[:2] == ["withdrawn at line 2", "takes an earlier vote back"]


def test_repeat_does_not_replace_the_first_answer(pairwise: Path) -> None:
    write(pairwise, vote(pairwise), vote(pairwise, answer="b", repeat=True, on_left="b"))
    assert votes_table(pairwise)["status"].to_list() == ["accepted", "accepted"]


def test_table_names_methods_pictures_and_scenario(pairwise: Path) -> None:
    write(pairwise, vote(pairwise, on_left="b"))
    (row,) = votes_table(pairwise).to_dicts()
    item = read_study(pairwise).items[0]
    assert (row["study"], row["mode"], row["on_left"]) == ("study", "pairwise", "b")
    assert (row["image_a"], row["image_b"]) == tuple(shown.image for shown in item.pictures)
    assert {row["method_a"], row["method_b"]} == {"zephyr", "quartz"}
    assert row["scenario"] == "functional" and row["prompt"] == item.prompt
    assert row["voted_at"].isoformat() == "2026-01-02T03:04:05.678000+00:00"
    assert row["score"] is None


def test_score_of_equal_pictures_counts_for_each_method(tmp_path: Path) -> None:
    path, folder = tmp_path / "same.png", tmp_path / "study"
    picture(1).save(path)
    make_study(folder, "rating", [StudyImage("p", "x", path), StudyImage("p", "y", path)])
    write(folder, vote(folder, answer=4))
    table = votes_table(folder)
    assert table.select("line", "method_a", "score").rows() == [(1, "x", 4), (1, "y", 4)]


BAD: list[tuple[Any, str]] = [
    ("{", "is not JSON"),
    ("[" * 3000, "is not JSON"),
    ("[]", "must hold exactly at, rater"),
    ({"answer": "a"}, "must hold exactly"),
    ({"extra": 1}, "must hold exactly"),
    ({"rater": "mallory"}, "unknown rater 'mallory'"),
    ({"rater": ["anna"]}, "is not text"),
    ({"item": "0" * 16}, "unknown item"),
    ({"question": "colour"}, "unknown question 'colour'"),
    ({"answer": 3}, "answer 3 is not one of a, tie, b"),
    ({"answer": "left"}, "answer 'left' is not one of"),
    ({"answer": "x" * 3000}, "..."),
    ({"answer": "x" * 9000}, "bytes, more than"),
    ({"repeat": 0}, "wrong type"),
    ({"on_left": "left"}, "is not a or b"),
    ({"place": 10**30}, "is not from 1 to"),
    ({"place": 0}, "is not from 1 to"),
    ({"at": "0001-01-01T00:00:00+14:00"}, "is not a time"),
    ({"at": "9999-12-31T23:59:59-14:00"}, "is not a time"),
    ({"at": "yesterday"}, "is not a time"),
    ({"at": "2026-01-02T03:04:05"}, "no time zone"),
]


def test_wrong_lines_are_named_by_number_and_the_rest_counts(pairwise: Path) -> None:
    lines = []
    for change, _ in BAD:
        made = vote(pairwise) | change if isinstance(change, dict) else change
        lines.append({"answer": "a"} if change == {"answer": "a"} else made)
    write(pairwise, vote(pairwise, 1), *lines, vote(pairwise, 2))
    table = votes_table(pairwise)
    assert table["line"].to_list() == list(range(1, len(BAD) + 3))
    assert table.filter(pl.col("status") == "accepted")["line"].to_list() == [1, len(BAD) + 2]
    for (_, wanted), reason in zip(BAD, table["reason"].to_list()[1:-1], strict=True):
        assert wanted in reason


@pytest.mark.parametrize("answer", [0, 6, 3.0, True, "3", 10**30])
def test_scores_out_of_range_or_of_another_kind_are_refused(tmp_path: Path, answer: Any) -> None:
    folder = study_of(tmp_path, "rating", prompts=1)
    write(folder, vote(folder, answer=answer), vote(folder, answer=5))
    table = votes_table(folder)
    assert table["status"].to_list() == ["rejected", "accepted"]
    assert "is not one of 1, 2, 3, 4, 5" in table["reason"][0]


def test_bytes_that_are_no_text_are_one_wrong_line(pairwise: Path) -> None:
    write(pairwise, vote(pairwise))
    with (pairwise / "votes.jsonl").open("ab") as file:
        file.write(b"\xff\xfe\x00\n")
    assert votes_table(pairwise)["reason"].to_list() == [None, "is not JSON"]


def test_torn_line_costs_no_later_vote(pairwise: Path) -> None:
    write(pairwise, vote(pairwise))
    whole = json.dumps(vote(pairwise, 1))
    with (pairwise / "votes.jsonl").open("a", encoding="utf-8") as file:
        file.write(whole[: len(whole) // 2])
    votes = VoteFile(pairwise)
    votes.add(Vote(**vote(pairwise, 2)))
    votes.close()
    table = votes_table(pairwise)
    assert table["status"].to_list() == ["accepted", "rejected", "accepted"]


def test_full_disk_refuses_the_vote_and_harms_no_other(pairwise: Path) -> None:
    make_links(pairwise, ["anna"])
    votes = VoteFile(pairwise)
    votes.add(Vote(**vote(pairwise)))
    size = (pairwise / "votes.jsonl").stat().st_size
    with file_size_limit(size + 20), pytest.raises(DiskFull):
        votes.add(Vote(**vote(pairwise, 1)))
    assert (pairwise / "votes.jsonl").stat().st_size == size
    votes.add(Vote(**vote(pairwise, 2)))
    votes.close()
    assert votes_table(pairwise)["status"].to_list() == ["accepted", "accepted"]


def test_study_is_served_once_at_a_time(pairwise: Path) -> None:
    votes = VoteFile(pairwise)
    with pytest.raises(HoiError, match="served already"):
        VoteFile(pairwise)
    votes.close()
    VoteFile(pairwise).close()


def test_votes_of_all_studies_are_one_table_whose_digest_follows_every_vote(
    tmp_path: Path,
) -> None:
    assert collect_votes(tmp_path).votes.height == 0
    first = study_of(tmp_path / "one", "rating").rename(_place(tmp_path, "first"))
    second = study_of(tmp_path / "two", "pairwise").rename(_place(tmp_path, "second"))
    digests = [votes_digest(tmp_path)]
    for folder, answer in ((second, "tie"), (first, 2)):
        write(folder, vote(folder, answer=answer))
        digests.append(votes_digest(tmp_path))
    table = collect_votes(tmp_path).votes
    assert table.select("study", "choice", "score").rows() == [
        ("first", None, 2),
        ("second", "tie", None),
    ]
    assert len({*digests, votes_digest(tmp_path)}) == 3


@pytest.mark.parametrize("raters", ["{", "[1]", "null", '"x"', '{"anna": 1}', "\x00"])
def test_damaged_study_is_told_and_the_others_are_read(tmp_path: Path, raters: str) -> None:
    for name in ("good", "torn", "lost"):
        folder = study_of(tmp_path / name, "rating").rename(_place(tmp_path, name))
        write(folder, vote(folder, answer=3), vote(folder, answer=4), {"no": "vote"})
    (study_folder(tmp_path, "torn") / "study.json").write_text("{", encoding="utf-8")
    before = votes_digest(tmp_path)
    (study_folder(tmp_path, "lost") / "raters.json").write_text(raters, encoding="utf-8")
    assert votes_digest(tmp_path) != before
    found = collect_votes(tmp_path)
    assert found.votes["study"].unique().to_list() == ["good"]
    rows = {row["study"]: row for row in found.studies.to_dicts()}
    assert rows["good"] == {
        "study": "good",
        "mode": "rating",
        "items": 24,
        "raters": 1,
        "votes": 1,
        "rejected": 2,
        "status": "accepted",
        "reason": None,
    }
    assert rows["torn"]["status"] == "failed" and "study.json" in rows["torn"]["reason"]
    assert rows["lost"]["status"] == "failed" and "raters.json" in rows["lost"]["reason"]


def test_progress_counts_answers_that_stand_of_all_that_are_asked(tmp_path: Path) -> None:
    folder = study_of(tmp_path, "rating")
    write(folder, vote(folder, answer=1), vote(folder, answer=2), vote(folder, 1, answer=None))
    found = count_answers(folder).select("rater", "answered", "of").rows()
    assert found == [("anna", 1, 48), ("ben", 0, 48)]


def _place(home: Path, name: str) -> Path:
    place = study_folder(home, name)
    place.parent.mkdir(exist_ok=True)
    return place


def test_line_without_end_is_rejected_and_never_held(pairwise: Path) -> None:
    write(pairwise, vote(pairwise), '{"rater": "anna')
    with (pairwise / "votes.jsonl").open("r+b") as file:
        file.truncate(64 * 2**20)  # sparse
    tracemalloc.start()
    table = votes_table(pairwise)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert table.sort("line")["status"].to_list() == ["accepted", "rejected", "rejected"]
    assert "bytes, more than" in table.sort("line")["reason"][2] and peak < 16 * 2**20
