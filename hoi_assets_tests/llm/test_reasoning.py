"""Promises about models that think before they answer."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from hoi_assets.llm.reply import UnusableReply, parse_json_object
from hoi_assets.settings import Endpoint, ImageEndpoint
from hoi_assets_tests.llm.chat_server import PRICES, Answer, Request
from hoi_assets_tests.llm.colours import RED, ColourNamer, Serve, ask
from hoi_assets_tests.llm.test_replies import completion

GREEN = RED.replace("red", "green")
THOUGHTS = [
    f"<think>Perhaps {GREEN}?</think>{RED}",
    f"<seed:think>Perhaps {GREEN}?</seed:think>{RED}",
    f"[THINK]Perhaps {GREEN}?[/THINK]{RED}",
    f"<|begin_of_thought|>{GREEN}<|end_of_thought|>\n<|begin_of_solution|>{RED}",
    f"<|START_THINKING|>{GREEN}<|END_THINKING|>{RED}",
    f"<|channel>thought\n{GREEN}<channel|>{RED}",
    f"Here is my thought process:\n{GREEN}\nHere is my response:\n{RED}",
    f"<|channel|>analysis<|message|>{GREEN}<|end|><|start|>assistant"
    f"<|channel|>final<|message|>{RED}<|return|>",
    f"<|channel|>analysis<|message|>{GREEN}<|end|><|start|>assistant<|channel|>commentary "
    f"<|message|>{GREEN}<|end|><|start|>assistant<|channel|>final <|constrain|>json"
    f"<|message|>{RED}",
    f"analysisPerhaps {GREEN}?assistantfinal{RED}",
]
UNENDED = [
    f"[THINK]{GREEN}",
    f"<seed:think>{GREEN}",
    f"<|begin_of_thought|>{GREEN}",
    f"<|channel>thought\n{GREEN}",
    f"Here's my thought process: {GREEN}",
    f"<|channel|>analysis<|message|>{GREEN}",
    f"<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary<|message|>{GREEN}",
    f"analysisPerhaps {GREEN}",
]


@pytest.mark.parametrize("text", THOUGHTS)
def test_thoughts_of_every_common_form_are_kept_apart_from_the_answer(text: str) -> None:
    assert parse_json_object(text) == json.loads(RED)


@pytest.mark.parametrize("text", UNENDED)
def test_thoughts_that_do_not_end_are_never_an_answer(text: str) -> None:
    with pytest.raises(UnusableReply, match="does not end"):
        parse_json_object(text)


@pytest.mark.parametrize(
    "message",
    [
        {"content": RED, "reasoning_content": GREEN},
        {"content": RED, "reasoning": GREEN, "reasoning_details": [{"text": GREEN}]},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": GREEN}]}, RED]},
    ],
)
def test_thoughts_in_fields_of_their_own_are_not_the_answer(serve: Serve, message: Any) -> None:
    server = serve(lambda request, number: completion(message))
    (reply,) = ask(server.url, 1).replies
    assert reply.value is not None and reply.value.colour == "red"


def test_reply_options_reach_the_server_and_only_where_they_are_set(serve: Serve) -> None:
    server = serve(lambda request, number: Answer(RED))
    ask(server.url, 1)
    ask(
        server.url,
        1,
        max_reply_tokens=16_000,
        reasoning_effort="low",
        extra_body={"top_p": 0.9, "chat_template_kwargs": {"enable_thinking": True}},
    )
    plain, told = server.requests
    assert plain["max_tokens"] == 1024
    assert not plain.keys() & {"reasoning_effort", "top_p", "chat_template_kwargs"}
    assert (told["max_tokens"], told["reasoning_effort"], told["top_p"]) == (16_000, "low", 0.9)
    assert told["chat_template_kwargs"] == {"enable_thinking": True}


def test_reply_options_are_part_of_the_cache_key_only_where_they_are_set() -> None:
    def identity(**more: Any) -> dict[str, Any]:
        options = Endpoint(endpoint="http://127.0.0.1:9/v1", model="m", **more)
        return dict(ColourNamer(options).identity)

    before = {"model", "endpoint", "template_version", "temperature", "seed"}
    assert identity().keys() == before
    assert identity(max_reply_tokens=1024, reasoning_effort=None, extra_body=None) == identity()
    for more in (
        {"max_reply_tokens": 4096},
        {"reasoning_effort": "high"},
        {"extra_body": {"a": 1}},
    ):
        assert identity(**more) == identity() | more


def test_a_model_that_is_cut_while_thinking_is_told_apart_and_names_the_setting(
    serve: Serve,
) -> None:
    thinking = {"content": "", "reasoning_content": "so many words"}
    server = serve(lambda request, number: completion(thinking, "length"))
    (reply,) = ask(server.url, 1, max_attempts=1, max_reply_tokens=64).replies
    assert reply.reason is not None
    assert reply.reason.startswith("cut: it was cut off while it was thinking after 64 tokens")
    assert "max_reply_tokens" in reply.reason


def test_thoughts_are_not_shown_to_the_model_again(serve: Serve) -> None:
    def behaviour(request: Request, number: int) -> Answer:
        return Answer(RED if number else "<think>a secret thought</think>It is red.")

    server = serve(behaviour)
    assert ask(server.url, 1).codes == ["ok"]
    said = server.requests[1]["messages"][2]
    assert said == {"role": "assistant", "content": "It is red."}


def test_the_cap_covers_the_longest_reply_that_may_come(serve: Serve) -> None:
    server = serve(lambda request, number: Answer(RED))
    assert ask(server.url, 1, **PRICES, budget_usd=0.05).codes == ["ok"]
    assert ask(server.url, 1, **PRICES, budget_usd=0.05, max_reply_tokens=16_000).codes == [
        "budget"
    ]
    assert len(server.requests) == 1


def test_what_a_call_sets_itself_cannot_be_set_in_its_body() -> None:
    with pytest.raises(ValidationError, match="messages is set by every call itself"):
        Endpoint(extra_body={"messages": []})
    with pytest.raises(ValidationError, match="cannot be sent as JSON"):
        Endpoint(extra_body={"top_p": float("nan")})
    with pytest.raises(ValidationError, match="of chat endpoints only"):
        ImageEndpoint(reasoning_effort="low")
