"""Findings, their order, the corrected prompt, and a vision endpoint that judges well or badly."""

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hoi_assets.detailscribe.benchmark import read_benchmark
from hoi_assets.detailscribe.components import Component, build_component, count_dependents
from hoi_assets.detailscribe.critique import (
    ComponentFinding,
    Critique,
    CritiqueRequest,
    correct_prompt,
    critiques_frame,
    findings_frame,
    rank_findings,
)
from hoi_assets.detailscribe.endpoint_critic import EndpointCritic, critique_by_endpoint
from hoi_assets.detailscribe.flat_form import from_flat
from hoi_assets.detailscribe.prompt_extension import (
    NoRoom,
    extend_prompt,
    find_extension_problem,
    word_count,
)
from hoi_assets.detailscribe.vqa_critic import critique_from_answers, findings_from_answers
from hoi_assets.grammar.sentences import parse
from hoi_assets.hashing import digest_pixels
from hoi_assets.llm.budget import Budget
from hoi_assets.llm.shown_image import ShownImage
from hoi_assets.settings import Critic
from hoi_assets.store.ledger import Ledger
from hoi_assets_tests.llm.chat_server import PRICES

TINY = "a left hand holds a red spoon, and the spoon stirs in a blue bowl"
SENTENCE = "A robot stirs tea with a wrench."
PARTS = from_flat("(a left hand holds a red spoon) + (the spoon stirs in a blue bowl)")


