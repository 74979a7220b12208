"""The client, the budget, the retries and the reply cache against a real HTTP server."""

import json
from pathlib import Path

import pytest

from hoi_assets.errors import HoiError
from hoi_assets.llm.budget import Budget
from hoi_assets.llm.reply import UnusableReply, parse_json_object
from hoi_assets.llm.retry import EndpointError
from hoi_assets.settings import Endpoint
from hoi_assets.store.ledger import Ledger
from hoi_assets_tests.llm.chat_server import KEY, PRICES, REPLY_COST, Answer, Request
from hoi_assets_tests.llm.colours import (
    KIND,
    RED,
    THINGS,
    ColourNamer,
    ColourReply,
    Serve,
    ask,
    good,
    key_of,
)

# Structured output


def test_request_carries_schema_prompt_and_its_own_seed(serve: Serve) -> None:
    server = serve(good)
    asked = ask(server.url, **PRICES)
    assert asked.codes == ["ok", "ok"]
    reply = asked.replies[0]
    assert reply.value == ColourReply(colour="red", certain=True) and reply.model == "m"
    assert (reply.input_tokens, reply.output_tokens) == (300, 100)
    assert reply.cost_usd == pytest.approx(REPLY_COST)
    first, second = server.requests
    assert first["path"] == "/v1/chat/completions"
    schema = first["response_format"]["json_schema"]
    assert schema["strict"] is True and schema["schema"] == ColourReply.model_json_schema()
    assert first["messages"][1] == {"role": "user", "content": "thing 0"}
    assert first["seed"] != second["seed"]


def test_prose_is_requested_again_with_the_problem(serve: Serve) -> None:
    prose = "Gladly! A lovely red."
    server = serve(lambda request, number: Answer(RED if number else prose))
    (reply,) = ask(server.url, 1, **PRICES).replies
    assert reply.value
    assert reply.input_tokens == 600 and reply.cost_usd == pytest.approx(2 * REPLY_COST)
    again = server.requests[1]["messages"]
    assert again[2] == {"role": "assistant", "content": prose}
    assert "no JSON object" in again[3]["content"]


def test_json_within_prose_and_fences_is_taken(serve: Serve) -> None:
    text = f"<think>{{maybe}}</think>Here it is:\n```json\n{RED}\n```\nEnjoy!"
    server = serve(lambda request, number: Answer(text))
    assert ask(server.url, 1).codes == ["ok"]
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("no braces", "no JSON object"),
        (RED * 2, "2 JSON objects"),
        ('{"colour": "red", "colour": "green"}', "given twice"),
        ('{"colour": "mauve", "certain": true}', "colour: Input should be 'red'"),
        ('{"colour": "red", "certain": true, "mood": "calm"}', "mood: Extra inputs"),
        ('{"colour": "red"}', "certain: Field required"),
    ],
)
def test_reply_that_stays_unusable_fails_with_the_problem(
    serve: Serve, text: str, problem: str
) -> None:
    server = serve(lambda request, number: Answer(text))
    (reply,) = ask(server.url, 1, max_attempts=2).replies
    assert reply.value is None
    assert (reply.reason or "").startswith("unusable_reply: ") and problem in (reply.reason or "")
    assert len(server.requests) == 2
    assert problem in server.requests[1]["messages"][3]["content"]


def test_one_bad_reply_does_not_take_others_with_it(serve: Serve) -> None:
    def bad_for_the_second(request: Request, number: int) -> Answer:
        return Answer("no") if "thing 1" in json.dumps(request["messages"]) else Answer(RED)

    asked = ask(serve(bad_for_the_second).url, 3, max_attempts=2)
    assert asked.codes == ["ok", "unusable_reply", "ok"]


def test_cut_off_reply_is_named_as_such(serve: Serve) -> None:
    server = serve(lambda request, number: Answer('{"colour": "re', finish="length"))
    (reply,) = ask(server.url, 1, max_attempts=1).replies
    assert "cut off" in (reply.reason or "")


def test_deeply_nested_reply_does_no_harm() -> None:
    with pytest.raises(UnusableReply, match="no JSON object"):
        parse_json_object('{"a":' * 1500)


# Reply cache


