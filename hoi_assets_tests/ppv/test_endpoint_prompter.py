"""The endpoint prompter against a real HTTP server: what is requested, and what becomes a row."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hoi_assets.llm.budget import Budget
from hoi_assets.ppv.detailed_prompts import (
    REPLY_KIND,
    DetailedPrompt,
    detail_prompts,
    detailed_prompts_table,
)
from hoi_assets.ppv.endpoint_prompter import EndpointPrompter
from hoi_assets.ppv.prompter import PromptRequest
from hoi_assets.settings import ROOT, Prompter
from hoi_assets.store.ledger import Ledger
from hoi_assets.taxonomy import Category, load_taxonomy
from hoi_assets_tests.llm.chat_server import KEY, PRICES, REPLY_COST, Answer, Request, Server

TAXONOMY = load_taxonomy(ROOT / "data" / "taxonomy")
COLOURS = ("red", "green", "blue", "white", "black", "orange", "yellow", "purple")

Serve = Callable[[Callable[[Request, int], Answer]], Server]


@pytest.fixture
def serve(chat_server: Callable[..., Server]) -> Serve:
    def start(behaviour: Callable[[Request, int], Answer]) -> Server:
        server = chat_server("")
        server.behaviour = behaviour
        return server

    return start


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
class Detailed:
    rows: list[DetailedPrompt]
    logged: list[str]

    @property
    def statuses(self) -> list[str]:
        return [row.status for row in self.rows]


def detail(
    url: str,
    category: Category | None = None,
    cache: Ledger | None = None,
    budget: Budget | None = None,
    **options: Any,
) -> Detailed:
    chosen = {"model": "m", "per_base_prompt": 1, "concurrency": 1, "timeout_s": 5, **options}
    settings = Prompter(endpoint=url, **chosen)
    logged: list[str] = []
    prompter = EndpointPrompter(settings, budget)
    category = category or small()
    rows = detail_prompts(category, TAXONOMY, prompter, settings, cache, logged.append)
    return Detailed(rows, logged)


def test_good_replies_become_accepted_rows_with_usage(serve: Serve) -> None:
    detailed = detail(serve(good).url, per_base_prompt=2, **PRICES)
    assert detailed.statuses == ["accepted"] * 4
    assert [(row.base_prompt, row.index) for row in detailed.rows] == [
        (base.text, index) for base in small().base_prompts for index in range(2)
    ]
    first = detailed.rows[0]
    assert first.prompt == (
        "a left hand with tan skin wraps around a red metal can, "
        "seen from the front, soft light, grey wall"
    )
    assert (first.input_tokens, first.output_tokens) == (300, 100)
    assert first.cost_usd == pytest.approx(REPLY_COST)
    assert first.model == "m" and len(first.template_version) == 12
    assert all(line.startswith("power_wrap: ") for line in detailed.logged)
    assert "4 calls to m" in detailed.logged[0]


def test_request_carries_schema_category_and_base_prompt(serve: Serve) -> None:
    server = serve(good)
    detail(server.url)
    request = server.requests[0]
    schema = request["response_format"]["json_schema"]["schema"]
    assert set(schema["required"]) == set(schema["properties"])
    assert schema["additionalProperties"] is False and "description" not in schema
    assert schema["properties"]["object"]["enum"] == ["can"]
    assert schema["properties"]["side"]["enum"] == ["left", "right"]
    sent = " ".join(message["content"] for message in request["messages"])
    category = small()
    for part in (category.definition, "a hand holds a can", "wraps around", "additionalProperties"):
        assert part in sent


def test_open_vocabulary_takes_any_words_and_says_the_contact(serve: Serve) -> None:
    words = slots(0, colour="amber", view="from behind", contact="palm on the rim", avoid="text")
    server = serve(lambda request, number: Answer(json.dumps(words)))
    row = detail(server.url, small(1), vocabulary="open").rows[0]
    assert row.status == "accepted", row.reason
    assert "an amber metal can, palm on the rim, from behind" in row.prompt
    assert row.negative_prompt == "text"


def test_reply_outside_the_vocabulary_is_a_failed_row(serve: Serve) -> None:
    server = serve(lambda request, number: Answer(json.dumps(slots(0, colour="mauve"))))
    row = detail(server.url, small(1), max_attempts=2).rows[0]
    assert row.status == "failed" and row.prompt == "" and row.slots is None
    assert (row.reason or "").startswith("unusable_reply: colour: Input should be 'red'")
    assert len(server.requests) == 2
    assert "colour" in server.requests[1]["messages"][3]["content"]


def test_one_bad_row_does_not_take_others_with_it(serve: Serve) -> None:
    def bad_for_the_second(request: Request, number: int) -> Answer:
        bad = "someone opens" in json.dumps(request["messages"])
        return Answer("no") if bad else good(request, number)

    detailed = detail(serve(bad_for_the_second).url, small(3), max_attempts=2)
    assert detailed.statuses == ["accepted", "failed", "accepted"]


def test_a_refusal_is_a_rejected_row_and_the_model_that_answered_is_recorded(
    serve: Serve, tmp_path: Path
) -> None:
    choice = {"message": {"content": None, "refusal": "I cannot."}, "finish_reason": "stop"}
    body = json.dumps({"model": "other", "choices": [choice]})

    def refuses_the_second(request: Request, number: int) -> Answer:
        second = "someone opens" in json.dumps(request["messages"])
        return Answer(body=body) if second else good(request, number)

    server = serve(refuses_the_second)
    ledger = Ledger(tmp_path / "ledger.sqlite")
    detailed = detail(server.url, small(3), ledger)
    assert detailed.statuses == ["accepted", "rejected", "accepted"]
    assert [row.model for row in detailed.rows] == ["m", "other", "m"]
    assert detailed.rows[1].reason == "refused: by the model: I cannot."
    assert detail(server.url, small(3), ledger).rows == detailed.rows
    assert len(server.requests) == 3


def test_off_category_and_contradictory_replies_are_rejected_with_the_reason(serve: Serve) -> None:
    said = [slots(0, object="mug"), slots(1, grip="cups"), slots(2, side="both"), slots(3)]
    server = serve(lambda request, number: Answer(json.dumps(said[number])))
    detailed = detail(server.url, small(4))
    codes = [(row.reason or "").split(":")[0] for row in detailed.rows]
    assert codes == ["wrong_object", "other_grip", "hand_count", ""]
    assert detailed.statuses == ["rejected"] * 3 + ["accepted"]


def test_near_duplicate_replies_are_rejected(serve: Serve) -> None:
    server = serve(lambda request, number: Answer(json.dumps(slots(0))))
    rows = detail(server.url).rows
    assert rows[1].reason == f"near_duplicate: of {rows[0].prompt_id}"


def test_replies_are_found_again_and_only_failed_rows_requested_again(
    serve: Serve, tmp_path: Path
) -> None:
    server = serve(lambda request, n: Answer("no") if n == 1 else good(request, n))
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


def test_replies_of_a_home_in_the_older_format_are_found(serve: Serve, tmp_path: Path) -> None:
    server = serve(good)
    fresh = detail(server.url, small(2), **PRICES).rows
    # What `asdict` of the former reply class gave.
    older = {
        row.prompt_id: {
            "slots": row.slots,
            "reason": None,
            "refused": False,
            "input_tokens": row.input_tokens,
            "output_tokens": row.output_tokens,
            "cost_usd": row.cost_usd,
        }
        for row in fresh
    }
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.put(REPLY_KIND, older)
    found = detail(server.url, small(2), ledger, **PRICES)
    assert found.rows == fresh and len(server.requests) == 2
    assert detailed_prompts_table(found.rows).equals(detailed_prompts_table(fresh))
    assert not any("cannot be read" in line for line in found.logged)


def test_cached_replies_of_existing_homes_keep_their_keys() -> None:
    """Where this fails on purpose, every prompt is requested, and paid for, again."""
    settings = Prompter(endpoint="http://127.0.0.1:9/v1", model="m")
    prompter = EndpointPrompter(settings)
    assert prompter.template_version == "7aec29beb1c3"
    category = TAXONOMY.category("power_wrap")
    request = PromptRequest(category, category.base_prompts[0], 0)
    assert request.key(settings.seed, prompter.identity) == "6bc6871ce7c8b8b1"


def test_other_model_template_or_seed_is_another_request(serve: Serve) -> None:
    server = serve(good)
    ids = {
        detail(server.url, small(1), **change).rows[0].prompt_id
        for change in ({}, {"model": "n"}, {"seed": 1}, {"vocabulary": "open"}, {"temperature": 0})
    }
    assert len(ids) == 5


def test_cap_fails_the_rows_that_were_not_requested(serve: Serve) -> None:
    server = serve(good)
    # Room for two replies, and for the bound that the next call could cost.
    budget = Budget(2 * REPLY_COST + 0.012, 1.0, 10.0)
    detailed = detail(server.url, small(4), per_base_prompt=2, budget=budget)
    calls = len(server.requests)
    assert 2 <= calls < 8
    assert detailed.statuses == ["accepted"] * calls + ["failed"] * (8 - calls)
    assert all((row.reason or "").startswith("budget: ") for row in detailed.rows[calls:])
    assert any("stop at the cap" in line for line in detailed.logged)


def test_one_cap_covers_all_categories_of_a_process(serve: Serve) -> None:
    server = serve(good)
    options = {"budget_usd": 2 * REPLY_COST + 0.012, **PRICES}
    first = detail(server.url, small(4), **options)
    second = detail(server.url, small(4), **options)
    assert "failed" in first.statuses
    assert set(second.statuses) == {"failed"}


def test_key_is_in_no_row(serve: Serve) -> None:
    leaky = Answer(status=400, body=json.dumps({"error": {"message": f"key {KEY} is bad"}}))
    server = serve(lambda request, number: leaky if number else good(request, number))
    detailed = detail(server.url)
    assert detailed.statuses == ["accepted", "failed"]
    assert KEY not in repr(detailed.rows) + "".join(detailed.logged)
