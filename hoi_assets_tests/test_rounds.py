"""`hoi round` and the job of the same purpose, on small random models."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from hoi_assets.cli.main import main
from hoi_assets.defs.all_definitions import all_definitions
from hoi_assets.defs.project import load_project
from hoi_assets.publishing.execution import execute
from hoi_assets.store.versions import Store
from hoi_assets_tests.engines.small_judges import make_clip, make_examiner, make_vilt
from hoi_assets_tests.engines.small_sdxl import make_sdxl
from hoi_assets_tests.pipeline_fixture import write_profile

pytestmark = pytest.mark.timeout(1800)

CATEGORY = "index_press"
PPV = ("detailed_prompts", "instance_images", "category_loras", "candidate_images")
# Of the tiny profile, as they were before there were rounds.
BEFORE = {
    ("detailed_prompts", "index_press"): "a7430cdd0bb82ad6",
    ("detailed_prompts", "worn"): "98003bb22c8636f7",
    ("instance_images", "index_press"): "9bb56207dfc7297b",
    ("instance_images", "worn"): "b1b91d515db79782",
}


@dataclass(frozen=True)
class Home:
    path: Path
    profile: Path

    @property
    def store(self) -> Store:
        return Store(self.path)

    def rows(
        self, asset: str, table: str = "rows", partition: str | None = CATEGORY
    ) -> pl.DataFrame:
        return self.store.require(asset, partition).table(table)

    def versions(self) -> dict[str, str]:
        return {one.name: one.version for one in self.store.all_current()}

    def run(self, *arguments: str) -> int:
        """`hoi` in this process."""
        return main(arguments)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    folder = tmp_path_factory.mktemp("rounds")
    make_sdxl(folder / "sdxl")
    models = {
        "base": {"source": str(folder / "sdxl")},
        "verifier": {"source": str(make_vilt(folder / "vilt"))},
        "clip": {"source": str(make_clip(folder / "clip"))},
        "examiner": {"source": str(make_examiner(folder / "examiner"))},
    }
    profile = write_profile(
        folder,
        models=models,
        sampling={"width": 64, "height": 64, "num_inference_steps": 2, "batch_size": 8},
        lora={"max_train_steps": 2, "num_class_images": 2},
        # More than random models reach: all is rejected, so a LoRA is asked for.
        verifier={"target_precision": 0.4},
        rounds={
            "prompts": 3,
            "min_accepted_share": 1.0,
            "instance_images": 2,
            "guard_prompts": 3,
            "guard_margin": 2.5,
        },
    )
    before = dict(os.environ)
    os.environ |= {"HOI_HOME": str(folder / "home"), "HOI_PROFILE": str(profile)}
    os.environ.pop("DAGSTER_HOME", None)
    yield Home(folder / "home", profile)
    os.environ.clear()
    os.environ |= before


@pytest.fixture(scope="module")
def three(home: Home) -> list[dict[str, str]]:
    """Versions in force after the first pass and after each of two rounds."""
    found = []
    for _ in range(3):
        assert home.run("round", CATEGORY) == 0
        found.append(home.versions())
    return found


def test_the_tiny_profile_publishes_what_it_did_before_there_were_rounds(tmp_path: Path) -> None:
    project = load_project("tiny", tmp_path / "home")
    platform, graph = project.platform, project.graph

    def published(asset: str, key: str | None) -> str:
        stage = graph[asset]
        context = graph.context(stage, key, platform.settings, platform.store, log=lambda _: None)
        done = execute(graph, stage, context).published
        assert done is not None
        return done.version

    published("base_prompt_taxonomy", None)
    for (asset, key), version in BEFORE.items():
        assert published(asset, key) == version
    for _, key in BEFORE:
        published("round_plan", key)
        assert platform.store.require("round_plan", key).table("rows").is_empty()
    for (asset, key), version in BEFORE.items():
        assert published(asset, key) == version


def test_the_first_pass_is_round_0_and_asks_for_nothing(
    home: Home, three: list[dict[str, str]]
) -> None:
    plan = home.store.version("round_plan", CATEGORY, three[0][f"round_plan/{CATEGORY}"])
    assert all(table.is_empty() for table in map(pl.read_parquet, plan.tables()))


def test_a_round_keeps_what_was_drawn_and_adds_what_it_asked_for(
    home: Home, three: list[dict[str, str]]
) -> None:
    place = f"candidate_images/{CATEGORY}"
    tables = [
        home.store.version("candidate_images", CATEGORY, one[place]).table("rows") for one in three
    ]
    ids = [table["image_id"].to_list() for table in tables]
    for before, after in pairwise(ids):
        assert after[: len(before)] == before and len(after) > len(before)
    assert tables[2].head(len(ids[0]))["pixels"].equals(tables[0]["pixels"])
    judged = home.rows("verified_pairs")
    assert judged["image_id"].to_list() == ids[2]
    asked = home.rows("round_plan", "prompts")
    assert asked["round"].to_list() == [1, 1, 1, 2, 2, 2]


def test_a_round_draws_with_the_lora_that_its_guard_took(
    home: Home, three: list[dict[str, str]]
) -> None:
    loras = home.rows("category_loras", "rounds")
    assert loras["taken"].to_list() == [None, True, True]
    assert loras["instance_images"].to_list() == [4, 6, 8]
    digests = loras["lora_digest"].to_list()
    assert len(set(digests)) == 3
    drawn = home.rows("candidate_images").join(
        home.rows("detailed_prompts").select("prompt_id", "index"), on="prompt_id"
    )
    for number, digest in enumerate(digests):
        own = drawn.filter(pl.col("index") // 1000 == number)
        assert own["lora_digest"].unique().to_list() == [digest]
    published = home.store.require("category_loras", CATEGORY)
    for digest in digests[:2]:
        assert published.file(f"earlier/{digest}").is_dir()


def test_scores_of_a_round_count_every_candidate_once(
    home: Home, three: list[dict[str, str]]
) -> None:
    scores = home.rows("round_scorecards", partition=None)
    own = scores.filter(category=CATEGORY).sort("round")
    judged = home.rows("verified_pairs")
    assert own["round"].to_list() == [0, 1, 2]
    assert own["drawn"].sum() == judged.height
    assert own["accepted"].sum() == judged.filter(pl.col("status") == "accepted").height
    assert own["right"].null_count() == 0 and own["covered"].is_sorted()
    steps, both_sides = 2, 2
    first = own.row(0, named=True)
    assert first["denoiser_evaluations"] == first["drawn"] * steps * both_sides
    guard = (3 + 3) * 2 * steps * both_sides
    second = own.row(1, named=True)
    assert second["denoiser_evaluations"] == second["drawn"] * steps * both_sides + guard


def test_what_a_round_made_is_fresh_and_an_ordinary_run_asks_for_no_other(
    home: Home, three: list[dict[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    project = load_project(str(home.profile), home.path)
    from hoi_assets.publishing.staleness import status

    places = [(asset, CATEGORY) for asset in ("round_plan", *PPV, "verified_pairs")]
    found = status(project.graph, project.platform.settings, project.platform.store, places)
    assert {one.asset: (one.state, one.reasons) for one in found} == {
        asset: ("fresh", ()) for asset, _ in places
    }
    assert home.run("summary") == 0
    printed = capsys.readouterr().out
    assert "slices covered" in printed and CATEGORY in printed


def test_a_worse_lora_is_refused_and_the_round_goes_on_with_the_one_before(
    home: Home, three: list[dict[str, str]]
) -> None:
    text = home.profile.read_text(encoding="utf-8")
    # No loss at all is allowed, on many prompts whose scores differ by chance.
    strict = text.replace("guard_margin: 2.5", "guard_margin: 0")
    strict = strict.replace("guard_prompts: 3", "guard_prompts: 12")
    home.profile.write_text(strict, encoding="utf-8")
    try:
        assert home.run("round", CATEGORY) == 0
    finally:
        home.profile.write_text(text, encoding="utf-8")
    loras = home.rows("category_loras", "rounds").sort("round")
    last = loras.row(-1, named=True)
    assert last["round"] == 3 and last["trained"] and last["taken"] is False
    assert min(last["general_low"], last["others_low"]) < 0
    assert last["lora_digest"] == loras["lora_digest"][2] != last["trained_digest"]
    assert home.rows("category_loras", "summary")["lora_digest"][0] == last["lora_digest"]


def test_a_scenario_has_no_rounds(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert home.run("round", "functional") != 0
    assert "name hand poses" in capsys.readouterr().err


def test_the_job_is_there_with_its_description(home: Home) -> None:
    definitions = all_definitions(load_project(str(home.profile), home.path))
    job = definitions.resolve_job_def("ppv_round")
    assert isinstance(job, dg.JobDefinition) and "round" in (job.description or "")
