"""Both pipelines on the stored weights: every promise of the README's tour."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
import yaml

from hoi_assets.defs.project import load_project
from hoi_assets.settings import ROOT
from hoi_assets.store.versions import Store
from hoi_assets_tests.llm.chat_server import Answer, Server
from hoi_assets_tests.pipeline_fixture import (
    CATEGORIES,
    SCENARIO,
    environment,
    hoi,
    materialize,
    settings_of,
    write_profile,
)
from proofs.running import execute

pytestmark = pytest.mark.timeout(1800)

PARTITIONED = (
    "round_plan",
    "detailed_prompts",
    "instance_images",
    "category_loras",
    "candidate_images",
    "verified_pairs",
    "hoi_evaluation_images",
)
PER_SCENARIO = (
    "interacting_prompts",
    "interaction_decompositions",
    "initial_images",
    "image_critiques",
    "refined_images",
    "baseline_images",
)
WHOLE = (
    "base_prompt_taxonomy",
    "verifier_training_pairs",
    "verifier",
    "hoi_dataset",
    "finetuned_model",
    "human_ratings",
    "hoi_scorecards",
    "interacting_scorecards",
    "round_scorecards",
    "evaluation_report",
)


@dataclass(frozen=True)
class Made:
    home: Path
    profile: Path
    printed: str

    @property
    def store(self) -> Store:
        return Store(self.home)

    def versions(self) -> dict[str, str]:
        return {one.name: one.version for one in self.store.all_current()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("pipelines")
    profile = write_profile(folder)
    home = folder / "home with a space"
    return Made(home, profile, hoi(home, profile, "run", *CATEGORIES, SCENARIO))


@pytest.fixture
def copied(made: Made, tmp_path: Path) -> Made:
    """A copy of the home, to be changed."""
    home = tmp_path / "home"
    shutil.copytree(made.home, home, symlinks=True)
    return Made(home, made.profile, "")


def test_every_asset_is_published_for_the_categories_asked(made: Made) -> None:
    wanted = {f"{asset}/{category}" for asset in PARTITIONED for category in CATEGORIES}
    wanted |= {f"{asset}/{SCENARIO}" for asset in PER_SCENARIO}
    assert set(made.versions()) == wanted | set(WHOLE)


def test_run_says_counts_scores_and_where_things_are(made: Made) -> None:
    cost = ("denoiser evaluations (NFE) a prompt", "seconds a prompt")
    for words in ("accepted", "rejected", *cost, "report.html", "load_dataset", "make ui"):
        assert words in made.printed


def test_every_version_is_what_its_hash_says(made: Made) -> None:
    for published in made.store.all_current():
        published.verify()


def test_no_candidate_vanishes_on_the_way_to_the_dataset(made: Made) -> None:
    for category in CATEGORIES:
        drawn = made.store.require("candidate_images", category).table("rows")
        judged = made.store.require("verified_pairs", category).table("rows")
        assert drawn["image_id"].to_list() == judged["image_id"].to_list()
        assert judged.filter(pl.col("status") != "accepted")["reason"].null_count() == 0
    accepted = pl.concat(
        [made.store.require("verified_pairs", category).table("rows") for category in CATEGORIES]
    ).filter(pl.col("status") == "accepted")
    packed = made.store.require("hoi_dataset").table("rows")
    assert set(packed["image_id"]) == set(accepted["image_id"])


def test_dataset_opens_with_the_datasets_library(made: Made, tmp_path: Path) -> None:
    import datasets

    folder = made.store.require("hoi_dataset").file("dataset")
    opened = datasets.load_dataset(str(folder), cache_dir=str(tmp_path))
    row = opened["train"][0]
    assert row["image"].size == (128, 128)
    assert row["category"] in CATEGORIES
    texts = {name: set(split["base_prompt_id"]) for name, split in opened.items()}
    for name, ids in texts.items():
        assert not ids & set().union(*(other for key, other in texts.items() if key != name))


def test_lora_opens_in_plain_diffusers_with_identical_pixels(made: Made) -> None:
    import torch
    from diffusers import DPMSolverMultistepScheduler, StableDiffusionXLPipeline

    from hoi_assets.hashing import digest_pixels

    settings = settings_of(made.profile)
    rows = made.store.require("candidate_images", CATEGORIES[0]).table("rows")
    row = rows.row(0, named=True)
    torch.set_num_threads(row["threads"])
    pipe = StableDiffusionXLPipeline.from_pretrained(
        settings.models.base.folder, dtype=torch.float32, add_watermarker=False
    )
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(
        pipe.scheduler.config, algorithm_type="dpmsolver++", solver_order=2
    )
    pipe.set_progress_bar_config(disable=True)
    pipe.load_lora_weights(str(made.store.require("category_loras", CATEGORIES[0]).file("lora")))
    batch = row["batch_size"]
    side = row["height"] // pipe.vae_scale_factor
    latents = torch.cat(
        [
            torch.randn(
                (1, pipe.unet.config.in_channels, side, side),
                generator=torch.Generator().manual_seed(row["seed"]),
            )
        ]
        * batch
    )
    embeds, negative, pooled, negative_pooled = pipe.encode_prompt(row["drawn_prompt"])
    image = pipe(
        prompt_embeds=embeds.repeat(batch, 1, 1),
        negative_prompt_embeds=negative.repeat(batch, 1, 1),
        pooled_prompt_embeds=pooled.repeat(batch, 1),
        negative_pooled_prompt_embeds=negative_pooled.repeat(batch, 1),
        latents=latents,
        num_inference_steps=row["num_inference_steps"],
        guidance_scale=row["guidance_scale"],
        width=row["width"],
        height=row["height"],
    ).images[row["slot"]]
    assert digest_pixels(image) == row["pixels"]


def test_replay_draws_the_same_pixels_alone(made: Made) -> None:
    row = made.store.require("candidate_images", CATEGORIES[1]).table("rows").row(-1, named=True)
    assert "equal" in hoi(made.home, made.profile, "replay", row["image_id"])


def test_trace_tells_prompt_verdict_and_reason_of_a_dropped_image(made: Made) -> None:
    verdicts = pl.concat(
        [made.store.require("verified_pairs", category).table("rows") for category in CATEGORIES]
    )
    for status in verdicts["status"].unique():
        row = verdicts.filter(pl.col("status") == status).row(0, named=True)
        told = hoi(made.home, made.profile, "trace", row["image_id"])
        for words in (row["prompt"], row["status"], row["verifier_version"]):
            assert words in told
        assert row["reason"] is None or row["reason"] in told


def test_sql_reads_the_catalogue_and_refuses_to_write(made: Made) -> None:
    told = hoi(made.home, made.profile, "sql", "select count(*) as n from candidate_images")
    counted = sum(
        made.store.require("candidate_images", category).table("rows").height
        for category in CATEGORIES
    )
    assert str(counted) in told
    refused = hoi(made.home, made.profile, "sql", "drop table candidate_images", check=False)
    assert "read-only" in refused or "read only" in refused


def test_report_needs_nothing_beside_it(made: Made) -> None:
    published = made.store.require("evaluation_report")
    summary = published.table("summary").row(0, named=True)
    assert summary["external_references"] == 0
    assert summary["pictures"] > 10
    html = published.file("report.html").read_text(encoding="utf-8")
    assert "http://" not in html and "https://" not in html


def test_nothing_is_made_twice(copied: Made) -> None:
    before, images = copied.versions(), _images(copied)
    printed = hoi(copied.home, copied.profile, "run", *CATEGORIES, SCENARIO)
    assert copied.versions() == before
    assert _images(copied) == images
    assert " made in " not in printed


def test_edited_base_prompt_redraws_its_own_rows_only(copied: Made, tmp_path: Path) -> None:
    taxonomy = tmp_path / "taxonomy"
    shutil.copytree(ROOT / "data" / "taxonomy", taxonomy)
    path = taxonomy / "categories" / f"{CATEGORIES[0]}.yaml"
    category = yaml.safe_load(path.read_text(encoding="utf-8"))
    old = category["base_prompts"][0]["text"]
    text = path.read_text(encoding="utf-8").replace(old, old + " today")
    path.write_text(text, encoding="utf-8")
    profile = write_profile(tmp_path, taxonomy=str(taxonomy))
    before = copied.store.require("candidate_images", CATEGORIES[0]).table("rows")
    materialize(copied.home, profile, "base_prompt_taxonomy")
    chain = "detailed_prompts,instance_images,category_loras,candidate_images"
    materialize(copied.home, profile, chain, CATEGORIES[0])
    after = copied.store.require("candidate_images", CATEGORIES[0]).table("rows")
    prompts = copied.store.require("detailed_prompts", CATEGORIES[0]).table("rows")
    new = set(after["image_id"]) - set(before["image_id"])
    edited = prompts.filter(pl.col("base_prompt") == old + " today")["prompt_id"]
    assert new
    assert set(after.filter(pl.col("image_id").is_in(list(new)))["prompt_id"]) <= set(edited)


def test_goal_is_drawn_for_within_its_budget_and_the_shortfall_is_told(
    copied: Made, tmp_path: Path
) -> None:
    profile = write_profile(tmp_path, candidates={"accepted_goal": 14, "budget": 14})
    materialize(copied.home, profile, "candidate_images,verified_pairs", CATEGORIES[0])
    drawn = copied.store.require("candidate_images", CATEGORIES[0]).table("rows")
    assert drawn.height == 14
    assert drawn["round"].to_list() == [0] * 12 + [1] * 2
    summary = copied.store.require("verified_pairs", CATEGORIES[0]).table("summary")
    row = summary.row(0, named=True)
    assert row["goal"] == 14
    assert row["shortfall"] == 14 - row["accepted"]


def test_lost_image_is_drawn_again_from_its_row(copied: Made) -> None:
    row = copied.store.require("candidate_images", CATEGORIES[0]).table("rows").row(0, named=True)
    copied.store.images.path(row["pixels"]).unlink()
    project = load_project(str(copied.profile), copied.home)
    with dg.DagsterInstance.ephemeral() as instance:
        assert execute(project, instance, "candidate_images", CATEGORIES[0], force=True).success
    assert copied.store.images.open(row["pixels"]).size == (row["width"], row["height"])


def test_killed_run_ends_with_the_hashes_of_an_unbroken_one(made: Made, tmp_path: Path) -> None:
    """Of one category and the verifier; `make prove` kills both pipelines at many instants."""
    home, key = tmp_path / "killed", CATEGORIES[0]
    for asset in ("category_loras", "verified_pairs"):
        _run_until(home, made.profile, key, _after(asset))
    hoi(home, made.profile, "run", key)
    expected, found = made.versions(), Made(home, made.profile, "").versions()
    # What is made of all categories has one less here.
    same = {name for name in expected if name.endswith(f"/{key}") or name.startswith("verifier")}
    same -= {f"hoi_evaluation_images/{key}"}
    assert len(same) == 8
    assert {name: found[name] for name in same} == {name: expected[name] for name in same}


def _images(made: Made) -> int:
    return sum(1 for _ in (made.home / "images").rglob("*.png"))


def _after(asset: str) -> Callable[[Path], bool]:
    return lambda home: any((home / "assets" / asset).glob("*/current.json"))


def _run_until(home: Path, profile: Path, key: str, stop: Callable[[Path], bool]) -> None:
    """Start a run and kill it, with all its children, as soon as `stop` says so."""
    process = subprocess.Popen(
        [sys.executable, "-m", "hoi_assets.cli.main", "run", key],
        cwd=ROOT,
        env=environment(home, profile),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 300
    while not stop(home) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert process.poll() is None, "the run ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_summary_is_json_for_scripts(made: Made) -> None:
    told = json.loads(hoi(made.home, made.profile, "summary", "--json"))
    assert {row["category"] for row in told["categories"]} == set(CATEGORIES)
    assert [row["scenario"] for row in told["scenarios"]] == [SCENARIO]


# --- DetailScribe ------------------------------------------------------------------------------


def test_variants_and_plain_pictures_of_the_benchmark_model_are_replayed(made: Made) -> None:
    table = made.store.require("refined_images", SCENARIO).table("rows")
    variants = table.filter(pl.col("switch_step") > 0)
    for image_id in (variants["image_id"][0], table["image_id"][0]):
        assert "all pixels are equal" in hoi(made.home, made.profile, "replay", image_id)


def test_trace_of_a_benchmark_image_tells_components_critique_and_choice(made: Made) -> None:
    row = made.store.require("initial_images", SCENARIO).table("rows").row(0, named=True)
    told = hoi(made.home, made.profile, "trace", row["image_id"])
    flat = made.store.require("interaction_decompositions", SCENARIO).table("rows")
    for words in (
        row["prompt"],
        flat["flat"][0],
        "image_critiques",
        "refined_images: detailscribe",
    ):
        assert words in told


def test_scorecards_hold_methods_with_selection_rule_and_compute(made: Made) -> None:
    hoi_card = made.store.require("hoi_scorecards").table("scorecard")
    assert set(hoi_card["suite"]) == {"hoi", "general"}
    card = made.store.require("interacting_scorecards").table("scorecard")
    assert set(card["suite"]) == {"interacting"}
    methods = {"plain", "multi_seed", "detailscribe", "detailscribe_oracle", "craft"}
    assert methods <= set(card["method"])
    wanted = {"clip_score", "image_reward", "component_accuracy", "examiner_components"}
    assert wanted <= set(card["metric"])
    assert card["compute"].str.contains(r"denoiser evaluations \(NFE\) a prompt").all()
    assert (card["selection_rule"] != "").all()


def test_report_shows_detailscribe(made: Made) -> None:
    html = made.store.require("evaluation_report").file("report.html").read_text("utf-8")
    for words in ("InterActing", "switch after 1", "detailscribe_oracle"):
        assert words in html


def test_a_judge_that_answers_prose_fails_that_picture_alone_and_is_asked_again(
    copied: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOI_API_KEY", "k")
    rating = json.dumps({"rating": 4, "shows": True})
    server = Server(
        lambda request, number: Answer("Lovely, five of five!" if number < 2 else rating)
    )
    judge = {"endpoint": server.url, "model": "m", "concurrency": 1, "max_attempts": 2}
    profile = write_profile(tmp_path, judge=judge)
    try:
        materialize(copied.home, profile, "interacting_scorecards")
        first = copied.store.require("interacting_scorecards")
        asked = len(server.requests)
        materialize(copied.home, profile, "interacting_scorecards")
    finally:
        server.close()
    ratings = first.table("ratings")
    (failed,) = ratings.filter(status="failed").to_dicts()
    assert failed["reason"].startswith("unusable_reply")
    assert (
        copied.store.ledger.rows(stage="interacting_scorecards").filter(status="failed").is_empty()
    )
    rated = first.table("scorecard").filter(metric="judge_rating", slice_kind="all")
    assert rated["missing"].sum() >= 1 and set(rated["mean"]) == {4.0}
    assert len(server.requests) == asked + 1
    again = copied.store.require("interacting_scorecards")
    assert again.version != first.version
    assert set(again.table("ratings")["status"]) == {"accepted"}


def test_votes_reach_the_scorecard_and_the_report(copied: Made) -> None:
    from hoi_assets.rating.study import read_study, showings, study_folder
    from hoi_assets.rating.votes import Vote, VoteFile, now

    options = ("--suite", "interacting", "--mode", "rating", "--methods", "plain,multi_seed")
    hoi(copied.home, copied.profile, "rate", "make", "small", *options)
    hoi(copied.home, copied.profile, "rate", "links", "small", "anna", "ben")
    folder = study_folder(copied.home, "small")
    study = read_study(folder)
    votes = VoteFile(folder)
    for rater in ("anna", "ben"):
        for shown in showings(study, rater):
            for question in study.questions:
                answer = 1 + len(question.key + rater + shown.item.item) % 5
                facts = (shown.item.item, shown.repeat, question.key, answer, shown.on_left)
                votes.add(Vote(now(), rater, *facts, shown.place))
    votes.close()
    hoi(copied.home, copied.profile, "run", SCENARIO)
    card = copied.store.require("interacting_scorecards").table("scorecard")
    people = card.filter(pl.col("metric").str.starts_with("human_rating"))
    assert set(people["method"]) == {"plain", "multi_seed"}
    assert people["missing"].sum() == 0
    html = copied.store.require("evaluation_report").file("report.html").read_text("utf-8")
    assert "Mean ratings" in html
