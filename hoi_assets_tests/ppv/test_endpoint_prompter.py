"""The endpoint prompter against a real HTTP server that speaks the OpenAI chat API."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from hoi_assets.errors import HoiError
from hoi_assets.llm.budget import Budget
from hoi_assets.llm.client import EndpointError, one_json_object
from hoi_assets.ppv.detailed_prompts import REPLY_KIND, PromptRow, detail_prompts, make_prompter
from hoi_assets.ppv.endpoint_prompter import EndpointPrompter
from hoi_assets.settings import ROOT, Prompter
from hoi_assets.store.ledger import Ledger
from hoi_assets.taxonomy import Category, load_taxonomy

TAXONOMY = load_taxonomy(ROOT / "data" / "taxonomy")
COLOURS = ("red", "green", "blue", "white", "black", "orange", "yellow", "purple")
KEY = "sk-very-secret-0123456789"
PRICES = {"usd_per_million_input_tokens": 1.0, "usd_per_million_output_tokens": 10.0}
USAGE = {"prompt_tokens": 300, "completion_tokens": 100, "total_tokens": 400}
REPLY_COST = (300 * 1.0 + 100 * 10.0) / 1e6

Request = dict[str, Any]
Behaviour = Callable[[Request, int], "Answer"]


@dataclass
class Answer:
    """What the server says: the text of a chat reply (of a picture its base64), or a status with
    a body."""

    text: str = ""
    status: int = 200
    body: str | None = None
    usage: dict[str, int] | None = field(default_factory=lambda: dict(USAGE))
    finish: str = "stop"
    delay_s: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)


class Server:
    """A chat and image endpoint on loopback; `behaviour(request, number)` decides each answer."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.requests: list[Request] = []
        self.keys: list[str | None] = []
        self.busy = self.most_busy = 0
        lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                request = json.loads(self.rfile.read(length))
                with lock:
                    number = len(server.requests)
                    server.requests.append({**request, "path": self.path})
                    server.keys.append(self.headers.get("Authorization"))
                    server.busy += 1
                    server.most_busy = max(server.most_busy, server.busy)
                answer = server.behaviour(request, number)
                time.sleep(answer.delay_s)
                log = server.image if self.path.endswith("/images/generations") else server.chat
                body = answer.body if answer.body is not None else log(request, answer)
                with lock:
                    server.busy -= 1
                try:
                    self.send_response(answer.status)
                    self.send_header("Content-Type", "application/json")
                    for name, value in answer.headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(body.encode())
                except BrokenPipeError:
                    pass

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    @staticmethod
    def chat(request: Request, answer: Answer) -> str:
        message = {"role": "assistant", "content": answer.text}
        choice = {"index": 0, "message": message, "finish_reason": answer.finish}
        said = {"id": "x", "object": "chat.completion", "created": 0, "model": request["model"]}
        return json.dumps({**said, "choices": [choice], "usage": answer.usage})

    @staticmethod
    def image(request: Request, answer: Answer) -> str:
        return json.dumps({"created": 0, "data": [{"b64_json": answer.text}]})

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def serve() -> Iterator[Callable[[Behaviour], Server]]:
    servers: list[Server] = []

    def start(behaviour: Behaviour) -> Server:
        servers.append(Server(behaviour))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOI_API_KEY", KEY)


def small(count: int = 2) -> Category:
    """The category power_wrap with few base prompts, all about a can."""
    raw = TAXONOMY.category("power_wrap").model_dump(mode="json")
    texts = ("a hand holds a can", "someone opens a can", "a can from the shelf", "an old can")
    raw["base_prompts"] = [{"text": text, "object": "can"} for text in texts[:count]]
    return Category.model_validate(raw)


def slots(number: int, **change: Any) -> dict[str, Any]:
    """Slots in order for the can; they differ in colour and view by number."""
    return {
        "side": "left",
        "skin_tone": "tan",
        "grip": "wraps around",
        "contact": "palm and fingers on the can",
        "colour": COLOURS[number % 8],
        "material": "metal",
        "object": "can",
        "view": ("front", "side", "above")[number % 3],
        "light": "soft light",
        "background": "grey wall",
        **change,
    }


