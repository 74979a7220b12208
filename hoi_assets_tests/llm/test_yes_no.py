"""P(yes) by an endpoint's logprobs, behind a real HTTP server: VQAScore and Soft-TIFA."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from hoi_assets.evaluation.benchmark_scores import CANDIDATE
from hoi_assets.evaluation.yes_probabilities import score_by_probability_of_yes
from hoi_assets.llm.retry import RequestFailed
from hoi_assets.llm.shown_image import ShownImage
from hoi_assets.llm.yes_no import YesNoClient, YesNoQuestion, p_yes_of, probabilities_of_yes
from hoi_assets.settings import YesNoJudge
from hoi_assets.store.versions import Store
from hoi_assets_tests.llm.chat_server import PRICES, Answer, Request, Server

IMAGE = Image.fromarray(np.zeros((8, 8, 3), np.uint8))


def with_logprobs(**probabilities: float) -> Answer:
    """A completion of one token; `Yes_=0.6` is the token " Yes"."""
    listed = [
        {"token": f" {name[:-1]}" if name.endswith("_") else name, "logprob": math.log(value)}
        for name, value in probabilities.items()
    ]
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": listed[0]["token"]},
        "finish_reason": "length",
        "logprobs": {"content": [{**listed[0], "top_logprobs": listed}]},
    }
    usage = {"prompt_tokens": 50, "completion_tokens": 1, "total_tokens": 51}
    return Answer(body=json.dumps({"model": "m", "choices": [choice], "usage": usage}))


def question(text: str = "is it red?") -> YesNoQuestion:
    return YesNoQuestion(ShownImage("p", lambda: IMAGE), text)


def options(server: Server, **more: Any) -> YesNoJudge:
    chosen = {"model": "m", "timeout_s": 5, "concurrency": 1, **more}
    return YesNoJudge(endpoint=server.url, **chosen)


def test_p_yes_is_the_sum_of_all_spellings_of_yes(chat_server: Any) -> None:
    server = chat_server(with_logprobs(Yes=0.5, yes=0.2, Yes_=0.1, No=0.15))
    (reply,) = probabilities_of_yes([question()], YesNoClient(options(server, **PRICES)))
    assert reply.value == pytest.approx(0.8) and reply.cost_usd == pytest.approx(60e-6)
    (sent,) = server.requests
    assert sent["logprobs"] is True and sent["top_logprobs"] == 20 and sent["max_tokens"] == 1
    # The model's own distribution, whatever the section's temperature.
    assert sent["temperature"] == 1.0


def test_endpoint_without_logprobs_is_asked_once_and_nothing_is_guessed(chat_server: Any) -> None:
    server = chat_server("Yes")
    asked = [question(f"is it {colour}?") for colour in ("red", "green", "blue")]
    lines: list[str] = []
    replies = probabilities_of_yes(asked, YesNoClient(options(server)), log=lines.append)
    assert [reply.value for reply in replies] == [None] * 3
    assert all((reply.reason or "").startswith("no_logprobs") for reply in replies)
    assert len(server.requests) == 1 and any("no_logprobs" in line for line in lines)


def test_endpoint_that_refuses_logprobs_is_no_error_of_the_run(chat_server: Any) -> None:
    refusal = {"error": {"message": "top_logprobs and logprobs are not supported"}}
    server = chat_server("Yes")

    def behave(request: Request, _: int) -> Answer:
        if "logprobs" in request or "top_logprobs" in request:
            return Answer(status=400, body=json.dumps(refusal))
        return Answer("Yes")

    server.behaviour = behave
    (reply,) = probabilities_of_yes([question()], YesNoClient(options(server)))
    assert reply.value is None and (reply.reason or "").startswith("no_logprobs")


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"choices": None},
        {"choices": [{"logprobs": None}]},
        {"choices": [{"logprobs": {"content": []}}]},
        {"choices": [{"logprobs": {"content": [{"token": "<think>", "logprob": -0.1}]}}]},
        {"choices": [{"logprobs": {"content": [{"token": "yes", "logprob": "-0.1"}]}}]},
    ],
)
def test_broken_answers_have_no_probability(answer: dict[str, Any]) -> None:
    with pytest.raises(RequestFailed, match=r"no_logprobs|no_answer"):
        p_yes_of(answer)


def test_vqa_score_asks_for_the_prompt_and_soft_tifa_for_its_parts(
    chat_server: Any, tmp_path: Path
) -> None:
    said = {"the hand": 0.9, "holds": 0.3, "shows": 0.6}
    server = chat_server("")

    def behave(request: Request, _: int) -> Answer:
        text = request["messages"][0]["content"][1]["text"]
        assert text.endswith("Please answer yes or no.")
        name = "shows" if text.startswith("Does this figure show") else text.split("?")[0]
        if name == "lost":
            return with_logprobs(maybe=0.9)
        return with_logprobs(yes=said[name], no=1 - said[name])

    server.behaviour = behave
    store = Store(tmp_path)
    pixels = store.images.put(IMAGE)
    store.images.flush()

    def row(prompt_id: str, selected: bool, *questions: str) -> dict[str, Any]:
        return dict.fromkeys(CANDIDATE) | {
            "evaluation_prompt_id": prompt_id,
            "pixels": pixels,
            "prompt": "a hand",
            "questions": list(questions),
            "selected": selected,
        }

    rows = [row("a", True, "the hand?", "holds?"), row("a", False, "the hand?")]
    rows.append(row("b", True, "the hand?", "lost?"))
    lines: list[str] = []
    chosen = options(server)
    scores = score_by_probability_of_yes(store, chosen, rows, lines.append)
    values = {(r["evaluation_prompt_id"], r["metric"]): r["value"] for r in scores.to_dicts()}
    assert values["a", "vqa_score"] == pytest.approx(0.6)
    assert values["a", "soft_tifa"] == pytest.approx(0.6)  # the mean of 0.9 and 0.3
    # One of its parts is not known, so the mean is not either.
    assert values["b", "soft_tifa"] is None and values["b", "vqa_score"] == pytest.approx(0.6)
    assert any("1 of 4 values are not available" in line for line in lines)
    asked = len(server.requests)
    again = score_by_probability_of_yes(store, chosen, rows, lines.append)
    assert again.equals(scores) and isinstance(again, pl.DataFrame)
    assert len(server.requests) == asked + 1  # what has no answer is asked again
