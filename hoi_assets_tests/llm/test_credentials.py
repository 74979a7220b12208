"""A key reaches the endpoint and nothing else: no message, log, event, table or file holds it."""

import base64
import json
import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import dagster as dg
import pytest
from pydantic import ValidationError

from hoi_assets.defs.ppv.prompts import base_prompt_taxonomy, detailed_prompts
from hoi_assets.defs.ppv.rounds import round_plan
from hoi_assets.defs.project import load_project
from hoi_assets.defs.resources import PlatformResource
from hoi_assets.detailscribe.baselines.rewriter import EndpointRewriter, rewrite_prompts
from hoi_assets.errors import HoiError
from hoi_assets.llm.credentials import Redactor
from hoi_assets.llm.retry import EndpointError
from hoi_assets.publishing.asset import bind
from hoi_assets.publishing.graph import own_inputs
from hoi_assets.settings import Prompter, load_settings
from hoi_assets.settings import Rewriter as RewriterSettings
from hoi_assets.settings.endpoint_address import EndpointAddress
from hoi_assets.store.ledger import Ledger
from hoi_assets_tests.llm.chat_server import KEY, Answer
from hoi_assets_tests.llm.colours import Serve, ask, good
from hoi_assets_tests.pipeline_fixture import write_profile

IN_URL = "canary/in+url=0123456789"
STATUSES = (401, 403, 404, 400, 500)


def error(message: str, status: int) -> Answer:
    return Answer(status=status, body=json.dumps({"error": {"message": message}}))


def all_bytes(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.slow
def test_no_byte_of_dagsters_instance_or_of_the_home_holds_a_key_that_the_server_repeats(
    serve: Serve, tmp_path: Path
) -> None:
    server = serve(lambda request, number: error(f"key {KEY}, {IN_URL}", STATUSES[number]))
    url = f"{server.url}?api-key={quote(IN_URL, safe='')}"
    endpoint = {"endpoint": url, "model": "m", "max_attempts": 1}
    home, dagster_home = tmp_path / "home", tmp_path / "dagster"
    platform = PlatformResource(
        profile=str(write_profile(tmp_path, prompter=endpoint)), home=str(home)
    )
    line = [base_prompt_taxonomy, round_plan, detailed_prompts]
    _, (taxonomy, _, prompts) = bind(line, platform.settings)
    dagster_home.mkdir()
    with dg.DagsterInstance.local_temp(str(dagster_home)) as instance:
        more = {"instance": instance, "resources": {"platform": platform}}
        dg.materialize([taxonomy], **more)
        for _ in STATUSES[:3]:
            result = dg.materialize(
                [taxonomy, prompts],
                selection=[prompts],
                partition_key="power_sphere",
                raise_on_error=False,
                **more,
            )
            assert not result.success
        failures = [event for event in result.all_events if event.is_step_failure]
        assert failures[0].step_failure_data.error_source is not None
    assert len(server.requests) == 3
    stored = all_bytes(dagster_home) + all_bytes(home)
    assert b"detailed_prompts" in stored and b"api-key=***" in stored
    for secret in (KEY, IN_URL, quote(IN_URL, safe="")):
        assert secret.encode() not in stored


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize(
    "form", [str, lambda key: quote(key, safe=""), lambda key: f"{key[:-3]}...", repr, json.dumps]
)
def test_an_error_has_no_cause_and_masks_the_key_however_it_is_written(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, status: int, form: "type[str]"
) -> None:
    key = 'sk-a/b"c\\d+e=0123456789'
    monkeypatch.setenv("HOI_API_KEY", key)
    server = serve(lambda request, number: error(f"bad key {form(key)}!", status))
    if status == 400:
        said = ask(server.url, 1, max_attempts=1).replies[0].reason or ""
    else:
        with pytest.raises(EndpointError) as caught:
            ask(server.url, 1, max_attempts=1)
        assert caught.value.__cause__ is None and caught.value.__context__ is None
        said = str(caught.value)
    assert "bad key" in said and "***" in said
    assert "0123456789" not in said and "sk-a" not in said


@pytest.mark.parametrize(
    ("login", "path", "secret"),
    [
        ("", "?api-key=canary-0123456789", "canary-0123456789"),
        ("", "?api-version=2024-10-21&code=canary-0123456789", "canary-0123456789"),
        ("user:canary-0123456789@", "", "canary-0123456789"),
        ("canary-0123456789@", "", "canary-0123456789"),
        ("", "/sk-canary0123456789", "sk-canary0123456789"),
    ],
)
def test_credentials_of_the_url_are_sent_and_nowhere_shown(
    serve: Serve,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    login: str,
    path: str,
    secret: str,
) -> None:
    server = serve(lambda request, number: error(secret, 400) if number else good(request, number))
    url = server.url.replace("http://", f"http://{login}") + path
    ledger = Ledger(tmp_path / "ledger.sqlite")
    with caplog.at_level(logging.DEBUG):
        asked = ask(url, ledger=ledger)
    assert asked.codes == ["ok", "refused"]
    ledger.close()
    expected = f"/v1{path if path[:1] == '/' else ''}/chat/completions"
    assert server.requests[0]["path"] == expected + (path if path[:1] == "?" else "")
    user = base64.b64encode((login[:-1] if ":" in login else f"{login[:-1]}:").encode()).decode()
    assert server.keys[0] == (f"Basic {user}" if login else f"Bearer {KEY}")
    shown = repr(asked) + caplog.text
    server.http.server_close()
    server.close()
    with pytest.raises(EndpointError) as caught:
        ask(url, 1, max_attempts=1)
    shown += str(caught.value)
    assert secret not in shown and not (login and user in shown)
    assert secret.encode() not in all_bytes(tmp_path)
    if "api-version" in path:
        assert "api-version=2024-10-21&code=***" in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["user:hunter2@host/v1", "htp://user:hunter2@host", "http://user:hunter2@[x/v1", "x?k=hunter2"],
)
def test_an_endpoint_that_is_no_url_is_refused_with_its_line_and_without_its_password(
    tmp_path: Path, url: str
) -> None:
    profile = write_profile(tmp_path, prompter={"endpoint": url, "model": "m"})
    with pytest.raises(
        HoiError, match=r"small\.yaml:\d+: prompter.endpoint: .* is not a URL"
    ) as error:
        load_settings(str(profile))
    assert "hunter2" not in str(error.value) and error.value.__cause__ is None
    assert str(error.value).count("small.yaml:") == 1
    with pytest.raises(ValidationError) as invalid:
        Prompter(endpoint=url)
    assert "hunter2" not in str(invalid.value)


