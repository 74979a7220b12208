"""`hoi rate` from end to end: published pictures, a served page, votes, the asset, the labels."""

import json
import sys
import urllib.request
from pathlib import Path
from typing import Any, get_args

import dagster as dg
import pytest

from hoi_assets.cli import rate
from hoi_assets.cli.exit_codes import ExitCode
from hoi_assets.cli.main import main
from hoi_assets.defs.evaluation.human_ratings import human_ratings
from hoi_assets.defs.ppv.prompts import base_prompt_taxonomy
from hoi_assets.defs.ppv.verification import verifier_training_pairs
from hoi_assets.publishing.asset import bind
from hoi_assets.publishing.execution import Execution, execute
from hoi_assets.rating import page
from hoi_assets.rating.published_images import SUITES as PICTURE_SUITES
from hoi_assets.rating.study import read_study, study_folder
from hoi_assets.settings import Settings, load_settings
from hoi_assets.store.versions import Store
from hoi_assets_tests.rating.published import publish_candidates, small_store
from hoi_assets_tests.rating.server import Server

RATERS = ("anna", "ben")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOI_PROFILE", "tiny")
    return tmp_path / "home"


def executed(
    asset: dg.AssetsDefinition, store: Store, settings: Settings, *parents: dg.AssetsDefinition
) -> Execution:
    graph, _ = bind([asset, *parents], settings)
    for stage in graph.stages:
        execution = execute(graph, stage, graph.context(stage, None, settings, store))
    return execution


def few_samples() -> Settings:
    settings = load_settings()
    few = settings.evaluation.model_copy(update={"bootstrap_samples": 100})
    return settings.model_copy(update={"evaluation": few})


def serve(name: str) -> Server:
    command = (sys.executable, "-m", "hoi_assets.cli.main", "rate", "serve", name, "--port")
    return Server(study_folder(Path(), name), command)