def good(request: Request, number: int) -> Answer:
    return Answer(json.dumps(slots(number)))


@dataclass
class Outcome:
    rows: list[PromptRow]
    said: list[str]

    @property
    def statuses(self) -> list[str]:
        return [row.status for row in self.rows]


def detail(
    url: str,
    category: Category | None = None,
    cache: Any = None,
    budget: Any = None,
    **options: Any,
) -> Outcome:
    chosen = {"model": "m", "per_base_prompt": 1, "concurrency": 1, "timeout_s": 5, **options}
    settings = Prompter(endpoint=url, **chosen)
    said: list[str] = []
    prompter = EndpointPrompter(TAXONOMY, settings, budget)
    rows = detail_prompts(category or small(), prompter, settings, cache, said.append)
    return Outcome(rows, said)


def test_good_replies_become_accepted_rows_with_usage(serve: Any) -> None:
    server = serve(good)
    outcome = detail(server.url, None, per_base_prompt=2, **PRICES)
    assert outcome.statuses == ["accepted"] * 4
    first = outcome.rows[0]
    assert first.prompt == (
        "a left hand with tan skin wraps around a red metal can, "
        "seen from the front, soft light, grey wall"
    )
    assert (first.input_tokens, first.output_tokens) == (300, 100)
    assert first.cost_usd == pytest.approx(REPLY_COST)
    assert first.model == "m" and len(first.template_version) == 12


def test_request_carries_schema_category_and_base_prompt(serve: Any) -> None:
    server = serve(good)
    detail(server.url)
    request = server.requests[0]
    assert request["path"] == "/v1/chat/completions"
    schema = request["response_format"]["json_schema"]
    assert schema["strict"] is True
    assert set(schema["schema"]["required"]) == set(schema["schema"]["properties"])
    assert schema["schema"]["additionalProperties"] is False
    told = " ".join(message["content"] for message in request["messages"])
    category = small()
    for part in (category.definition, "a hand holds a can", "wraps around", "additionalProperties"):
        assert part in told


def test_open_vocabulary_takes_any_words_and_says_the_contact(serve: Any) -> None:
    told = slots(0, colour="amber", view="from behind", contact="palm on the rim", avoid="text")
    server = serve(lambda request, number: Answer(json.dumps(told)))
    row = detail(server.url, small(1), vocabulary="open").rows[0]
    assert row.status == "accepted", row.reason
    assert "an amber metal can, palm on the rim, from behind" in row.prompt
    assert row.negative_prompt == "text"


def test_prose_is_asked_again_with_the_reason(serve: Any) -> None:
    def prose_first(request: Request, number: int) -> Answer:
        return Answer("Gladly! A lovely red can.") if number == 0 else good(request, number)

    server = serve(prose_first)
    row = detail(server.url, small(1), **PRICES).rows[0]
    assert row.status == "accepted"
    assert row.input_tokens == 600 and row.cost_usd == pytest.approx(2 * REPLY_COST)
    again = server.requests[1]["messages"]
    assert again[2] == {"role": "assistant", "content": "Gladly! A lovely red can."}
    assert "no JSON object" in again[3]["content"]


def test_json_within_prose_and_fences_is_taken(serve: Any) -> None:
    text = f"<think>{{maybe}}</think>Here it is:\n```json\n{json.dumps(slots(0))}\n```\nEnjoy!"
    server = serve(lambda request, number: Answer(text))
    assert detail(server.url, small(1)).statuses == ["accepted"]
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("no braces", "no JSON object"),
        (json.dumps(slots(0)) * 2, "2 JSON objects"),
        ('{"side": "left", "side": "right"}', "given twice"),
        (json.dumps({**slots(0), "colour": "mauve"}), "colour: Input should be 'red'"),
        (json.dumps({**slots(0), "mood": "calm"}), "mood: Extra inputs"),
        (json.dumps({"side": "left"}), "grip: Field required"),
        ("", "no JSON object"),
    ],
)
def test_reply_that_stays_unusable_is_a_failed_row(serve: Any, text: str, problem: str) -> None:
    server = serve(lambda request, number: Answer(text))
    row = detail(server.url, small(1), max_attempts=2).rows[0]
    assert row.status == "failed" and row.prompt == "" and row.slots is None
    assert (row.reason or "").startswith("unusable_reply: ") and problem in (row.reason or "")
    assert len(server.requests) == 2
    assert problem in server.requests[1]["messages"][3]["content"]


