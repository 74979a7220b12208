"""Decomposition by the built-in rules, and by a real chat endpoint that answers well or badly."""

import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hoi_assets.detailscribe.benchmark import read_benchmark
from hoi_assets.detailscribe.components import build_component
from hoi_assets.detailscribe.decompose import (
    Decomposition,
    components_frame,
    decompose,
    decompositions_frame,
    read_components,
    reply_key,
)
from hoi_assets.detailscribe.decomposers import (
    EndpointDecomposer,
    RuleDecomposer,
    build_decomposer,
    find_decomposition_problem,
)
from hoi_assets.detailscribe.flat_form import from_flat, to_flat
from hoi_assets.errors import HoiError
from hoi_assets.llm.retry import EndpointError
from hoi_assets.settings import ROOT, Decomposer
from hoi_assets.store.ledger import Ledger
from hoi_assets_tests.llm.chat_server import KEY, PRICES, Answer

PROMPT = "A robot stirs tea with a wrench."
GOOD = {
    "components": [
        {
            "subject": "the robot's arm",
            "relation": "holds",
            "object": "a wrench",
            "question": "Does the robot's arm hold a wrench?",
        },
        {
            "subject": "the wrench",
            "relation": "stirs",
            "object": "tea",
            "question": "Does the wrench stir tea?",
        },
    ]
}


def reply(flat: str) -> dict[str, Any]:
    return {"components": [one.model_dump() for one in from_flat(flat)]}


def quiet(line: str) -> None:
    pass


def rules(*prompts: str) -> list[Decomposition]:
    return decompose([(str(n), p) for n, p in enumerate(prompts)], RuleDecomposer(), log=quiet)


def ask(url: str, *prompts: str, cache: Any = None, **options: Any) -> list[Decomposition]:
    chosen = {"model": "m", "timeout_s": 5, "concurrency": 1, **options}
    decomposer = build_decomposer(Decomposer(endpoint=url, **chosen))
    rows = [(str(n), prompt) for n, prompt in enumerate(prompts or (PROMPT,))]
    return decompose(rows, decomposer, cache, quiet)


# --- rules ----------------------------------------------------------------------------------------


def test_every_built_in_prompt_is_decomposed_by_its_grammar() -> None:
    prompts = [(row.row_id, row.prompt) for row in read_benchmark()]
    rows = decompose(prompts, RuleDecomposer(), log=quiet)
    assert {(row.status, row.model) for row in rows} == {("accepted", "tiny-grammar")}
    assert all(row.components[0].question.endswith("?") for row in rows)
    assert max(len(row.components) for row in rows) > 1


def test_grammar_gives_the_triples_and_their_questions() -> None:
    (row,) = rules("a right hand holds a red spoon that stirs in a blue bowl")
    assert to_flat(row.components) == (
        "(a right hand holds a red spoon) + (the spoon stirs in a blue bowl)"
    )
    assert row.components[1].question == "does the spoon stir in a blue bowl?"


@pytest.mark.parametrize(
    ("prompt", "flat"),
    [
        (PROMPT, "(a robot stirs tea with a wrench)"),
        (
            "A robot sails a tub, waving a flag; the crew sings.",
            "(a robot sails a tub) + (a robot waving a flag) + (the crew sings)",
        ),
        ("A robot near a tub, waving a flag.", "(a robot near a tub waving a flag)"),
        ("Blue teapot (chipped)!", "(Blue teapot chipped)"),
    ],
)
def test_other_sentences_are_split_at_their_clauses(prompt: str, flat: str) -> None:
    (row,) = rules(prompt)
    assert row.status == "accepted", row.reason
    assert (to_flat(row.components), row.model) == (flat, "clause-rules")


def test_rules_name_what_they_cannot_decompose() -> None:
    (row,) = rules("?!")
    assert row.status == "failed" and row.reason == "empty: no component"
    assert row.components == ()