def ask(url: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    data = None if body is None else json.dumps(body).encode("utf-8")
    with urllib.request.urlopen(urllib.request.Request(url, data), timeout=30) as reply:
        return dict(json.loads(reply.read()))


def links_of(name: str, url: str, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    capsys.readouterr()
    assert main(["rate", "links", name, *RATERS, "--url", url]) == 0
    return dict(line.split("  ") for line in capsys.readouterr().out.splitlines())


def vote_all(link: str, choose: Any, most: int | None = None) -> int:
    """Answer what is asked until all is answered, or `most`; returns how many were."""
    state, given = ask(f"{link}state"), 0
    while state["now"] and given != most:
        now = state["now"]
        answer = choose(now)
        body = {"place": now["place"], "question": now["question"], "answer": answer}
        state, given = ask(f"{link}votes", body), given + 1
    return given


def test_votes_of_two_raters_outlive_a_kill_and_become_the_asset(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = small_store(home)
    make = ["rate", "make", "which", "--suite", "interacting", "--mode", "pairwise"]
    assert main([*make, "--methods", "detailscribe,plain", "--seed", "4"]) == 0
    study = read_study(study_folder(home, "which"))
    assert len(study.items) == 3
    server = serve("which")
    try:
        links = links_of("which", server.url, capsys)
        assert vote_all(links["anna"], lambda _: "left", most=2) == 2
        assert vote_all(links["ben"], lambda _: "tie") == 3
        server.kill()
        assert main(["rate", "status"]) == 0
        said = capsys.readouterr().out
        assert "anna  2 of 3 answers" in said and "ben  3 of 3 answers" in said
        server.start()
        assert vote_all(links["anna"], lambda _: "left") == 1
        # A second thought: the first answer stays as history.
        ask(f"{links['anna']}votes", {"place": 1, "question": "better", "answer": "right"})
    finally:
        server.kill()

    outcome = executed(human_ratings, store, few_samples())
    assert outcome.published is not None and outcome.gate.passed
    rows = outcome.published.table("rows")
    assert rows.group_by("rater", "status").len().sort("rater", "status").rows() == [
        ("anna", "accepted", 3),
        ("anna", "rejected", 1),
        ("ben", "accepted", 3),
    ]
    assert set(rows["suite"]) == {"interacting"} and set(rows["scenario"]) == {"functional"}
    (old,) = rows.filter(status="rejected").to_dicts()
    assert old["reason"] == "superseded by line 7"
    wins = outcome.published.table("wins").filter(slice_kind="all")
    anna = rows.filter(status="accepted", rater="anna").to_dicts()
    won = [row["method_a" if row["choice"] == "a" else "method_b"] for row in anna]
    for row in wins.to_dicts():
        assert (row["n"], row["wins"], row["ties"]) == (6, won.count(row["method"]), 3)
    (study_row,) = outcome.published.table("studies").to_dicts()
    assert (study_row["raters"], study_row["votes"], study_row["rejected"]) == (2, 6, 1)
    agreement = outcome.published.table("agreement")
    assert agreement.filter(measure="krippendorff_alpha")["n"].to_list() == [3]
    assert store.ledger.rows("human_ratings").height == 8  # seven lines of votes and the study

    again = executed(human_ratings, store, few_samples())
    assert again.unchanged and again.published is not None
    assert again.published.version == outcome.published.version


def test_without_a_vote_the_asset_is_empty_tables_and_says_so(home: Path) -> None:
    outcome = executed(human_ratings, Store(home), few_samples())
    assert outcome.published is not None and not outcome.gate.broken
    for name in ("rows", "studies", "equal", "ratings", "wins", "head_to_head", "agreement"):
        assert outcome.published.table(name).height == 0
    assert "hoi rate make" in outcome.metadata["note"]["value"]


def test_damaged_study_is_a_warning_and_keeps_no_other_back(home: Path) -> None:
    store = small_store(home)
    for name in ("fine", "torn"):
        assert main(["rate", "make", name, "--suite", "hoi", "--prompts", "1"]) == 0
    (study_folder(home, "torn") / "study.json").write_text("{", encoding="utf-8")
    outcome = executed(human_ratings, store, few_samples())
    assert outcome.published is not None and outcome.gate.passed and outcome.gate.broken
    states = outcome.published.table("studies").select("study", "status").rows()
    assert states == [("fine", "accepted"), ("torn", "failed")]


def test_labels_given_on_the_page_are_what_the_verifier_learns_from(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from starlette.testclient import TestClient

    prompts = 24
    store = Store(home)
    publish_candidates(store, prompts)
    assert main(["rate", "make", "labels", "--suite", "labels"]) == 0
    study = read_study(study_folder(home, "labels"))
    assert study.mode == "verify"
    link = links_of("labels", "http://testserver", capsys)["anna"]
    desk = page.Desk(study_folder(home, "labels"))
    client = TestClient(page.build_app(desk))
    state = client.get(f"{link}state").json()
    while state["now"]:
        now = state["now"]
        said = {
            "fidelity": int(now["prompt"].split()[-1]) % 2,
            "fault": "floating@500,250",
            "alignment": now["place"] % 2,
        }
        question = now["question"]
        body = {"place": now["place"], "question": question, "answer": said[question]}
        state = client.post(f"{link}votes", json=body).json()
    desk.close()
    out = tmp_path / "people's labels"
    assert main(["rate", "labels", "labels", "--out", str(out)]) == 0
    assert f"verifier.labels_folder to {out}" in capsys.readouterr().out

    settings = few_samples()
    named = settings.verifier.model_copy(update={"labels_folder": str(out)})
    settings = settings.model_copy(update={"verifier": named})
    outcome = executed(verifier_training_pairs, store, settings, base_prompt_taxonomy)
    assert outcome.published is not None
    rows = outcome.published.table("rows")
    assert rows.height == prompts and set(rows["category"]) == {"hook"}
    drawn = {item.prompt: item.pictures[0].image for item in study.items}
    for row in rows.iter_rows(named=True):
        assert row["pixels"] == drawn[row["prompt"]]
        assert row["fidelity"] == bool(int(row["prompt"].split()[-1]) % 2)
        assert row["defects"] == ([] if row["fidelity"] else ["floating"])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["make", "a/b", "--suite", "hoi"], "'a/b' is not a name for a study"),
        (["make", "a", "--suite", "hoi"], "no picture of suite 'hoi' is published"),
        (["links", "a", "anna"], "no study at"),
        (["serve", "a"], "no study at"),
        (["status", "a"], "no study at"),
        (["labels", "a", "--out", "x"], "no study at"),
    ],
)
def test_mistakes_are_named(
    home: Path, arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rate", *arguments]) == ExitCode.USER_ERROR
    assert capsys.readouterr().err.startswith(f"error: {told}")


def test_command_line_names_what_the_modules_hold() -> None:
    assert (rate.HOST, rate.PORT) == (page.HOST, page.PORT)
    assert get_args(rate.Suite) == PICTURE_SUITES
