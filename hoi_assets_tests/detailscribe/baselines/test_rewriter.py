"""A language model that rewrites prompts well or badly."""

from pathlib import Path
from typing import Any

import pytest

from hoi_assets.detailscribe.baselines.rewriter import EndpointRewriter, rewrite_prompts
from hoi_assets.settings import Rewriter
from hoi_assets.store.ledger import Ledger

PROMPT = "A robot stirs tea with a wrench."
LONGER = "A robot stirs tea in a cup with a wrench that its right hand holds."


def rewriter(url: str, **options: Any) -> EndpointRewriter:
    return EndpointRewriter(Rewriter(endpoint=url, model="m", **options))


def test_a_prompt_is_rewritten_once_and_found_again(chat_server: Any, tmp_path: Path) -> None:
    server = chat_server({"prompt": f"  {LONGER}\n"})
    ledger = Ledger(tmp_path / "ledger.sqlite")
    for _ in range(2):
        found = rewrite_prompts([PROMPT, PROMPT], rewriter(server.url), ledger, str)
        assert found[PROMPT].value == LONGER
    assert len(server.requests) == 1
    assert "at most 70 words" in server.requests[0]["messages"][0]["content"]
    rewrite_prompts([PROMPT], rewriter(server.url, max_words=20), ledger, str)
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        ("Sure! Here it is.", "unusable_reply"),
        ({"prompt": "..."}, "says nothing"),
        ({"prompt": "a\u202eb"}, "cannot be printed"),
        ({"prompt": "word " * 71}, "has 71 words, at most 70"),
        ({"prompt": LONGER, "style": "photo"}, "style"),
    ],
)
def test_what_is_no_prompt_is_asked_again_and_then_a_reason(
    chat_server: Any, reply: Any, told: str
) -> None:
    server = chat_server(reply)
    found = rewrite_prompts([PROMPT], rewriter(server.url), None, str)[PROMPT]
    assert found.value is None and told in (found.reason or "")
    assert len(server.requests) == 3
    repaired = chat_server(reply, {"prompt": LONGER})
    assert rewrite_prompts([PROMPT], rewriter(repaired.url), None, str)[PROMPT].value == LONGER


def test_version_of_the_templates_is_that_of_earlier_versions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOI_API_KEY", "k")
    assert rewriter("http://127.0.0.1:9/v1").template_version == "07edf0b54e96"