# --- checks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flat", "code"),
    [
        ("(robot holds wrench) + (a robot holds the wrench)", "repeats"),
        ("(robot is on tea) + (tea is on robot)", "loops"),
        ("(robot touches a robot)", "loops"),
        ("(fish eats seaweed)", "names_nothing"),
        (" + ".join(f"(robot touches cup {n})" for n in range(9)), "too_many"),
        ("(robots hold wrenches)", None),
        ("(arm holds wrench) + (wrench stirs tea)", None),
    ],
)
def test_components_are_held_to_the_prompt(flat: str, code: str | None) -> None:
    found = find_decomposition_problem(PROMPT, from_flat(flat))
    assert (found.split(":")[0] if found else None) == code


def test_no_component_is_no_decomposition() -> None:
    assert (find_decomposition_problem(PROMPT, []) or "").startswith("empty")


# --- endpoint -------------------------------------------------------------------------------------


def test_components_of_an_endpoint_are_taken_with_usage(chat_server: Any) -> None:
    server = chat_server(GOOD)
    (row,) = ask(server.url, **PRICES)
    assert row.status == "accepted" and row.model == "m"
    assert to_flat(row.components) == "(the robot's arm holds a wrench) + (the wrench stirs tea)"
    assert row.input_tokens == 300 and row.cost_usd and len(row.template_version) == 12
    request = server.requests[0]
    assert request["response_format"]["json_schema"]["strict"] is True
    assert PROMPT in request["messages"][1]["content"]


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ("The robot holds a wrench and stirs.", "no JSON object"),
        ({"components": []}, "empty: no component"),
        ({"parts": []}, "components: Field required"),
        ({"components": [{**GOOD["components"][0], "question": "Hm."}]}, "is no question"),
        (reply("(robot is on tea) + (tea is on robot)"), "loops: a circle"),
        (reply("(fish eats seaweed)"), "names_nothing"),
        (reply("(robot holds tea) + (robot holds tea)"), "repeats"),
        (reply(" + ".join(f"(robot touches cup {n})" for n in range(9))), "too_many: 9"),
    ],
)
def test_unusable_reply_is_asked_again_and_then_fails(
    chat_server: Any, bad: Any, told: str
) -> None:
    repaired = chat_server(bad, GOOD)
    assert ask(repaired.url)[0].status == "accepted"
    assert told in repaired.requests[1]["messages"][3]["content"]
    stubborn = chat_server(bad)
    (row,) = ask(stubborn.url, max_attempts=2)
    assert row.status == "failed" and row.components == ()
    assert (row.reason or "").startswith("unusable_reply: ") and told in (row.reason or "")
    assert len(stubborn.requests) == 2


def test_equal_prompts_are_asked_once_and_rows_keep_their_order(chat_server: Any) -> None:
    server = chat_server(GOOD)
    other = "The robot's tea is cold."
    rows = ask(server.url, PROMPT, other, PROMPT)
    assert [row.row_id for row in rows] == ["0", "1", "2"]
    assert [row.prompt for row in rows] == [PROMPT, other, PROMPT]
    assert len(server.requests) == 2


def test_replies_are_found_again_and_only_failed_prompts_asked_anew(
    chat_server: Any, tmp_path: Path
) -> None:
    server = chat_server(GOOD, "no", GOOD)
    ledger = Ledger(tmp_path / "ledger.sqlite")
    other = "The robot drinks tea."
    first = ask(server.url, PROMPT, other, cache=ledger, max_attempts=1)
    assert [row.status for row in first] == ["accepted", "failed"]
    second = ask(server.url, PROMPT, other, cache=ledger, max_attempts=1)
    assert [row.status for row in second] == ["accepted", "accepted"]
    assert second[0] == first[0] and len(server.requests) == 3
    ask(server.url, PROMPT, cache=ledger, model="n")
    assert len(server.requests) == 4