def test_one_bad_row_does_not_take_others_with_it(serve: Any) -> None:
    def bad_for_the_second(request: Request, number: int) -> Answer:
        bad = "someone opens" in json.dumps(request["messages"])
        return Answer("no") if bad else good(request, number)

    server = serve(bad_for_the_second)
    outcome = detail(server.url, small(3), max_attempts=2)
    assert outcome.statuses == ["accepted", "failed", "accepted"]


def test_off_category_and_contradictory_replies_are_rejected_with_the_reason(serve: Any) -> None:
    told = [slots(0, object="mug"), slots(1, grip="cups"), slots(2, side="both"), slots(3)]
    server = serve(lambda request, number: Answer(json.dumps(told[number])))
    outcome = detail(server.url, small(4))
    codes = [(row.reason or "").split(":")[0] for row in outcome.rows]
    assert codes == ["wrong_object", "other_grip", "hand_count", ""]
    assert outcome.statuses == ["rejected"] * 3 + ["accepted"]


def test_near_duplicate_replies_are_rejected(serve: Any) -> None:
    server = serve(lambda request, number: Answer(json.dumps(slots(0))))
    outcome = detail(server.url)
    assert outcome.rows[1].reason == f"near_duplicate: of {outcome.rows[0].prompt_id}"


def test_replies_are_found_again_and_only_failed_rows_asked_anew(
    serve: Any, tmp_path: Path
) -> None:
    def fails_once(request: Request, number: int) -> Answer:
        return Answer("no") if number == 1 else good(request, number)

    server = serve(fails_once)
    ledger = Ledger(tmp_path / "ledger.sqlite")
    first = detail(server.url, small(3), ledger, max_attempts=1, **PRICES)
    assert first.statuses == ["accepted", "failed", "accepted"]
    second = detail(server.url, small(3), ledger, max_attempts=1, **PRICES)
    assert second.statuses == ["accepted"] * 3
    assert len(server.requests) == 4
    assert [row.prompt_id for row in first.rows] == [row.prompt_id for row in second.rows]
    assert second.rows[0] == first.rows[0]
    third = detail(server.url, small(3), ledger, max_attempts=1, **PRICES)
    assert third.rows == second.rows and len(server.requests) == 4


def test_each_reply_is_kept_at_once_so_that_a_kill_loses_nothing(
    serve: Any, tmp_path: Path
) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    kept_when_asked: list[int] = []
    ids: list[str] = []

    def watch(request: Request, number: int) -> Answer:
        kept_when_asked.append(len(ledger.get(REPLY_KIND, ids)))
        return good(request, number)

    server = serve(watch)
    ids += [row.prompt_id for row in detail(server.url, small(3)).rows]
    kept_when_asked.clear()
    detail(server.url, small(3), ledger)
    assert kept_when_asked[0] == 0 and kept_when_asked[2] >= 1


def test_other_model_template_or_seed_is_another_request(serve: Any) -> None:
    server = serve(good)
    ids = {
        detail(server.url, small(1), **change).rows[0].prompt_id
        for change in ({}, {"model": "n"}, {"seed": 1}, {"vocabulary": "open"}, {"temperature": 0})
    }
    assert len(ids) == 5


def test_refused_connection_names_endpoint_and_remedy(serve: Any) -> None:
    server = serve(good)
    server.http.server_close()
    with pytest.raises(EndpointError) as caught:
        detail(server.url, max_attempts=1)
    assert server.url in str(caught.value) and "start the server" in caught.value.remedy


def test_slow_server_is_told_as_a_timeout_at_the_first_call(serve: Any) -> None:
    server = serve(lambda request, number: Answer(delay_s=0.6))
    with pytest.raises(EndpointError, match=r"timeout: no answer in 0.2 s[\s\S]*timeout_s"):
        detail(server.url, max_attempts=1, timeout_s=0.2)
    assert len(server.requests) == 1


