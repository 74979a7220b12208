"""`hoi doctor` asks every endpoint of the profile, and spends money on a picture only when told."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from hoi_assets.cli.exit_codes import ExitCode
from hoi_assets.cli.main import main
from hoi_assets.preflight.endpoints import ENDPOINT_SECTIONS, check_endpoints
from hoi_assets.preflight.findings import Finding
from hoi_assets.settings import Endpoint, Settings, load_settings
from hoi_assets_tests.llm.chat_server import KEY, Answer, Server
from hoi_assets_tests.llm.test_image_endpoint import GOOD, refused
from hoi_assets_tests.llm.test_yes_no import with_logprobs

MODEL, LIST = "an-image-model", "/v1/models"
Lister = Callable[[str | None], Answer]


def listing(*names: str) -> Answer:
    data = [{"id": name, "object": "model", "created": 0, "owned_by": "x"} for name in names]
    return Answer(body=json.dumps({"object": "list", "data": data}))


def locked(*names: str) -> Lister:
    """A list for those who have the key; others are told the key they came with."""

    def answer(authorization: str | None) -> Answer:
        if authorization == f"Bearer {KEY}":
            return listing(*names)
        return refused(f"Incorrect API key provided: {authorization}", status=401)

    return answer


@pytest.fixture
def server(chat_server: Any, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setenv("HOI_API_KEY", KEY)
    started: Server = chat_server(GOOD)
    return started


def settings(section: str, **options: Any) -> Settings:
    data = load_settings("tiny").model_dump()
    given = {"model": MODEL, "timeout_s": 5, **options}
    return Settings.model_validate(data | {section: (data[section] or {}) | given})


def image_finding(server: Server, draw: bool = False, **options: Any) -> Finding:
    own = settings("image_endpoint", endpoint=server.url, **options)
    (found,) = check_endpoints(own, ["image_endpoint"], draw)
    return found


def test_every_section_that_names_an_endpoint_is_checked() -> None:
    profile = settings("image_endpoint").model_dump()
    profile |= {"vqa_score": {"model": "m"}, "anatomy": {"model": "m"}}
    read = Settings.model_validate(profile)
    named = {name for name in Settings.model_fields if isinstance(getattr(read, name), Endpoint)}
    assert named == set(ENDPOINT_SECTIONS)


def test_image_model_is_looked_up_and_nothing_is_drawn(server: Server) -> None:
    server.files[LIST] = locked("a-chat-model", MODEL)
    found = image_finding(server, budget_usd=1.0, usd_per_image=0.04)
    assert (found.state, found.what) == (
        "ok",
        f"{MODEL} at {server.url}: listed; no picture was drawn",
    )
    assert not server.requests


@pytest.mark.parametrize(
    ("files", "options", "state", "what", "remedy"),
    [
        (locked("an-image-model-2"), {}, "problem", "lists 1 models", "hoi doctor --draw"),
        (lambda _: listing(MODEL), {}, "warning", "the key was not checked", "--draw"),
        (Answer(status=404), {"usd_per_image": 0.5}, "warning", "lists no models", "(0.5 USD)"),
        (Answer(status=405), {}, "warning", "lists no models", "usd_per_image is not set"),
        (Answer(status=429), {}, "warning", "is busy", "again later"),
        (Answer(status=500), {}, "problem", "status 500", "start the server"),
        (Answer(body="<html>"), {}, "problem", "malformed", "start the server"),
        (Answer(body='{"data": 3}'), {}, "problem", "malformed", "start the server"),
        (locked(MODEL), {"model": None}, "problem", "model is not set", "name the model"),
        (locked(MODEL), {"budget_usd": 1.0}, "problem", "a price of", "usd_per_image"),
    ],
)
def test_what_the_list_leaves_open_is_said(
    server: Server, files: Any, options: dict[str, Any], state: str, what: str, remedy: str
) -> None:
    server.files[LIST] = files
    found = image_finding(server, **options)
    assert found.state == state and what in found.what and remedy in (found.remedy or "")
    assert not server.requests


def test_refused_key_is_named_by_its_variable_and_masked(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = KEY[::-1]
    monkeypatch.setenv("HOI_API_KEY", wrong)
    server.files[LIST] = locked(MODEL)
    found = image_finding(server)
    assert found.state == "problem" and "answered 401" in found.what and "***" in found.what
    assert "HOI_API_KEY, which was sent" in (found.remedy or "")
    assert wrong not in f"{found}"


def test_dead_image_endpoint_is_a_problem(server: Server) -> None:
    server.close()
    found = image_finding(server)
    assert found.state == "problem" and "no_connection" in found.what


def test_picture_is_drawn_on_request_and_its_size_compared(server: Server) -> None:
    other = image_finding(server, draw=True, usd_per_image=0.04)
    assert other.state == "warning" and "drew 96x80 px" in other.what and "0.04 USD" in other.what
    assert image_finding(server, draw=True, size="96x80").state == "ok"
    assert [one["path"] for one in server.requests] == ["/v1/images/generations"] * 2
    assert not server.fetched


def test_refused_picture_is_a_problem(chat_server: Any) -> None:
    missing = chat_server(refused(f"no such model, and your key {KEY}", status=404))
    found = image_finding(missing, draw=True)
    assert found.state == "problem" and "answered 404" in found.what and len(missing.requests) == 1
    empty = image_finding(chat_server(Answer(body='{"data": [{}]}')), draw=True)
    assert empty.state == "problem" and "drew no picture: no_picture" in empty.what


@pytest.mark.parametrize(
    ("answer", "state", "what"),
    [
        (with_logprobs(Yes=0.9, No=0.1), "ok", "picture understood, logprobs given"),
        (with_logprobs(No=0.9, Yes=0.1), "problem", "P(yes, it is red) is 0.10"),
        ("Yes", "problem", "no_logprobs"),
    ],
)
def test_judge_of_probabilities_must_see_and_give_logprobs(
    chat_server: Any, answer: Any, state: str, what: str
) -> None:
    asked = chat_server(answer)
    (found,) = check_endpoints(settings("vqa_score", endpoint=asked.url), ["vqa_score"])
    assert found.state == state and what in found.what and len(asked.requests) == 1


def test_sections_share_a_call_only_where_it_is_the_same(chat_server: Any) -> None:
    asked = chat_server('{"answer": "red"}')
    same = {"endpoint": asked.url, "model": "m"}
    data = load_settings("tiny").model_dump()
    for section in ("prompter", "decomposer", "rewriter"):
        data[section] |= same
    data["rewriter"] |= {"extra_body": {"top_p": 0.5}}
    found = list(check_endpoints(Settings.model_validate(data), ["prompter", "decomposer"]))
    assert [one.state for one in found] == ["ok", "ok"] and len(asked.requests) == 1
    asked.behaviour = lambda request, number: (
        refused("unknown field top_p") if "top_p" in request else Answer('{"answer": "red"}')
    )
    states = {
        one.subject: one.state
        for one in check_endpoints(Settings.model_validate(data), ["decomposer", "rewriter"])
    }
    assert states == {"decomposer": "ok", "rewriter": "problem"}


def test_fault_of_a_shared_endpoint_is_told_once(chat_server: Any) -> None:
    dead = chat_server(Answer(status=401))
    data = load_settings("tiny").model_dump()
    for section in ("prompter", "decomposer"):
        data[section] |= {"endpoint": dead.url, "model": "m"}
    first, second = check_endpoints(Settings.model_validate(data), ["prompter", "decomposer"])
    assert first.state == second.state == "problem"
    said = ("same endpoint and model as prompter, same finding", "see prompter above")
    assert (second.what, second.remedy) == said


@pytest.mark.slow
def test_doctor_draws_only_when_told(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setenv("HOI_HOME", str(tmp_path / "home"))
    server.files[LIST] = locked("another")
    data = yaml.safe_load(Path("data/profiles/tiny.yaml").read_text("utf-8"))
    data["image_endpoint"] = {"endpoint": server.url, "model": MODEL, "size": "96x80"}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(data), "utf-8")
    command = ["doctor", "functional", "--profile", str(path)]
    assert main(command) == ExitCode.PROBLEM and not server.requests
    assert f"'{MODEL}' not among them: another" in capsys.readouterr().out
    assert main([*command, "--draw"]) == ExitCode.OK
    said = capsys.readouterr().out
    assert "drew 96x80 px in" in said and len(server.requests) == 1
    assert not (tmp_path / "home" / "images").exists() and KEY not in said
