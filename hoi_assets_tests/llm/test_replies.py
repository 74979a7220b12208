"""Replies in every state a server can send: told apart, each row alone, never a wrong verdict."""

import json
import random
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hoi_assets.llm.completion import read_completion
from hoi_assets.llm.reply import UnusableReply, parse_json_object
from hoi_assets.llm.retry import Busy, EndpointError, RequestFailed, TransientError
from hoi_assets.store.ledger import Ledger
from hoi_assets_tests.llm.chat_server import PRICES, REPLY_COST, Answer, Request
from hoi_assets_tests.llm.colours import RED, Asked, Serve, ask, good

ATTEMPTS = 2
PARTS = [{"type": "reasoning", "text": "hm"}, {"type": "text", "text": RED[:9]}, RED[9:]]


def completion(message: Any, finish: Any = "stop", **more: Any) -> Answer:
    """A completion with any message at all."""
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return Answer(body=json.dumps({"model": "m", "choices": [choice], **more}))


def answer(value: Any) -> Answer:
    return Answer(body=json.dumps(value))


def error(status: int, **fields: Any) -> Answer:
    return Answer(status=status, body=json.dumps({"error": fields}))


def asked_second(serve: Serve, odd: Answer, **more: Any) -> tuple[Asked, int]:
    """Three rows, the second answered oddly; and how often that one was asked."""

    def behaviour(request: Request, number: int) -> Answer:
        return odd if request["messages"][1]["content"] == "thing 1" else good(request, number)

    server = serve(behaviour)
    asked = ask(server.url, 3, max_attempts=ATTEMPTS, **more)
    seconds = [one for one in server.requests if one["messages"][1]["content"] == "thing 1"]
    return asked, len(seconds)


STATES = [
    # A refusal and a filter are answers: never asked twice.
    (completion({"content": None, "refusal": "I cannot."}), "refused", 1),
    (completion({"content": [{"type": "refusal", "refusal": "No."}]}), "refused", 1),
    (completion({"content": RED, "refusal": "No."}), "refused", 1),
    (completion({"content": None}, "content_filter"), "filtered", 1),
    (completion({"content": RED[:9]}, "content_filter"), "filtered", 1),
    (completion(None, "content_filter"), "filtered", 1),
    (error(400, code="content_filter", message="policy"), "filtered", 1),
    (error(403, code=403, message="x", metadata={"flagged_input": "x"}), "filtered", 1),
    (answer({"error": {"code": "content_policy_violation", "message": "x"}}), "filtered", 1),
    (error(413, message="too long"), "too_large", 1),
    (Answer(status=413, body="<html>"), "too_large", 1),
    (error(400, code="context_length_exceeded", message="x"), "too_large", 1),
    (answer({"error": {"code": 413, "message": "x"}}), "too_large", 1),
    (completion({"content": "x" * 200_000}), "too_large", ATTEMPTS),
    (completion({"content": RED[:9]}, "length"), "cut", ATTEMPTS),
    (completion({"content": f"<think>{RED}"}), "cut", ATTEMPTS),
    (completion({"content": None}), "empty", ATTEMPTS),
    (completion({"content": " \n"}), "empty", ATTEMPTS),
    (completion({"content": []}), "empty", ATTEMPTS),
    (completion({}), "empty", ATTEMPTS),
    (completion({"content": "", "reasoning_content": RED}), "empty", ATTEMPTS),
    (completion({"content": None, "tool_calls": [{"id": "x"}]}), "empty", ATTEMPTS),
    (completion(None), "malformed", ATTEMPTS),
    (completion("text"), "malformed", ATTEMPTS),
    (answer({"choices": [None]}), "malformed", ATTEMPTS),
    (answer({"choices": None}), "malformed", ATTEMPTS),
    (answer({"choices": []}), "malformed", ATTEMPTS),
    (answer({"choices": {"0": 1}}), "malformed", ATTEMPTS),
    (answer({"hello": "world"}), "malformed", ATTEMPTS),
    (Answer(body="<html>"), "malformed", ATTEMPTS),
    (answer({"error": {"message": "upstream failed"}}), "error", ATTEMPTS),
    (answer({"error": "upstream failed", "choices": None}), "error", ATTEMPTS),
    (answer({"choices": [{"error": {"code": 502, "message": "x"}}]}), "error", ATTEMPTS),
    (answer({"error": {"code": 400, "message": "x"}}), "refused", 1),
    (answer({"error": {"code": 404, "message": "x"}}), "refused", 1),
    (completion({"content": "Lovely!"}), "unusable_reply", ATTEMPTS),
    (completion({"content": RED.replace("red", "\ud800")}), "unusable_reply", ATTEMPTS),
]