def test_later_timeout_fails_its_row_only(serve: Any) -> None:
    def slow_second(request: Request, number: int) -> Answer:
        return Answer(json.dumps(slots(number)), delay_s=0.6 if number == 1 else 0)

    server = serve(slow_second)
    outcome = detail(server.url, small(3), max_attempts=1, timeout_s=0.3)
    assert outcome.statuses == ["accepted", "failed", "accepted"]
    assert outcome.rows[1].reason == "timeout: no answer in 0.3 s (1 attempts)"


def test_busy_server_is_asked_again_when_it_says(serve: Any) -> None:
    def busy_once(request: Request, number: int) -> Answer:
        if number:
            return good(request, number)
        return Answer(status=429, body='{"error": "busy"}', headers={"Retry-After": "0"})

    server = serve(busy_once)
    assert detail(server.url, small(1)).statuses == ["accepted"]


@pytest.mark.parametrize(
    ("status", "message"),
    [(401, "HOI_API_KEY"), (404, "prompter.model"), (500, "answered 500|status 500")],
)
def test_refusing_endpoint_stops_before_work_is_wasted(
    serve: Any, status: int, message: str
) -> None:
    body = json.dumps({"error": {"message": f"bad key {KEY}"}})
    server = serve(lambda request, number: Answer(status=status, body=body))
    with pytest.raises(EndpointError, match=message) as caught:
        detail(server.url, small(4), max_attempts=1)
    assert KEY not in str(caught.value)
    assert len(server.requests) == 1


@pytest.mark.parametrize("body", ['{"hello": "world"}', "<html>", "[]", '"text"', ""])
def test_page_that_is_no_chat_endpoint_is_named(serve: Any, body: str) -> None:
    server = serve(lambda request, number: Answer(body=body))
    with pytest.raises(HoiError, match="not as a chat endpoint"):
        detail(server.url, max_attempts=1)


def test_server_that_breaks_off_midway_fails_the_rest_without_asking(serve: Any) -> None:
    def leaves(request: Request, number: int) -> Answer:
        return good(request, number) if number < 2 else Answer(status=404, body="{}")

    server = serve(leaves)
    outcome = detail(server.url, small(4), per_base_prompt=2, max_attempts=1)
    assert outcome.statuses == ["accepted"] * 2 + ["failed"] * 6
    assert all((row.reason or "").startswith("endpoint:") for row in outcome.rows[2:])
    assert len(server.requests) == 3


def test_refused_options_are_left_out(serve: Any) -> None:
    def knows_little(request: Request, number: int) -> Answer:
        for name in ("response_format", "seed", "max_tokens"):
            if name in request:
                body = json.dumps({"error": {"message": f"Unsupported parameter: {name}"}})
                return Answer(status=400, body=body)
        return good(request, number)

    server = serve(knows_little)
    assert detail(server.url).statuses == ["accepted"] * 2
    assert "max_completion_tokens" in server.requests[-1]
    assert len(server.requests) == 5


def test_one_refused_request_fails_its_row_only(serve: Any) -> None:
    def filtered(request: Request, number: int) -> Answer:
        body = json.dumps({"error": {"message": "content filter"}})
        return Answer(status=400, body=body) if number == 0 else good(request, number)

    outcome = detail(serve(filtered).url)
    assert outcome.statuses == ["failed", "accepted"]
    assert (outcome.rows[0].reason or "").startswith("refused: status 400")


def test_cap_stops_cleanly_and_names_rows_not_asked(serve: Any) -> None:
    server = serve(good)
    # Room for two replies, and for the bound that the next call could cost.
    budget = Budget(2 * REPLY_COST + 0.012, 1.0, 10.0)
    outcome = detail(server.url, small(4), per_base_prompt=2, budget=budget)
    asked = len(server.requests)
    assert 2 <= asked < 8
    assert outcome.statuses == ["accepted"] * asked + ["failed"] * (8 - asked)
    assert all((row.reason or "").startswith("budget: ") for row in outcome.rows[asked:])
    assert budget.spent_usd == pytest.approx(asked * REPLY_COST)
    assert budget.limit_usd and budget.spent_usd <= budget.limit_usd
    assert any("stop at the cap" in line for line in outcome.said)


