"""Promises of the page, asked over HTTP: blind, resumable, for holders of a link only."""

import io
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from hoi_assets.errors import HoiError
from hoi_assets.hashing import digest_pixels
from hoi_assets.rating.page import Desk, build_app, serve
from hoi_assets.rating.raters import make_links
from hoi_assets.rating.study import FAULTS, read_study, showings
from hoi_assets.rating.vote_tables import count_answers, votes_table
from hoi_assets_tests.rating.conftest import METHODS, PROMPTS, study_of, tokens
from hoi_assets_tests.store.conftest import file_size_limit


@contextmanager
def served(folder: Path) -> Iterator[TestClient]:
    desk = Desk(folder)
    try:
        yield TestClient(build_app(desk))
    finally:
        desk.close()


def answer(client: TestClient, at: str, value: Any) -> dict[str, Any]:
    """Answer what is asked now."""
    now = client.get(f"{at}state").json()["now"]
    body = {"place": now["place"], "question": now["question"], "answer": value}
    reply = client.post(f"{at}votes", json=body)
    assert reply.status_code == 200
    return dict(reply.json())


def test_vote_goes_to_the_picture_that_stood_there(pairwise: Path) -> None:
    (anna,) = tokens(pairwise, "anna")
    chosen = []
    with served(pairwise) as client:
        for side in ("left", "right") * (PROMPTS // 2):
            place = client.get(f"{anna}state").json()["now"]["place"]
            raw = client.get(f"{anna}pictures/{place}/{side}").content
            chosen.append(digest_pixels(Image.open(io.BytesIO(raw))))
            answer(client, anna, side)
    table = votes_table(pairwise)
    winners = [row["image_a" if row["choice"] == "a" else "image_b"] for row in table.to_dicts()]
    assert winners == chosen
    assert set(table["on_left"]) == {"a", "b"}


@pytest.mark.parametrize("mode", ["rating", "pairwise", "verify"])
def test_nothing_served_names_a_method_or_the_study(tmp_path: Path, mode: Any) -> None:
    folder = study_of(tmp_path, mode, prompts=3)
    (anna,) = tokens(folder, "anna")
    with served(folder) as client:
        state = client.get(f"{anna}state")
        paths = [
            f"{anna}{path}" for path in state.json()["now"]["pictures"] + state.json()["ahead"]
        ]
        replies = [state, *(client.get(path) for path in (anna, "/page.js", "/page.css", *paths))]
    assert all(reply.status_code == 200 for reply in replies)
    for reply in replies:
        told = reply.content + json.dumps(dict(reply.headers)).encode() + str(reply.url).encode()
        assert not [name for name in (*METHODS, folder.name) if name.encode() in told.lower()]
        assert reply.headers["referrer-policy"] == "no-referrer"


def test_without_a_link_there_is_nothing(pairwise: Path) -> None:
    make_links(pairwise, ["anna"])
    with served(pairwise) as client:
        for path in ("/r/guess/", "/r/guess/state", "/r/guess/pictures/1/left"):
            reply = client.get(path)
            assert reply.status_code == 403 and "not known" in reply.text
        vote = {"place": 1, "question": "better", "answer": "left"}
        assert client.post("/r/guess/votes", json=vote).status_code == 403
        for path in ("/", "/r/", "/study.json", "/r/guess/../../study.json", "/raters.json"):
            assert client.get(path).status_code == 404
    assert votes_table(pairwise).height == 0


def test_link_made_while_serving_works_at_once_and_the_old_one_no_more(pairwise: Path) -> None:
    with served(pairwise) as client:
        (first,) = tokens(pairwise, "anna")
        assert client.get(first).status_code == 200
        (second,) = tokens(pairwise, "anna")
        assert client.get(first).status_code == 403 and client.get(second).status_code == 200


def test_rater_goes_on_at_the_same_item_after_a_restart(tmp_path: Path) -> None:
    folder = study_of(tmp_path, "rating")
    (anna,) = tokens(folder, "anna")
    with served(folder) as client:
        for score in (5, 4, 3):
            left_at = answer(client, anna, score)
    with served(folder) as client:
        found = client.get(f"{anna}state").json()
    assert found == left_at
    # Two questions a picture: the second of the second picture is next.
    assert (found["done"], found["now"]["place"], found["now"]["number"]) == (1, 2, 2)


def test_undo_asks_again_and_can_go_back_further(tmp_path: Path) -> None:
    folder = study_of(tmp_path, "verify", prompts=2)
    (anna,) = tokens(folder, "anna")
    with served(folder) as client:
        state = client.get(f"{anna}state").json()
        assert state["undo"] is None
        for value in (1, 0, 1):
            state = answer(client, anna, value)
        for _ in range(2):
            state = client.post(f"{anna}votes", json=state["undo"] | {"answer": None}).json()
        assert (state["done"], state["now"]["place"], state["now"]["number"]) == (0, 1, 2)
        answer(client, anna, 1)
    counted = votes_table(folder).filter(status="accepted")
    assert counted.select("place", "question", "score").rows() == [
        (1, "fidelity", 1),
        (1, "alignment", 1),
    ]


def test_the_worst_fault_is_asked_of_pictures_that_are_not_whole_alone(tmp_path: Path) -> None:
    folder = study_of(tmp_path, "verify", prompts=2)
    (anna,) = tokens(folder, "anna")
    with served(folder) as client:
        first = client.get(f"{anna}state").json()["now"]
        assert (first["question"], first["mark"], first["of"]) == ("fidelity", False, 2)
        named = answer(client, anna, 0)["now"]
        assert (named["question"], named["mark"], named["number"]) == ("fault", True, 2)
        assert named["of"] == 3 and len(named["options"]) == len(FAULTS)
        signs = [key for option in named["options"] for key in option["keys"]]
        assert len(set(signs)) == len(signs) and "u" not in signs
        for wrong in (1, "extra_finger", "extra_finger@1000,0", "x@1,1", "floating@1,1 ", ""):
            body = {"place": named["place"], "question": "fault", "answer": wrong}
            assert client.post(f"{anna}votes", json=body).status_code == 400
        answer(client, anna, "extra_finger@512,30")
        answer(client, anna, 1)
        assert answer(client, anna, 1)["now"]["question"] == "alignment"
        assert answer(client, anna, 1)["done"] == 2 * len(METHODS) - 2
    (row,) = votes_table(folder).filter(question="fault").to_dicts()
    assert (row["choice"], row["score"], row["status"]) == ("extra_finger", None, "accepted")
    progress = count_answers(folder).row(0, named=True)
    assert progress["of"] == 2 * len(METHODS) * 2 + 1


def test_same_vote_sent_twice_counts_once(pairwise: Path) -> None:
    (anna,) = tokens(pairwise, "anna")
    with served(pairwise) as client:
        body = {"place": 1, "question": "better", "answer": "left"}
        states = [client.post(f"{anna}votes", json=body).json() for _ in range(2)]
    assert states[0] == states[1] and states[0]["done"] == 1
    assert votes_table(pairwise)["status"].to_list() == ["rejected", "accepted"]


def test_two_raters_at_once_lose_no_vote_and_do_not_mix(pairwise: Path) -> None:
    def rate(client: TestClient, at: str, side: str) -> None:
        for _ in range(PROMPTS):
            answer(client, at, side)

    anna, ben = tokens(pairwise, "anna", "ben")
    with served(pairwise) as client, ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(rate, client, anna, "left"), pool.submit(rate, client, ben, "right")]
        for job in jobs:
            job.result()
        assert client.get(f"{anna}state").json()["now"] is None
    table = votes_table(pairwise).filter(status="accepted")
    assert table.height == 2 * PROMPTS
    for rater, side in (("anna", "left"), ("ben", "right")):
        own = table.filter(rater=rater)
        shown = {one.item.item: one for one in showings(read_study(pairwise), rater)}
        for row in own.to_dicts():
            on_left = shown[row["item"]].on_left
            assert row["on_left"] == on_left
            assert (row["choice"] == on_left) == (side == "left")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no json",
        b"[]",
        b'"left"',
        b'{"place": 1}',
        b'{"place": 0, "question": "better", "answer": "left"}',
        b'{"place": 13, "question": "better", "answer": "left"}',
        b'{"place": true, "question": "better", "answer": "left"}',
        b'{"place": "1", "question": "better", "answer": "left"}',
        b'{"place": 1, "question": "x", "answer": "left"}',
        b'{"place": 1, "question": ["better"], "answer": "left"}',
        b'{"place": 1, "question": "better", "answer": "a"}',
        b'{"place": 1, "question": "better", "answer": 1}',
        b'{"place": 1, "question": "better", "answer": {}}',
        b'{"place": 1, "question": "better", "answer": "left", "x": "' + b"x" * 5000 + b'"}',
    ],
)
def test_what_is_no_vote_is_refused_and_not_written(pairwise: Path, body: bytes) -> None:
    (anna,) = tokens(pairwise, "anna")
    with served(pairwise) as client:
        reply = client.post(f"{anna}votes", content=body)
        assert reply.status_code in (400, 413)
        assert client.get(f"{anna}state").json()["done"] == 0
    assert (pairwise / "votes.jsonl").read_bytes() == b""


