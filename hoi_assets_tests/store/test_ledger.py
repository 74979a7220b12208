import multiprocessing
import sqlite3
import time
from collections.abc import Callable
from typing import Any

import pytest

from hoi_assets.errors import HoiError
from hoi_assets.hashing import digest
from hoi_assets.store.disk import DiskFull
from hoi_assets.store.ledger import Ledger
from hoi_assets_tests.store.conftest import file_size_limit

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def ledger(open_one: Callable[[], Ledger]) -> Ledger:
    return open_one()


def row(row_id: str, status: str, **more: Any) -> dict[str, Any]:
    return {
        "stage": "candidate_images",
        "partition": "hook",
        "row_id": row_id,
        "status": status,
    } | (more)


def test_first_write_wins_and_is_what_everyone_gets(ledger: Ledger) -> None:
    assert ledger.put("image", {"k": {"seed": 1}}) == {"k": {"seed": 1}}
    assert ledger.put("image", {"k": {"seed": 2}, "n": 3}) == {"k": {"seed": 1}, "n": 3}
    assert ledger.get("image", ["n", "absent", "k"]) == {"n": 3, "k": {"seed": 1}}


def test_kinds_do_not_mix(ledger: Ledger) -> None:
    ledger.put("image", {"k": 1})
    assert ledger.get("score", ["k"]) == {}


def test_made_survives_reopening(open_one: Callable[[], Ledger]) -> None:
    ledger = open_one()
    ledger.put("image", {"k": 1})
    ledger.close()
    assert open_one().get("image", ["k"]) == ledger.get("image", ["k"]) == {"k": 1}


def test_value_is_the_same_when_made_and_when_found(ledger: Ledger) -> None:
    value = {"z": (1, 2.5), "a": "é \ud83d", "none": None}
    made = ledger.put("reply", {"k": value})["k"]
    assert made == ledger.get("reply", ["k"])["k"] == {"z": [1, 2.5], "a": "é \ud83d", "none": None}


def test_not_a_number_is_refused_and_nothing_of_the_call_is_kept(ledger: Ledger) -> None:
    with pytest.raises(ValueError):
        ledger.put("score", {"good": 1.0, "bad": float("nan")})
    assert ledger.get("score", ["good"]) == {}


def test_forgotten_values_are_made_anew(ledger: Ledger) -> None:
    ledger.put("image", {"k": 1, "n": 2})
    assert ledger.delete("image", ["k", "absent"]) == 1
    assert ledger.put("image", {"k": 9}) == {"k": 9}
    assert ledger.get("image", ["n"]) == {"n": 2}


def test_five_thousand_keys_cost_under_two_seconds(ledger: Ledger) -> None:
    values = {digest(number): {"image": digest(-number)} for number in range(5000)}
    before = time.process_time()
    ledger.put("image", values)
    between = time.process_time()
    assert ledger.get("image", values) == values
    after = time.process_time()
    assert between - before < 2
    assert after - between < 2


def test_latest_status_stands_and_attempts_are_counted(ledger: Ledger) -> None:
    ledger.record([row("a", "failed", reason="timeout"), row("b", "accepted")])
    ledger.record([row("a", "failed", reason="timeout"), row("b", "accepted", version="v1")])
    ledger.record([row("a", "accepted")])
    ledger.record([row("a", "accepted")])
    table = ledger.rows().select("row_id", "status", "reason", "version", "attempts")
    assert table.rows() == [("a", "accepted", None, None, 3), ("b", "accepted", None, "v1", 1)]


def test_rows_filter_by_every_field_and_sort(ledger: Ledger) -> None:
    ledger.record(
        [
            row("b", "rejected", reason="no hand"),
            row("a", "accepted"),
            {"stage": "verifier", "partition": None, "row_id": "a", "status": "accepted"},
        ]
    )
    assert ledger.rows(stage="candidate_images")["row_id"].to_list() == ["a", "b"]
    assert ledger.rows(row_id="a")["partition"].to_list() == ["hook", None]
    assert ledger.rows(status="rejected", partition="hook")["reason"].to_list() == ["no hand"]
    empty = ledger.rows(stage="nothing")
    assert empty.height == 0
    assert empty.schema == ledger.rows().schema