def picture(seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def shown(seed: int = 0) -> ShownImage:
    image = picture(seed)
    return ShownImage(digest_pixels(image), lambda: image)


def vqa_request(row_id: str, prompt: str, components: Sequence[Component]) -> CritiqueRequest:
    """A request whose answers are known, so that nobody opens its image."""
    return CritiqueRequest(row_id, prompt, tuple(components), ShownImage("0" * 64, lost))


def lost() -> Image.Image:
    raise AssertionError("opened without need")


def judged(*holds: bool, others: Any = (), **change: Any) -> dict[str, Any]:
    findings = [
        {
            "number": number,
            "holds": yes,
            "confidence": 0.8,
            "problem": None if yes else f"part {number} is missing",
            "correction": None if yes else f"show part {number} clearly",
            **change,
        }
        for number, yes in enumerate(holds, start=1)
    ]
    return {"findings": findings, "others": list(others)}


def ask(
    url: str, *requests: CritiqueRequest, cache: Any = None, budget: Any = None, **options: Any
) -> list[Critique]:
    chosen = {"model": "m", "timeout_s": 5, "concurrency": 1, **options}
    critic = EndpointCritic(Critic(endpoint=url, **chosen), budget)
    asked = requests or (CritiqueRequest("r", SENTENCE, PARTS, shown()),)
    return critique_by_endpoint(asked, critic, cache, lambda line: None)


# --- answers of a VQA model -----------------------------------------------------------------------


def test_answers_become_findings_with_problem_and_correction() -> None:
    failed, satisfied = findings_from_answers(PARTS, [0.9, 0.2], threshold=0.5)
    assert failed == ComponentFinding(
        1,
        False,
        0.8,
        "not seen: the spoon stirs in a blue bowl",
        "the spoon stirs in a blue bowl",
    )
    assert satisfied == ComponentFinding(0, True, 0.9)


def test_threshold_decides_what_counts_as_yes() -> None:
    assert all(finding.satisfied for finding in findings_from_answers(PARTS, [0.4, 0.3], 0.3))
    assert not any(finding.satisfied for finding in findings_from_answers(PARTS, [0.4, 0.3], 0.41))


@pytest.mark.parametrize("answers", [[0.5], [0.5, float("nan")], [0.5, 1.2], [0.5, -0.1]])
def test_answers_that_are_no_probabilities_fail_the_row_and_are_no_score(
    answers: list[float],
) -> None:
    row = critique_from_answers(vqa_request("r", TINY, PARTS), answers, Critic(), "vqa")
    assert row.status == "failed" and (row.reason or "").startswith("no_answer: ")
    assert row.findings == () and row.corrected_prompt is None and not row.nothing_to_correct


def test_what_others_build_on_is_ranked_first_then_the_surer_failure() -> None:
    parts = from_flat("(a holds b) + (b stirs c) + (c is on d) + (e is on f) + (g is on h)")
    assert count_dependents(parts) == (2, 1, 0, 0, 0)
    answers = [0.4, 0.3, 0.2, 0.1, 0.9]
    findings = findings_from_answers(parts, answers, 0.5)
    assert [finding.component for finding in findings] == [0, 1, 3, 2, 4]


def test_what_is_no_component_is_ranked_behind_failed_components() -> None:
    findings = [
        ComponentFinding(None, False, 1.0),
        ComponentFinding(1, False, 0.1),
        ComponentFinding(0, True, 1.0),
    ]
    assert [finding.component for finding in rank_findings(findings, PARTS)] == [1, None, 0]


def test_nothing_to_correct_is_an_answer() -> None:
    row = critique_from_answers(vqa_request("r", TINY, PARTS), [0.9, 0.8], Critic(), "vqa")
    assert row.status == "accepted" and row.nothing_to_correct and row.corrected_prompt is None


def test_tiny_correction_speaks_the_grammars_words() -> None:
    row = critique_from_answers(vqa_request("r", TINY, PARTS), [0.1, 0.2], Critic(), "vqa")
    assert row.corrected_prompt == (
        f"{TINY}, a left hand holds a red spoon, the spoon stirs in a blue bowl"
    )


def test_every_built_in_prompt_has_room_for_all_its_corrections() -> None:
    for row in read_benchmark():
        triples = parse(row.prompt) or ()
        parts = [build_component(one.subject, one.relation, one.object) for one in triples]
        told = critique_from_answers(
            vqa_request("r", row.prompt, parts), [0.0] * len(parts), Critic(), "vqa"
        )
        assert told.status == "accepted" and told.corrected_prompt
        assert all(part.statement in told.corrected_prompt[len(row.prompt) :] for part in parts)


# --- corrected prompt -----------------------------------------------------------------------------


def failure(correction: str) -> ComponentFinding:
    return ComponentFinding(0, False, 0.9, "wrong", correction)


def test_sentence_is_followed_by_sentences() -> None:
    findings = [failure("show the wrench in the cup."), failure("the arm holds it")]
    assert correct_prompt(SENTENCE, findings) == (
        f"{SENTENCE} Show the wrench in the cup. The arm holds it."
    )


def test_what_holds_and_repeats_add_nothing() -> None:
    findings = [
        failure("the cup is red"),
        failure("the cup is red"),
        ComponentFinding(1, True, 0.9),
    ]
    assert correct_prompt("a cup", findings) == "a cup, the cup is red"
    assert correct_prompt("a cup", [ComponentFinding(0, True, 0.9)]) is None


def test_corrections_end_before_the_last_word_allowed() -> None:
    findings = [failure("word " * 40), failure("other " * 40), failure("few more words")]
    corrected = correct_prompt(SENTENCE, findings, 70) or ""
    assert word_count(corrected) == 50 and corrected.endswith("few more words.".capitalize())
    assert find_extension_problem(SENTENCE, corrected, 70) is None


def test_prompt_without_room_fails_with_its_length() -> None:
    long = "cup " * 69 + "cup"
    with pytest.raises(NoRoom, match="70 words"):
        extend_prompt(long, ["the cup is red"])
    row = critique_from_answers(vqa_request("r", long, PARTS), [0.1, 0.1], Critic(), "vqa")
    assert row.status == "failed" and (row.reason or "").startswith("no_room: ")
    assert row.findings != () and row.corrected_prompt is None


@pytest.mark.parametrize(
    ("corrected", "code"),
    [
        (f"{SENTENCE} Show the cup.", None),
        (f"Here: {SENTENCE} Show the cup.", "not_verbatim"),
        (f"{SENTENCE.lower()} Show the cup.", "not_verbatim"),
        (f"{SENTENCE[:-1]}, and a cup.", "not_verbatim"),
        (SENTENCE, "nothing_added"),
        (f"{SENTENCE} ...", "nothing_added"),
        (f"{SENTENCE} " + "cup " * 64, "too_many_words"),
        (f"{SENTENCE} Show\x00the cup.", "unprintable"),
    ],
)
def test_corrected_prompt_is_checked_by_code(corrected: str, code: str | None) -> None:
    found = find_extension_problem(SENTENCE, corrected)
    assert (found.split(":")[0] if found else None) == code


# --- endpoint -------------------------------------------------------------------------------------


def test_endpoint_sees_the_very_pixels_and_the_numbered_components(chat_server: Any) -> None:
    server = chat_server(judged(True, False))
    (row,) = ask(server.url, **PRICES)
    assert row.status == "accepted" and row.model == "m" and row.cost_usd
    assert [finding.component for finding in row.findings] == [1, 0]
    assert row.corrected_prompt == f"{SENTENCE} Show part 2 clearly."
    image, text = server.requests[0]["messages"][1]["content"]
    head, data = image["image_url"]["url"].split(",")
    assert head == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as shown:
        assert np.array_equal(np.asarray(shown), np.asarray(picture()))
    assert '1. "a left hand holds a red spoon"' in text["text"] and SENTENCE in text["text"]


def test_endpoint_may_find_nothing_to_correct_or_something_else(chat_server: Any) -> None:
    (fine,) = ask(chat_server(judged(True, True)).url)
    assert fine.nothing_to_correct and len(fine.findings) == 2
    other = {"problem": "six fingers", "correction": "five fingers", "confidence": 1}
    (odd,) = ask(chat_server(judged(True, True, others=[other])).url)
    assert odd.corrected_prompt == f"{SENTENCE} Five fingers."
    assert odd.findings[0].component is None and not odd.nothing_to_correct


OTHER = {"problem": "p", "correction": "c", "confidence": 1}


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ("The picture is lovely, 8 out of 10, though the spoon floats.", "no JSON object"),
        ("2", "no JSON object"),
        (judged(True), "about components [1], wanted is each of [1, 2]"),
        (judged(True, True, True), "wanted is each of [1, 2]"),
        (judged(True, False, number=1), "about components [1, 1]"),
        (judged(True, False, confidence=8), "less than or equal to 1"),
        (judged(True, False, confidence="high"), "valid number"),
        (judged(True, True, holds="yes"), "valid boolean"),
        (judged(True, False, correction=None), "correction of component 2 is missing"),
        (judged(True, False, problem=" - "), "problem of component 2 is missing"),
        (judged(True, False, correction="show it " * 20), "has 40 words, at most 15"),
        (judged(True, False, correction="a\x07cup"), "cannot be printed"),
        (judged(True, True, others=[OTHER] * 4), "others has 4 entries, at most 3"),
        ({**judged(True, True), "score": 4}, "score: Extra inputs"),
    ],
)  # fmt: skip
def test_reply_that_cannot_be_used_is_asked_again_then_failed_and_never_a_score(
    chat_server: Any, bad: Any, told: str
) -> None:
    repaired = chat_server(bad, judged(True, False))
    (row,) = ask(repaired.url)
    assert row.status == "accepted" and row.corrected_prompt
    assert told in repaired.requests[1]["messages"][3]["content"]
    stubborn = chat_server(bad)
    (row,) = ask(stubborn.url, max_attempts=2)
    assert row.status == "failed" and (row.reason or "").startswith("unusable_reply: ")
    assert row.findings == () and row.corrected_prompt is None and not row.nothing_to_correct
    assert len(stubborn.requests) == 2