@pytest.mark.parametrize(("odd", "code", "calls"), STATES)
def test_each_state_has_its_code_and_fails_its_row_alone(
    serve: Serve, odd: Answer, code: str, calls: int
) -> None:
    asked, asked_times = asked_second(serve, odd)
    assert asked.codes == ["ok", code, "ok"]
    assert asked_times == calls


@pytest.mark.parametrize(
    "odd", [answer({"choices": None}), answer({"error": {"message": "x"}}), error(413)]
)
def test_an_odd_first_answer_does_not_stop_the_others(serve: Serve, odd: Answer) -> None:
    server = serve(lambda request, number: good(request, number) if number else odd)
    asked = ask(server.url, 3, max_attempts=1)
    assert asked.codes[1:] == ["ok", "ok"] and asked.codes[0] != "ok"


def test_a_refusal_is_cached_and_not_asked_again_in_a_later_run(
    serve: Serve, tmp_path: Path
) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    server = serve(lambda request, number: completion({"refusal": "I cannot."}, usage={}))
    first = ask(server.url, 2, ledger)
    again = ask(server.url, 2, ledger)
    assert first.codes == ["refused"] * 2 and again.replies == first.replies
    assert first.replies[0].reason == "refused: by the model: I cannot."
    assert len(server.requests) == 2
    assert ask(server.url, 2, ledger, seed=1).codes == ["refused"] * 2


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (f"<think>one {{</think>{RED}", True),
        (f"one {{</think>{RED}", True),
        (f"<think>a <think>b</think> c</think>{RED}", True),
        (f"<think>a <think>b</think> {RED}", False),
        (f"<think>{RED}", False),
        (f"<THINKING>{RED}", False),
        (f"◁think▷{RED}", False),
        (f"<reasoning>{RED} and so", False),
        (f"{RED}<think>or rather", False),
        (f"<think {RED}", False),
    ],
)
def test_reasoning_that_does_not_end_is_never_a_verdict(text: str, value: bool) -> None:
    if value:
        assert parse_json_object(text) == json.loads(RED)
    else:
        with pytest.raises(UnusableReply):
            parse_json_object(text)


def test_content_as_a_list_of_parts_is_read(serve: Serve) -> None:
    asked, calls = asked_second(serve, completion({"content": PARTS}))
    assert asked.codes == ["ok"] * 3 and calls == 1


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": "300", "completion_tokens": "100"}, (300, 100)),
        ({"prompt_tokens": 300.0, "completion_tokens": None}, (300, None)),
        ({"prompt_tokens": -1, "completion_tokens": "many"}, (None, None)),
        ("400", (None, None)),
        ([400], (None, None)),
    ],
)
def test_usage_of_any_form_is_counted_or_unknown(
    serve: Serve, usage: Any, tokens: tuple[int | None, int | None]
) -> None:
    server = serve(lambda request, number: completion({"content": RED}, usage=usage))
    (reply,) = ask(server.url, 1, **PRICES).replies
    assert reply.value is not None and (reply.input_tokens, reply.output_tokens) == tokens
    assert reply.cost_usd == (pytest.approx(REPLY_COST) if None not in tokens else None)


def test_another_model_that_answers_is_recorded_and_logged(serve: Serve) -> None:
    names = ["m-2024-08-06", "vendor/m", "other", "m-mini"]
    server = serve(lambda request, number: Answer(RED, model=names[number]))
    asked = ask(server.url, 4)
    assert [reply.model for reply in asked.replies] == ["m", "m", "other", "m-mini"]
    said = [line for line in asked.logged if "was requested" in line]
    assert len(said) == 2 and "prompter.model 'm' was requested, 'other' gave 1" in said[0]