def test_cap_holds_when_calls_run_side_by_side(serve: Any) -> None:
    def slowly(request: Request, number: int) -> Answer:
        return Answer(json.dumps(slots(number)), delay_s=0.03)

    server = serve(slowly)
    budget = Budget(0.03, 1.0, 10.0)
    detail(server.url, small(4), per_base_prompt=10, budget=budget, concurrency=8)
    assert budget.spent_usd <= 0.03 and server.most_busy > 1
    assert 12 <= len(server.requests) < 40


def test_one_cap_covers_all_categories_of_a_process(serve: Any) -> None:
    server = serve(good)
    options = {"budget_usd": 2 * REPLY_COST + 0.012, **PRICES}
    first = detail(server.url, small(4), **options)
    second = detail(server.url, small(4), **options)
    assert "failed" in first.statuses
    assert set(second.statuses) == {"failed"}


def test_unknown_price_or_usage_is_null(serve: Any) -> None:
    server = serve(good)
    outcome = detail(server.url, small(1))
    assert outcome.rows[0].cost_usd is None and outcome.rows[0].input_tokens == 300
    assert any("price unknown" in line for line in outcome.said)
    silent = serve(lambda request, number: Answer(json.dumps(slots(0)), usage=None))
    row = detail(silent.url, small(1), **PRICES).rows[0]
    assert row.cost_usd is None and row.input_tokens is None


def test_estimate_is_said_before_the_first_call(serve: Any) -> None:
    said_when_asked: list[int] = []
    said: list[str] = []

    def watch(request: Request, number: int) -> Answer:
        said_when_asked.append(len(said))
        return good(request, number)

    server = serve(watch)
    settings = Prompter(endpoint=server.url, model="m", per_base_prompt=1, **PRICES)
    prompter = make_prompter(TAXONOMY, settings)
    detail_prompts(small(), prompter, settings, None, said.append)
    assert said_when_asked[0] == 1
    assert "2 calls to m" in said[0] and "USD" in said[0]


def test_calls_run_side_by_side_and_rows_keep_their_order(serve: Any) -> None:
    def uneven(request: Request, number: int) -> Answer:
        return Answer(json.dumps(slots(number)), delay_s=0.05 * (number % 3))

    server = serve(uneven)
    outcome = detail(server.url, small(4), per_base_prompt=2, concurrency=4)
    assert 1 < server.most_busy <= 4
    assert [(row.base_prompt, row.index) for row in outcome.rows] == [
        (base.text, index) for base in small(4).base_prompts for index in range(2)
    ]


def test_key_is_sent_and_nowhere_stored(serve: Any, tmp_path: Path) -> None:
    def leaky(request: Request, number: int) -> Answer:
        if number == 0:
            return good(request, number)
        return Answer(status=400, body=json.dumps({"error": {"message": f"key {KEY} is bad"}}))

    server = serve(leaky)
    url = server.url.replace("http://", "http://user:hunter2@")
    ledger = Ledger(tmp_path / "ledger.sqlite")
    outcome = detail(url, cache=ledger)
    assert set(server.keys) <= {f"Bearer {KEY}", "Basic dXNlcjpodW50ZXIy"}
    assert outcome.statuses == ["accepted", "failed"]
    ledger.close()
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    told = repr(outcome.rows) + "".join(outcome.said)
    for secret in (KEY, "hunter2"):
        assert secret.encode() not in stored
        assert secret not in told


def test_server_without_key_works(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOI_API_KEY")
    assert detail(serve(good).url, small(1)).statuses == ["accepted"]


def test_cut_off_reply_is_told_as_such(serve: Any) -> None:
    server = serve(lambda request, number: Answer('{"side": "le', finish="length"))
    row = detail(server.url, small(1), max_attempts=1).rows[0]
    assert "cut off" in (row.reason or "")


def test_deeply_nested_reply_does_no_harm() -> None:
    with pytest.raises(Exception, match="no JSON object"):
        one_json_object('{"a":' * 1500)
