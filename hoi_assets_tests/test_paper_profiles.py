"""The published protocols run as shipped to their scorecards, on small models and loopback."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
import yaml

from hoi_assets.defs.project import Project, load_project
from hoi_assets.detailscribe.benchmark import read_benchmark
from hoi_assets.evaluation.benchmark_scores import PUBLISHED_RULE
from hoi_assets.preflight.plan import plan_work
from hoi_assets.settings import PROFILES
from hoi_assets.taxonomy import load_taxonomy
from hoi_assets_tests.engines.small_judges import picture
from hoi_assets_tests.hub_models import make_hub_models
from hoi_assets_tests.llm.chat_server import Server
from hoi_assets_tests.paper_endpoint import answer, said, shown, wanted

SCENARIO, CATEGORY = "functional", "power_sphere"
ROWS, STEPS = 2, 6
FIRST_SEED, SECOND_SEED = 2628670643, 2628670647
TEMPLATES_OF_CRITIQUE = {"issues", "prompt"}
SMALL: dict[str, Any] = {
    "device": "cpu",
    "threads": 1,
    "evaluation": {
        "bootstrap_samples": 200,
        "images_per_prompt": 1,
        "hoi_prompts_per_category": 2,
        "general_prompts": 2,
    },
    # The small models draw noise and read few words.
    "gates": {
        "min_prompts": 1,
        "min_auc_fidelity": 0.0,
        "min_auc_alignment": 0.0,
        "min_accepted_share": 0.0,
        "max_accepted_share": 1.0,
        "min_accepted_per_category": 0,
        "min_dataset_rows": 1,
        "max_loss": 100.0,
        "max_failed_share": 1.0,
        "max_duplicate_share": 1.0,
        "min_pixel_std": 0.0,
        "warn_cut_share": 1.0,
        "max_cut_share": 1.0,
    },
}


@dataclass(frozen=True)
class Ran:
    project: Project
    server: Server

    def table(self, asset: str, partition: str | None = None, name: str = "rows") -> pl.DataFrame:
        return self.project.platform.store.require(asset, partition).table(name)

    def requests(self, *fields: str) -> list[dict[str, Any]]:
        """The requests whose replies have these fields."""
        return [one for one in self.server.requests if wanted(one) == set(fields)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return make_hub_models(tmp_path_factory.mktemp("hub"))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOI_API_KEY", "k")
        found = Server(answer)
        yield found
        found.close()


def small_profile(
    name: str, folder: Path, models: dict[str, str], server: Server, **own: Any
) -> Path:
    """The shipped profile with small models, few of everything, and its endpoints on loopback."""
    profile = yaml.safe_load((PROFILES / f"{name}.yaml").read_text(encoding="utf-8"))
    for entry, ref in profile["models"].items():
        ref |= {"source": models[entry], "revision": None, "dtype": "float32"}
        ref.pop("quantization", None)  # needs a GPU
    for section in profile.values():
        if isinstance(section, dict) and section.get("endpoint"):
            section |= {"endpoint": server.url, "concurrency": 1}
    for section, values in {**SMALL, **own}.items():
        if isinstance(values, dict):
            both = {**profile.get(section, {}), **SMALL.get(section, {}), **values}
            profile[section] = both
        else:
            profile[section] = values
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(profile), encoding="utf-8")
    return path


def execute(project: Project, job: str, partition: str | None = None, *only: str) -> None:
    """Run a job of the project, or some of its assets."""
    chosen = [dg.AssetKey(name) for name in only] or None
    with dg.DagsterInstance.ephemeral() as instance:
        done = project.pipelines.resolve_job_def(job).execute_in_process(
            partition_key=partition,
            instance=instance,
            raise_on_error=False,
            asset_selection=chosen,
        )
    failures = [event.step_failure_data.error for event in done.all_events if event.is_step_failure]
    assert done.success, failures


@pytest.fixture(scope="module")
def detailscribe(
    models: dict[str, str], server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Ran:
    folder = tmp_path_factory.mktemp("detailscribe")
    benchmark = folder / "interacting"
    benchmark.mkdir()
    lines = [
        json.dumps({"topic": f"topic-{number}", "prompt": row.prompt.rstrip(".") + "."})
        for number, row in enumerate(read_benchmark()[:ROWS])
    ]
    (benchmark / f"{SCENARIO}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    profile = small_profile(
        "paper_detailscribe",
        folder,
        models,
        server,
        interacting={"folder": str(benchmark)},
        redenoising={"num_inference_steps": STEPS, "width": 64, "height": 64},
    )
    project = load_project(str(profile), folder / "home")
    execute(project, "detailscribe_scenario", SCENARIO)
    execute(project, "evaluation", None, "human_ratings", "interacting_scorecards")
    return Ran(project, server)


def test_four_variants_of_one_seed_switch_as_published_and_the_initial_is_not_chosen(
    detailscribe: Ran,
) -> None:
    rows = detailscribe.table("refined_images", SCENARIO).filter(method="detailscribe")
    for _, own in rows.group_by("row_id"):
        assert own.sort("candidate")["switch_step"].to_list() == [None, 0, 1, 2, 4]
        assert own.filter("selected")["candidate"].to_list() != [0]
        assert own["selected"].sum() == 1
    variants = rows.filter(pl.col("candidate") > 0)
    assert set(rows["seed"]) == {FIRST_SEED}
    assert variants["s_reference"].all()
    assert set(detailscribe.table("initial_images", SCENARIO)["seed"]) == {FIRST_SEED}


def test_the_endpoint_is_told_of_a_fault_and_writes_the_whole_prompt_once(
    detailscribe: Ran,
) -> None:
    critiques = detailscribe.table("image_critiques", SCENARIO)
    requests = detailscribe.requests("issues", "prompt")
    assert len(requests) == critiques.height == ROWS
    assert all("The picture looks wrong" in one["messages"][0]["content"] for one in requests)
    topics = {f'Topic: "topic-{number}"' for number in range(ROWS)}
    assert {
        line for one in requests for line in said(one).splitlines() if "Topic" in line
    } == topics
    for row in critiques.iter_rows(named=True):
        assert row["corrected_prompt"] == f"{row['prompt']} The hand has five fingers."
        assert not row["nothing_to_correct"]
    findings = detailscribe.table("image_critiques", SCENARIO, "findings")
    assert findings["component"].is_null().all() and not findings["satisfied"].any()


def test_baselines_draw_as_many_pictures_as_published(detailscribe: Ran) -> None:
    rows = detailscribe.table("baseline_images", SCENARIO)
    seeds = rows.filter(method="multi_seed_clip").group_by("row_id").agg("seed")["seed"]
    assert [sorted(own) for own in seeds.to_list()] == [[FIRST_SEED, SECOND_SEED]] * ROWS
    clip = detailscribe.table("interacting_scorecards", None, "candidates").filter(
        method="multi_seed_clip", metric="clip_score"
    )
    for _, own in clip.group_by("evaluation_prompt_id"):
        assert own.filter("selected")["value"][0] == own["value"].max()
    for method, last in (("rewrite", "in daylight"), ("refine", "closer")):
        drawn = rows.filter(pl.col("method") == method, pl.col("drawn_prompt").str.ends_with(last))
        assert drawn.height == ROWS and set(drawn["seed"]) == {FIRST_SEED}
        assert drawn["selected"].all()
    assert rows.filter(method="rewrite").height == ROWS
    suggested = [one for one in detailscribe.requests("prompt") if shown(one)]
    assert len(suggested) == ROWS


def test_the_judge_is_told_the_topic_and_rates_every_candidate(detailscribe: Ran) -> None:
    requests = detailscribe.requests("rating", "shows")
    assert requests and all('Topic: "topic-' in said(one) for one in requests)
    assert all("perfectly" in one["messages"][0]["content"] for one in requests)
    scores = detailscribe.table("interacting_scorecards", None, "candidates")
    rated = scores.filter(metric="judge_rating")
    scored = scores.filter(metric="clip_score")
    assert rated.height == scored.height and rated["value"].is_between(2, 4).all()
    assert len(requests) == scored["pixels"].n_unique()


def test_best_of_four_by_each_metric_is_reported_beside_ours(detailscribe: Ran) -> None:
    card = detailscribe.table("interacting_scorecards", None, "scorecard").filter(slice="all")
    scores = detailscribe.table("interacting_scorecards", None, "candidates").filter(
        pl.col("method") == "detailscribe", pl.col("candidate") > 0
    )
    best = scores.group_by("metric", "evaluation_prompt_id").agg(pl.col("value").max())
    wanted_means = dict(best.group_by("metric").agg(pl.col("value").mean()).iter_rows())
    assert set(wanted_means) == {
        *("clip_score", "image_reward", "blip_vqa", "component_accuracy"),
        *("judge_rating", "judge_yes"),
    }
    rows = card.filter(method="detailscribe_published")
    assert dict(rows.select("metric", "mean").iter_rows()) == pytest.approx(wanted_means)
    assert set(rows["selection_rule"]) == {PUBLISHED_RULE}
    for metric, mean in rows.select("metric", "mean").iter_rows():
        (ours,) = card.filter(method="detailscribe", metric=metric)["mean"]
        (oracle,) = card.filter(method="detailscribe_oracle", metric=metric)["mean"]
        assert ours <= mean <= oracle
    compared = detailscribe.table("interacting_scorecards", None, "comparisons")
    beside = compared.filter(method_a="detailscribe_published")["method_b"]
    assert set(beside) == {"plain", "multi_seed_clip", "rewrite", "refine"}


def test_plan_counts_what_the_run_drew_and_asked(detailscribe: Ran) -> None:
    platform = detailscribe.project.platform
    planned = plan_work(
        platform.settings, load_taxonomy(platform.settings.taxonomy_folder), (), (SCENARIO,)
    )
    assets = ("initial_images", "refined_images", "baseline_images")
    drawn: set[str] = set()
    for asset in assets:
        new = set(detailscribe.table(asset, SCENARIO)["image_id"]) - drawn
        drawn |= new
        own = [one for one in planned if one.asset == asset]
        assert sum(one.pictures for one in own) == len(new), asset
    calls: Counter[str] = Counter()
    for one in (call for work in planned for call in work.calls):
        calls[one.section] += one.count
    suggested = [shown(one) for one in detailscribe.requests("prompt")]
    assert calls == {
        "decomposer": len(detailscribe.requests("components")),
        "rewriter": suggested.count(False),
        "critic": len(detailscribe.requests("issues", "prompt"))
        + len(detailscribe.requests("findings", "others"))
        + suggested.count(True),
        "judge": len(detailscribe.requests("rating", "shows")),
    }


def test_prompt_propose_verify_as_published_reaches_its_scorecard(
    models: dict[str, str], server: Server, tmp_path: Path
) -> None:
    photos, labels = tmp_path / "photos" / CATEGORY, tmp_path / "labels"
    photos.mkdir(parents=True)
    labels.mkdir()
    for number in range(4):
        picture(100 + number, (64, 64)).save(photos / f"{number}.png")
    lines = ["file,prompt,fidelity,alignment,category"]
    for number in range(40):
        picture(number, (32, 32)).save(labels / f"{number}.png")
        lines.append(f"{number}.png,a hand {number},{number % 2},{number // 2 % 2},{CATEGORY}")
    (labels / "labels.csv").write_text("\n".join(lines), encoding="utf-8")
    training = {"max_train_steps": 2, "mixed_precision": "no", "gradient_accumulation_steps": 1}
    profile = small_profile(
        "paper_ppv",
        tmp_path,
        models,
        server,
        prompter={"per_base_prompt": 1},
        instance_images={"folder": str(photos.parent), "min_side_px": 32},
        lora={**training, "num_class_images": 2},
        finetuning={**training, "validation_steps": 1, "min_train_rows": 1},
        verifier={
            "labels_folder": str(labels),
            "train_steps": 1,
            "training_pairs": 32,
            "target_precision": 0.05,
            "batch_size": 8,
        },
        sampling={"num_inference_steps": 2, "width": 64, "height": 64, "batch_size": 8},
        candidates={"accepted_goal": 4, "budget": 24},
        dataset={"perceptual_hash_distance": 0},
    )
    project = load_project(str(profile), tmp_path / "home")
    execute(project, "verifier_training")
    execute(project, "ppv_category", CATEGORY)
    execute(project, "dataset_and_finetune")
    execute(project, "evaluation_images", CATEGORY)
    execute(project, "evaluation", None, "human_ratings", "hoi_scorecards")
    ran = Ran(project, server)
    prompts = ran.table("detailed_prompts", CATEGORY).filter(status="accepted")
    assert prompts.height and set(prompts["model"]) == {"gpt-4o"}
    assert ran.table("verified_pairs", CATEGORY).filter(status="accepted").height >= 4
    card = ran.table("hoi_scorecards", None, "scorecard")
    assert set(card["method"]) == {"base", "dreambooth", "finetuned"}
    assert {"clip_score", "image_reward", "verifier_fidelity"} <= set(card["metric"])