def test_replies_are_cached_and_only_failed_ones_requested_again(
    serve: Serve, tmp_path: Path
) -> None:
    server = serve(lambda request, number: Answer("no" if number == 1 else RED))
    ledger = Ledger(tmp_path / "ledger.sqlite")
    first = ask(server.url, 3, ledger, max_attempts=1, **PRICES)
    assert first.codes == ["ok", "unusable_reply", "ok"]
    second = ask(server.url, 3, ledger, max_attempts=1, **PRICES)
    assert second.codes == ["ok"] * 3 and len(server.requests) == 4
    assert second.replies[0] == first.replies[0]
    third = ask(server.url, 3, ledger, max_attempts=1, **PRICES)
    assert third.replies == second.replies and len(server.requests) == 4


def test_each_reply_is_cached_at_once_so_that_a_kill_loses_nothing(
    serve: Serve, tmp_path: Path
) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    cached: list[int] = []

    def watch(request: Request, number: int) -> Answer:
        cached.append(len(ledger.get(KIND, map(key_of, THINGS))))
        return good(request, number)

    ask(serve(watch).url, 3, ledger)
    assert cached[0] == 0 and cached[2] >= 1


def test_unreadable_cached_reply_is_logged_and_requested_again(
    serve: Serve, tmp_path: Path
) -> None:
    server = serve(good)
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.put(KIND, {key_of(THINGS[0]): {"value": {"colour": "mauve"}}, key_of(THINGS[1]): 7})
    asked = ask(server.url, 2, ledger)
    assert asked.codes == ["ok", "ok"] and len(server.requests) == 2
    unreadable = [line for line in asked.logged if "cannot be read" in line]
    assert len(unreadable) == 2 and key_of(THINGS[0]) in unreadable[0]


# Errors and retries


def test_refused_connection_names_endpoint_and_remedy(serve: Serve) -> None:
    server = serve(good)
    server.http.server_close()
    with pytest.raises(EndpointError) as caught:
        ask(server.url, max_attempts=1)
    assert server.url in str(caught.value) and "start the server" in caught.value.remedy


def test_slow_server_is_a_timeout_at_the_first_call(serve: Serve) -> None:
    server = serve(lambda request, number: Answer(delay_s=0.6))
    with pytest.raises(EndpointError, match=r"timeout: no answer in 0.2 s[\s\S]*timeout_s"):
        ask(server.url, max_attempts=1, timeout_s=0.2)
    assert len(server.requests) == 1


def test_later_timeout_fails_its_request_only(serve: Serve) -> None:
    server = serve(lambda request, number: Answer(RED, delay_s=0.6 if number == 1 else 0))
    asked = ask(server.url, 3, max_attempts=1, timeout_s=0.3)
    assert asked.codes == ["ok", "timeout", "ok"]
    assert asked.replies[1].reason == "timeout: no answer in 0.3 s (1 attempts)"


def test_busy_server_is_retried_when_it_says(serve: Serve) -> None:
    busy = Answer(status=429, body='{"error": "busy"}', headers={"Retry-After": "0"})
    server = serve(lambda request, number: Answer(RED) if number else busy)
    assert ask(server.url, 1).codes == ["ok"] and len(server.requests) == 2


@pytest.mark.parametrize(
    ("status", "message"),
    [(401, "HOI_API_KEY"), (404, "prompter.model"), (500, "answered 500|status 500")],
)
def test_refusing_endpoint_stops_before_work_is_wasted(
    serve: Serve, status: int, message: str
) -> None:
    body = json.dumps({"error": {"message": f"bad key {KEY}"}})
    server = serve(lambda request, number: Answer(status=status, body=body))
    with pytest.raises(EndpointError, match=message) as caught:
        ask(server.url, 4, max_attempts=1)
    assert KEY not in str(caught.value)
    assert len(server.requests) == 1


@pytest.mark.parametrize("body", ['{"hello": "world"}', "<html>", "[]", '"text"', ""])
def test_page_that_is_no_chat_endpoint_is_named(serve: Serve, body: str) -> None:
    server = serve(lambda request, number: Answer(body=body))
    with pytest.raises(HoiError, match="not as a chat endpoint"):
        ask(server.url, max_attempts=1)


def test_server_that_breaks_off_midway_fails_the_rest_without_calls(serve: Serve) -> None:
    server = serve(lambda request, n: Answer(RED) if n < 2 else Answer(status=404, body="{}"))
    asked = ask(server.url, 8, max_attempts=1)
    assert asked.codes == ["ok"] * 2 + ["endpoint"] * 6
    assert len(server.requests) == 3