def test_pictures_beyond_the_order_are_not_there(tmp_path: Path) -> None:
    folder = study_of(tmp_path, "rating", prompts=1)
    (anna,) = tokens(folder, "anna")
    with served(folder) as client:
        assert client.get(f"{anna}pictures/1/left").status_code == 200
        for path in ("1/right", "0/left", "3/left", "1/middle", "x/left"):
            assert client.get(f"{anna}pictures/{path}").status_code == 404


def test_full_disk_is_told_and_the_vote_can_be_given_again(pairwise: Path) -> None:
    (anna,) = tokens(pairwise, "anna")
    body = {"place": 1, "question": "better", "answer": "left"}
    with served(pairwise) as client:
        with file_size_limit(20):
            reply = client.post(f"{anna}votes", json=body)
        assert reply.status_code == 507 and "disk full" in reply.json()["error"]
        assert client.post(f"{anna}votes", json=body).json()["done"] == 1


def test_taken_port_and_missing_study_are_named(pairwise: Path, tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(HoiError, match=r"cannot serve at 127\.0\.0\.1"),
    ):
        serve(pairwise, port=taken.getsockname()[1])
    with pytest.raises(HoiError, match=r"cannot serve at 127\.0\.0\.1:99999"):
        serve(pairwise, port=99999)
    with pytest.raises(HoiError, match="no study at"):
        serve(tmp_path / "nowhere")
    # A study that could not be served is free again.
    Desk(pairwise).close()