def test_a_body_that_trickles_ends_at_the_deadline(serve: Serve) -> None:
    slow = Answer(RED, trickle_s=0.05)
    server = serve(lambda request, number: slow if number == 1 else good(request, number))
    begun = time.monotonic()
    asked = ask(server.url, 3, max_attempts=1, timeout_s=0.5)
    assert asked.codes == ["ok", "timeout", "ok"]
    assert time.monotonic() - begun < 5
    assert asked.replies[1].reason == "timeout: no answer in 0.5 s (1 attempts)"


@pytest.fixture
def trickling_head() -> Iterator[str]:
    """A server whose headers never end."""
    listener = socket.create_server(("127.0.0.1", 0))
    done = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            while not done.wait(0.05):
                connection.sendall(b"x")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    done.set()
    thread.join(5)
    listener.close()


def test_headers_that_trickle_end_at_the_deadline(trickling_head: str) -> None:
    begun = time.monotonic()
    with pytest.raises(EndpointError, match=r"timeout: no answer in 0.5 s"):
        ask(trickling_head, 1, max_attempts=1, timeout_s=0.5)
    assert time.monotonic() - begun < 5


def test_a_body_without_end_fails_its_row_alone(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hoi_assets.llm.chat.ChatClient.max_body_bytes", 10_000)
    asked, calls = asked_second(serve, completion({"content": "x" * 10_001}))
    assert asked.codes == ["ok", "too_large", "ok"] and calls == 1


FIELDS = ("message", "content", "finish_reason", "refusal", "error", "type", "text", "code")
LEAVES = (None, True, -1, 1e308, 429, "", "text", "length", "content_filter", "\ud800", RED)
PIECES = ("{", "}", "[", '"', ":", ",", "\\u", "\ud800", "1e999", "<think>", "</think>", RED, " ")


def any_json(rng: random.Random, depth: int = 5) -> Any:
    """A value of any form, with the fields of a completion at any place."""
    form = rng.random() if depth else 0.0
    if form < 0.3:
        return rng.choice(LEAVES)
    inner = [any_json(rng, depth - 1) for _ in range(rng.randint(0, 4))]
    return inner if form < 0.5 else {rng.choice(FIELDS): value for value in inner}


def test_a_completion_of_any_form_has_a_text_or_a_named_failure() -> None:
    rng = random.Random(0)
    texts = 0
    for _ in range(5000):
        message = {"role": "assistant", **{rng.choice(FIELDS): any_json(rng)}}
        choices = any_json(rng) if rng.random() < 0.5 else [{"message": message}]
        try:
            texts += bool(read_completion({"choices": choices}).strip())
        except (UnusableReply, RequestFailed, TransientError, Busy) as failure:
            assert str(failure)
    assert texts


def test_any_text_is_one_object_or_unusable() -> None:
    rng = random.Random(0)
    read = 0
    for _ in range(5000):
        text = "".join(rng.choices(PIECES, k=rng.randint(0, 12)))
        try:
            read += isinstance(parse_json_object(text), dict)
        except UnusableReply as failure:
            assert str(failure)
    assert read


@pytest.mark.parametrize(
    "text",
    ['{"a":' * 20_000, "{" * 90_000, '{"a": ' + "9" * 5000 + "}", '{"a": NaN}', '{"a": Infinity}'],
)
def test_hostile_text_is_refused_quickly(text: str) -> None:
    begun = time.monotonic()
    with pytest.raises(UnusableReply):
        parse_json_object(text)
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("said", ["x <reflection of the lamp", "a <think> of a thing"])
def test_a_reply_that_is_an_object_may_hold_anything_in_its_strings(said: str) -> None:
    assert parse_json_object(json.dumps({"a": said})) == {"a": said}


@pytest.mark.parametrize("status", [200, 400, 401, 404, 500])
def test_what_a_server_says_cannot_steer_a_terminal(serve: Serve, status: int) -> None:
    escapes = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\b"
    answered = error(status, message=f"no {escapes} way", code=escapes)
    server = serve(lambda request, number: answered)
    try:
        asked = ask(server.url, 1, max_attempts=1)
        said = [*asked.logged, *(str(reply.reason) for reply in asked.replies)]
    except EndpointError as failure:
        said = [str(failure)]
    assert any("no" in text for text in said)
    assert all(sign.isprintable() or sign == "\n" for text in said for sign in text)