def test_corrections_are_held_to_the_room_behind_a_long_prompt(chat_server: Any) -> None:
    long = "A robot " + "very " * 56 + "slowly stirs tea."
    request = CritiqueRequest("r", long, PARTS, shown())
    server = chat_server(
        judged(True, False, correction="a word or two more than there is room for"),
        judged(True, False, correction="the wrench touches the tea"),
    )
    (row,) = ask(server.url, request)
    assert row.corrected_prompt == f"{long} The wrench touches the tea."
    assert "at most 9 words" in server.requests[0]["messages"][0]["content"]
    assert "has 10 words, at most 9" in server.requests[1]["messages"][3]["content"]


def test_critiques_are_found_again_by_picture_and_prompt(chat_server: Any, tmp_path: Path) -> None:
    server = chat_server(judged(True, False))
    ledger = Ledger(tmp_path / "ledger.sqlite")
    same = [CritiqueRequest(name, SENTENCE, PARTS, shown()) for name in ("a", "b")]
    other = CritiqueRequest("c", SENTENCE, PARTS, shown(1))
    first = ask(server.url, *same, other, cache=ledger)
    assert len(server.requests) == 2
    assert [row.row_id for row in first] == ["a", "b", "c"]
    unopened = [replace(one, image=ShownImage(one.image.pixels, lost)) for one in (*same, other)]
    assert ask(server.url, *unopened, cache=ledger) == first
    assert len(server.requests) == 2
    ask(server.url, CritiqueRequest("a", SENTENCE, PARTS[:1], shown()), cache=ledger)
    assert len(server.requests) > 2