def test_kept_reply_that_cannot_be_read_is_asked_for_again(
    chat_server: Any, tmp_path: Path
) -> None:
    server = chat_server(GOOD)
    ledger = Ledger(tmp_path / "ledger.sqlite")
    said: list[str] = []
    options = Decomposer(endpoint=server.url, model="m")
    first = decompose([("0", PROMPT)], EndpointDecomposer(options), ledger, quiet)
    keys = all_keys(ledger)
    ledger.delete("decomposition", keys)
    ledger.put("decomposition", {key: {"value": [{"subject": "a"}]} for key in keys})
    again = decompose([("0", PROMPT)], EndpointDecomposer(options), ledger, said.append)
    assert again == first and len(server.requests) == 2
    assert any("cannot be read" in line for line in said)


def test_keys_of_decompositions_are_those_of_earlier_versions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOI_API_KEY", "k")
    decomposer = build_decomposer(Decomposer(endpoint="http://127.0.0.1:9/v1", model="m"))
    assert decomposer.template_version == "2245cd211c0a"
    assert reply_key(PROMPT, decomposer.identity) == "256f71c570b364dc"


def all_keys(ledger: Ledger) -> list[str]:
    with sqlite3.connect(ledger.path) as connection:
        return [key for (key,) in connection.execute("SELECT key FROM made")]


def test_endpoint_that_is_not_there_is_told_by_its_section(chat_server: Any) -> None:
    server = chat_server(GOOD)
    server.http.server_close()
    with pytest.raises(EndpointError, match=r"decomposer\.endpoint"):
        ask(server.url, max_attempts=1)
    with pytest.raises(HoiError, match=r"decomposer\.model"):
        build_decomposer(Decomposer(endpoint=server.url))


def test_later_failure_of_one_prompt_leaves_the_others(chat_server: Any) -> None:
    refused = Answer(status=400, body=json.dumps({"error": {"message": f"bad {KEY}"}}))
    server = chat_server(GOOD, refused, GOOD)
    rows = ask(server.url, PROMPT, "A robot pours tea.", "A robot drinks tea.")
    assert [row.status for row in rows] == ["accepted", "failed", "accepted"]
    assert (rows[1].reason or "").startswith("refused: status 400")
    assert KEY not in repr(rows)


def test_estimate_is_said_before_the_first_call(chat_server: Any) -> None:
    said: list[str] = []
    options = Decomposer(endpoint=chat_server(GOOD).url, model="m", **PRICES)
    decompose([("0", PROMPT)], build_decomposer(options), log=said.append)
    assert said[0].startswith("decompositions: 1 calls to m") and "USD" in said[0]


# --- tables ---------------------------------------------------------------------------------------


def test_tables_hold_rows_and_components_and_give_them_back(chat_server: Any) -> None:
    rows = [*ask(chat_server(GOOD).url), *rules("?!", PROMPT)]
    table = decompositions_frame(rows)
    assert table["components"].to_list() == [2, 0, 1]
    assert table["status"].to_list() == ["accepted", "failed", "accepted"]
    parts = components_frame(rows[:1])
    assert parts["component"].to_list() == [0, 1]
    assert parts["depends_on"].to_list() == [[], [0]]
    assert read_components(parts) == {"0": rows[0].components}
    assert decompositions_frame([]).schema == table.schema
    assert components_frame([]).schema == parts.schema


def test_component_of_the_table_is_the_component() -> None:
    one = build_component("ants", "march")
    row = Decomposition("r", "ants march", (one,), "accepted", None, "m", "1")
    assert read_components(components_frame([row])) == {"r": (one,)}


def test_modules_load_without_the_client_templates_or_torch() -> None:
    code = (
        "import sys; import hoi_assets.detailscribe.craft, hoi_assets.detailscribe.decompose;"
        "import hoi_assets.detailscribe.baseline_images, hoi_assets.detailscribe.refined_images;"
        "print([m for m in ('openai', 'jinja2', 'torch', 'dagster') if m in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert found.stdout.strip() == "[]"