def test_refused_options_are_dropped(serve: Serve) -> None:
    def knows_little(request: Request, number: int) -> Answer:
        for name in ("response_format", "seed", "max_tokens"):
            if name in request:
                body = json.dumps({"error": {"message": f"Unsupported parameter: {name}"}})
                return Answer(status=400, body=body)
        return good(request, number)

    server = serve(knows_little)
    assert ask(server.url).codes == ["ok", "ok"]
    assert "max_completion_tokens" in server.requests[-1]
    assert len(server.requests) == 5


def test_one_refused_request_fails_alone(serve: Serve) -> None:
    body = json.dumps({"error": {"message": "content filter"}})
    server = serve(lambda request, n: Answer(RED) if n else Answer(status=400, body=body))
    asked = ask(server.url)
    assert asked.codes == ["refused", "ok"]
    assert (asked.replies[0].reason or "").startswith("refused: status 400")


def test_calls_run_side_by_side_and_replies_keep_their_order(serve: Serve) -> None:
    def uneven(request: Request, number: int) -> Answer:
        certain = request["messages"][1]["content"] in THINGS[:4]
        text = json.dumps({"colour": "red", "certain": certain})
        return Answer(text, delay_s=0.05 * (number % 3))

    server = serve(uneven)
    asked = ask(server.url, 8, concurrency=4)
    assert 1 < server.most_busy <= 4
    assert [reply.value and reply.value.certain for reply in asked.replies] == [True] * 4 + [
        False
    ] * 4


# Budget


def test_cap_stops_cleanly_and_names_what_was_not_requested(serve: Serve) -> None:
    server = serve(good)
    # Room for two replies, and for the bound that the next call could cost.
    budget = Budget(2 * REPLY_COST + 0.012, 1.0, 10.0)
    asked = ask(server.url, 8, budget=budget)
    calls = len(server.requests)
    assert 2 <= calls < 8
    assert asked.codes == ["ok"] * calls + ["budget"] * (8 - calls)
    assert budget.spent_usd == pytest.approx(calls * REPLY_COST)
    assert budget.limit_usd and budget.spent_usd <= budget.limit_usd
    assert any("budget: " in line for line in asked.logged)


def test_cap_holds_when_calls_run_side_by_side(serve: Serve) -> None:
    server = serve(lambda request, number: Answer(RED, delay_s=0.03))
    budget = Budget(0.03, 1.0, 10.0)
    ask(server.url, 40, budget=budget, concurrency=8)
    assert budget.spent_usd <= 0.03 and server.most_busy > 1
    assert 12 <= len(server.requests) < 40


def test_unknown_price_or_usage_is_null(serve: Serve) -> None:
    asked = ask(serve(good).url, 1)
    assert asked.replies[0].cost_usd is None and asked.replies[0].input_tokens == 300
    assert any("price unknown" in line for line in asked.logged)
    silent = serve(lambda request, number: Answer(RED, usage=None))
    (reply,) = ask(silent.url, 1, **PRICES).replies
    assert reply.cost_usd is None and reply.input_tokens is None


def test_estimate_is_logged_before_the_first_call(serve: Serve) -> None:
    lines: list[int] = []
    logged: list[str] = []

    def watch(request: Request, number: int) -> Answer:
        lines.append(len(logged))
        return good(request, number)

    options = Endpoint(endpoint=serve(watch).url, model="m", **PRICES)
    requests = {key_of(thing): thing for thing in THINGS[:2]}
    ColourNamer(options).ask(requests, lambda key, reply: None, logged.append)
    assert lines[0] == 1
    assert "colours: 2 calls to m" in logged[0] and "USD" in logged[0]


# The API key


def test_key_is_sent_and_nowhere_stored(serve: Serve, tmp_path: Path) -> None:
    leaky = Answer(status=400, body=json.dumps({"error": {"message": f"key {KEY} is bad"}}))
    server = serve(lambda request, number: leaky if number else good(request, number))
    url = server.url.replace("http://", "http://user:hunter2@")
    ledger = Ledger(tmp_path / "ledger.sqlite")
    asked = ask(url, ledger=ledger)
    assert set(server.keys) <= {f"Bearer {KEY}", "Basic dXNlcjpodW50ZXIy"}
    assert asked.codes == ["ok", "refused"]
    ledger.close()
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    shown = repr(asked.replies) + "".join(asked.logged)
    for secret in (KEY, "hunter2"):
        assert secret.encode() not in stored
        assert secret not in shown


def test_server_without_key_works(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(good)
    monkeypatch.delenv("HOI_API_KEY")
    assert ask(server.url, 1).codes == ["ok"]