def test_replies_stored_by_earlier_versions_are_cache_hits(
    chat_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOI_API_KEY", "k")
    ledger = Ledger(tmp_path / "ledger.sqlite")
    server = chat_server(judged(True, True))
    critic = EndpointCritic(Critic(endpoint=server.url, model="m"))
    request = CritiqueRequest("r", SENTENCE, PARTS, shown())
    finding = {"confidence": 0.8, "problem": None, "correction": None}
    lacking = {"confidence": 0.9, "problem": "no bowl", "correction": "show the bowl"}
    value = [
        {"component": 1, "holds": False, **lacking},
        {"component": 0, "holds": True, **finding},
    ]
    stored = {"value": value, "reason": None, "model": "m", "cost_usd": 0.01}
    ledger.put("critique", {request.key(critic.identity): stored})
    (row,) = critique_by_endpoint([request], critic, ledger, str)
    assert server.requests == []
    assert row.corrected_prompt == f"{SENTENCE} Show the bowl." and row.cost_usd == 0.01
    assert [one.satisfied for one in row.findings] == [False, True]


def test_keys_of_critiques_are_those_of_earlier_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOI_API_KEY", "k")
    critic = EndpointCritic(Critic(endpoint="http://127.0.0.1:9/v1", model="m"))
    assert critic.template_version == "05fc23f5f191"
    request = CritiqueRequest("r", SENTENCE, PARTS, ShownImage("0" * 64, lost))
    assert request.key(critic.identity) == "79ec4ef1cab78f74"


def test_picture_counts_against_the_budget_before_it_is_sent(chat_server: Any) -> None:
    server = chat_server(judged(True, False))
    # Room for the reply and the words, not for what a picture may be billed.
    budget = Budget(0.012, 1.0, 10.0)
    (row,) = ask(server.url, budget=budget, image_tokens=50_000)
    assert row.status == "failed" and (row.reason or "").startswith("budget: critic.budget_usd")
    assert server.requests == [] and budget.spent_usd == 0
    assert ask(server.url, budget=budget, image_tokens=100)[0].status == "accepted"


# --- tables ---------------------------------------------------------------------------------------


def test_tables_hold_critiques_and_findings_in_order(chat_server: Any) -> None:
    other = {"problem": "six fingers", "correction": "five fingers", "confidence": 0.7}
    rows = [
        *ask(chat_server(judged(True, False, others=[other])).url),
        critique_from_answers(vqa_request("fine", TINY, PARTS), [0.9, 0.9], Critic(), "vqa"),
        critique_from_answers(vqa_request("bad", TINY, PARTS), [0.9], Critic(), "vqa"),
    ]
    table = critiques_frame(rows)
    assert table["nothing_to_correct"].to_list() == [False, True, False]
    assert table["failing"].to_list() == [2, 0, 0]
    assert table["status"].to_list() == ["accepted", "accepted", "failed"]
    found = findings_frame(rows)
    assert found["rank"].to_list() == [0, 1, 2, 0, 1]
    assert found["component"].to_list() == [1, None, 0, 0, 1]
    assert found["subject"].to_list()[:2] == ["the spoon", None]
    assert critiques_frame([]).schema == table.schema
    assert findings_frame([]).schema == found.schema
    assert json.loads(table.write_json())[0]["corrected_prompt"].startswith(SENTENCE)


def test_components_are_said_to_the_endpoint_as_they_are(chat_server: Any) -> None:
    odd = build_component('the "left" hand', "holds", question="Is it held?")
    server = chat_server(judged(True))
    ask(server.url, CritiqueRequest("r", SENTENCE, (odd,), shown()))
    text = server.requests[0]["messages"][1]["content"][1]["text"]
    assert r"the \"left\" hand holds" in text and "Is it held?" in text