@pytest.mark.parametrize(
    "with_key",
    [
        lambda url, key: f"{url}?api-version=1&api-key={key}",
        lambda url, key: url.replace("http://", f"http://user:{key}@"),
        lambda url, key: f"{url}/sk-{key}",
    ],
    ids=["query", "login", "path"],
)
def test_another_key_in_the_url_is_sent_and_changes_no_version_and_no_cache_key(
    serve: Serve, tmp_path: Path, with_key: Callable[[str, str], str]
) -> None:
    server = serve(good)
    keys = ("canary-0123456789", "canary-9876543210")
    ledger = Ledger(tmp_path / "ledger.sqlite")
    inputs, stages = [], load_project(home=tmp_path / "home").graph.stages
    for key in keys:
        endpoint = {"endpoint": with_key(server.url, key), "model": "m"}
        endpoints = {name: endpoint for name in ("prompter", "decomposer", "rewriter", "critic")}
        endpoints |= {"judge": endpoint, "image_endpoint": endpoint}
        settings = load_settings(str(write_profile(tmp_path, **endpoints)))
        inputs.append([own_inputs(stage, settings) for stage in stages])
        shown = repr(settings) + str(settings) + settings.model_dump_json()
        assert key not in shown + repr(settings.model_dump()) and "127.0.0.1" in shown
        # A setting crosses to other processes whole.
        sent = pickle.loads(pickle.dumps(settings.prompter.endpoint))
        assert sent == settings.prompter.endpoint and any(key in one for one in sent.secrets)
        assert ask(endpoint["endpoint"], ledger=ledger).codes == ["ok", "ok"]
    assert inputs[0] == inputs[1]
    assert len(server.requests) == 2  # the second key found the first one's replies
    ask(endpoint["endpoint"], 1)
    ledger.close()
    path, header = server.requests[-1]["path"], server.keys[-1]
    assert keys[1] in path or keys[1] in base64.b64decode(header.split()[1]).decode()
    assert not any(key.encode() in all_bytes(tmp_path / "home") for key in keys)


def test_a_key_that_the_model_repeats_in_its_answer_is_not_stored(
    serve: Serve, tmp_path: Path
) -> None:
    text = json.dumps({"prompt": f"A hand holds {KEY}."})
    server = serve(lambda request, number: Answer(text, model=f"m {KEY}"))
    ledger = Ledger(tmp_path / "ledger.sqlite")
    rewriter = EndpointRewriter(RewriterSettings(endpoint=server.url, model="m"))
    logged: list[str] = []
    rewritten = rewrite_prompts(["A hand."], rewriter, ledger, logged.append)
    assert rewritten["A hand."].value == "A hand holds ***."
    assert any("was requested" in line for line in logged)
    ledger.close()
    assert KEY not in repr((rewritten, logged)) and KEY.encode() not in all_bytes(tmp_path)


def test_a_placeholder_as_key_does_not_touch_replies(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOI_API_KEY", "red")
    assert ask(serve(good).url, 1).codes == ["ok"]


def test_a_key_that_no_header_can_hold_is_refused_without_showing_it(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOI_API_KEY", "sk-0123\nabcdefgh\u2026")
    with pytest.raises(HoiError, match="HOI_API_KEY") as caught:
        ask(serve(good).url)
    assert "abcdefgh" not in str(caught.value)


@pytest.mark.parametrize("user", ["b", "bo", "bob"])
def test_the_header_of_a_login_is_masked_whatever_the_users_name(user: str) -> None:
    address = EndpointAddress.parse(f"https://{user}:pw-0123456789abcdef@host/v1")
    header = address.headers["Authorization"]
    said = Redactor(address.secrets).redact(f"you sent Authorization: {header}")
    assert header.removeprefix("Basic ") not in said and "pw-0123456789" not in said