def test_rows_sort_by_code_points_and_hold_any_character(ledger: Ledger) -> None:
    odd = "a NUL \x00, quotes '\" and \\ %s :x ?"
    names = [
        "\x00",
        "\x01",
        "\x01\x01",
        "\x02",
        "A",
        "B",
        "_",
        "a",
        "a\x00b",
        "a'b",
        "b",
        "é",
        "😀",
    ]
    ledger.record([row(name, "failed", reason=odd, partition=odd) for name in reversed(names)])
    found = ledger.rows(partition=odd)
    assert found["row_id"].to_list() == sorted(names)
    assert set(found["reason"]) == {odd}
    assert [ledger.rows(row_id=name).height for name in names] == [1] * len(names)
    assert ledger.verify() == {"made": 0, "rows": len(names)}


def test_a_row_named_twice_in_one_call_was_tried_twice(ledger: Ledger) -> None:
    ledger.record([row("a", "failed", reason="first"), row("a", "accepted")])
    assert ledger.rows().select("status", "attempts").rows() == [("accepted", 2)]


@pytest.mark.parametrize("wrong", [row("a", "dropped"), row("a", "rejected"), row("a", "failed")])
def test_unknown_status_or_missing_reason_is_refused(ledger: Ledger, wrong: dict[str, Any]) -> None:
    with pytest.raises(HoiError, match="ledger row 'a' of candidate_images"):
        ledger.record([row("b", "accepted"), wrong])
    assert ledger.rows().height == 0


def test_changes_grow_with_every_record_only(ledger: Ledger) -> None:
    before = ledger.changes()
    ledger.put("image", {"k": 1})
    ledger.record([])
    assert ledger.changes() == before
    ledger.record([row("a", "accepted")])
    assert ledger.changes() > before


def _compete(open_one: Callable[[], Ledger], process: int, results: Any) -> None:
    ledger = open_one()
    seen: dict[str, int] = {}
    for batch in range(20):
        keys = [f"key {batch}-{number}" for number in range(25)]
        keys = keys[process:] + keys[:process]  # each in another order
        seen |= ledger.put("image", dict.fromkeys(keys, process))
        ledger.record([row(key, "failed", reason=f"by {process}") for key in keys])
    results.put(seen)


def test_four_processes_agree_on_winners_and_lose_no_attempt(
    open_one: Callable[[], Ledger],
) -> None:
    results = FORK.Queue()
    processes = [FORK.Process(target=_compete, args=(open_one, n, results)) for n in range(4)]
    for process in processes:
        process.start()
    answers = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert len(answers[0]) == 500
    assert all(answer == answers[0] for answer in answers)
    ledger = open_one()
    assert ledger.get("image", answers[0]) == answers[0]
    assert ledger.rows()["attempts"].to_list() == [4] * 500
    assert ledger.changes() == 80


def test_ledger_opened_before_a_fork_works_on_both_sides(ledger: Ledger) -> None:
    ledger.put("image", {"before": 0})
    child = FORK.Process(target=ledger.put, args=("image", {"child": 1}))
    child.start()
    ledger.put("image", {"parent": 2})
    child.join(60)
    assert child.exitcode == 0
    assert ledger.get("image", ["before", "child", "parent"]) == {
        "before": 0,
        "child": 1,
        "parent": 2,
    }


def test_ledger_of_a_newer_program_is_left_alone(sqlite_ledger: Ledger) -> None:
    sqlite_ledger.put("image", {"k": 1})
    sqlite_ledger.close()
    with sqlite3.connect(sqlite_ledger.path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(HoiError, match=r"schema 99.*\n.*update hoi-assets"):
        Ledger(sqlite_ledger.path).get("image", ["k"])


def test_damaged_ledger_says_what_to_do(sqlite_ledger: Ledger) -> None:
    sqlite_ledger.path.parent.mkdir(parents=True)
    sqlite_ledger.path.write_bytes(b"this is no database" * 100)
    with pytest.raises(HoiError, match="damaged"):
        sqlite_ledger.get("image", ["k"])


def test_full_disk_keeps_what_was_made_and_nothing_of_the_failed_call(
    sqlite_ledger: Ledger,
) -> None:
    sqlite_ledger.put("image", {"k": 1})
    room = sqlite_ledger.path.with_name("ledger.sqlite-wal").stat().st_size + 20_000
    with file_size_limit(room), pytest.raises(DiskFull, match="disk full while writing"):
        sqlite_ledger.put("image", {f"n{number}": "x" * 1000 for number in range(500)})
    assert sqlite_ledger.get("image", ["k", "n0", "n499"]) == {"k": 1}
    assert sqlite_ledger.put("image", {"n0": 2}) == {"n0": 2}
