"""DetailScribe through Dagster, on small random models: its promises, not its quality."""

import base64
import io
import json
import shutil
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from hoi_assets.cli.image_replay import replay_image
from hoi_assets.defs.project import Project, load_project
from hoi_assets.detailscribe.benchmark import read_benchmark
from hoi_assets.detailscribe.benchmark_images import (
    LATENTS,
    LATENTS_DIGEST,
    draw_benchmark_images,
    draw_variants,
    plain_row,
)
from hoi_assets.detailscribe.flat_form import from_flat
from hoi_assets.detailscribe.initial_images import split_refinable
from hoi_assets.detailscribe.prompt_extension import word_count
from hoi_assets.engines.image_cache import generation_seconds
from hoi_assets.engines.pretrained import content_digest
from hoi_assets.engines.sd3.redenoising import Redenoising
from hoi_assets.errors import HoiError
from hoi_assets.evaluation.benchmark_scores import (
    average_costs,
    describe_methods,
    list_candidates,
)
from hoi_assets.store.versions import Store
from hoi_assets_tests.damage import damage
from hoi_assets_tests.engines.small_sd3 import make_sd3
from hoi_assets_tests.llm.chat_server import Answer, Request, Server
from hoi_assets_tests.pipeline_fixture import settings_of, write_profile

SCENARIO = "functional"
ROWS, STEPS = 3, 5
SWITCH_STEPS = [0, 1, 2]
PLAIN_EVALUATIONS = 2 * STEPS
BUDGET = PLAIN_EVALUATIONS + 2 * (5 + 4 + 3)
PICTURES = BUDGET // PLAIN_EVALUATIONS


def make_vqa(folder: Path) -> None:
    """A very small ViLT-VQA with random weights."""
    import torch

    from hoi_assets.tinyworld.weights import vqa

    torch.manual_seed(3)
    vqa.save(vqa.build(vqa.tokenizer(), vqa.Size(32, 2, 2)), folder)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    folder = tmp_path_factory.mktemp("models")
    make_sd3(folder / "sd3")
    make_vqa(folder / "vqa")
    return {"benchmark": {"source": str(folder / "sd3")}, "critic": {"source": str(folder / "vqa")}}


def profile_of(folder: Path, models: dict[str, Any], **changes: Any) -> Path:
    sections: dict[str, Any] = {
        "models": models,
        "interacting": {"rows_per_scenario": ROWS},
        "redenoising": {
            "num_inference_steps": STEPS,
            "switch_steps": SWITCH_STEPS,
            "batch_size": 4,
            "width": 64,
            "height": 64,
        },
        "critic": {"threshold": 0.5},
        **changes,
    }
    return write_profile(folder, **sections)


@dataclass(frozen=True)
class Ran:
    project: Project
    result: dg.ExecuteInProcessResult

    def rows(self, asset: str) -> pl.DataFrame:
        return self.project.platform.store.require(asset, SCENARIO).table("rows")

    def versions(self) -> dict[str, str]:
        return {one.name: one.version for one in self.project.platform.store.all_current()}


def run(profile: Path, home: Path, scenario: str = SCENARIO) -> Ran:
    project = load_project(str(profile), home)
    with dg.DagsterInstance.ephemeral() as instance:
        job = project.pipelines.resolve_job_def("detailscribe_scenario")
        result = job.execute_in_process(
            partition_key=scenario, instance=instance, raise_on_error=False
        )
    return Ran(project, result)


@pytest.fixture(scope="module")
def made(models: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("second")
    ran = run(profile_of(folder, models), folder / "home")
    assert ran.result.success
    return ran


def test_every_stage_is_published_with_its_gate_passed(made: Ran) -> None:
    checks = made.result.get_asset_check_evaluations()
    assert {(check.asset_key.to_user_string(), check.passed) for check in checks} == {
        (name, True)
        for name in (
            "interacting_prompts",
            "interaction_decompositions",
            "initial_images",
            "image_critiques",
            "refined_images",
            "baseline_images",
        )
    }


def test_every_prompt_has_a_picture_and_components(made: Ran) -> None:
    prompts, drawn = made.rows("interacting_prompts"), made.rows("initial_images")
    assert prompts.height == ROWS
    assert drawn["row_id"].to_list() == prompts["row_id"].to_list()
    assert drawn["drawn_prompt"].to_list() == prompts["prompt"].to_list()
    assert (made.rows("interaction_decompositions")["components"] >= 1).all()


def test_a_corrected_prompt_begins_with_the_sentence_and_has_at_most_70_words(made: Ran) -> None:
    for row in made.rows("image_critiques").iter_rows(named=True):
        corrected = row["corrected_prompt"]
        assert (corrected is None) == row["nothing_to_correct"]
        if corrected is not None:
            assert corrected.startswith(row["prompt"])
            assert len(corrected) > len(row["prompt"])
            assert word_count(corrected) <= 70


def test_variants_are_one_for_each_switch_step_and_count_their_own_evaluations(made: Ran) -> None:
    corrected = {
        row["row_id"]: row["corrected_prompt"]
        for row in made.rows("image_critiques").iter_rows(named=True)
    }
    assert any(corrected.values())
    arm = made.rows("refined_images").filter(pl.col("method") == "detailscribe")
    for (row_id,), own in arm.group_by("row_id", maintain_order=True):
        steps = own["switch_step"].to_list()
        if corrected[str(row_id)] is None:
            assert steps == [None]
            assert "nothing to correct" in own["why"][0]
        else:
            assert steps == [None, *SWITCH_STEPS]
            assert own["denoiser_evaluations"].to_list() == [PLAIN_EVALUATIONS, 10, 8, 6]
            assert own["denoiser_evaluations"].sum() == BUDGET


def test_baselines_draw_what_the_same_compute_pays_for(made: Ran) -> None:
    table = made.rows("baseline_images")
    corrected = made.rows("image_critiques").drop_nulls("corrected_prompt")["row_id"].to_list()
    for (row_id, method), own in table.group_by("row_id", "method"):
        if method == "refine" and row_id not in corrected:
            assert own.height == 1
        else:
            assert own.height == PICTURES, method
        assert own["denoiser_evaluations"].sum() <= BUDGET
        assert own["selected"].sum() == 1
    seeds = table.filter(pl.col("method") == "multi_seed")
    assert seeds["seed"].n_unique() == seeds.height
    again = table.filter(pl.col("method") == "multi_seed_clip")
    assert again["image_id"].to_list() == seeds["image_id"].to_list()


def test_the_choice_is_the_critics_and_the_initial_picture_takes_part(made: Ran) -> None:
    for asset in ("refined_images", "baseline_images"):
        table = made.rows(asset).filter(pl.col("method") != "multi_seed_clip")
        for (_, method), own in table.group_by("row_id", "method", maintain_order=True):
            ranked = own.sort("satisfied", "probability", descending=True, maintain_order=True)
            assert ranked["selected"][0], method
            assert method == "rewrite" or own["candidate"].min() == 0
    initial = set(made.rows("initial_images")["image_id"])
    refined = made.rows("refined_images").filter(pl.col("candidate") == 0)
    assert set(refined["image_id"]) == initial


def test_craft_rounds_end_for_a_stated_reason(made: Ran) -> None:
    arm = made.rows("refined_images").filter(pl.col("method") == "craft")
    assert arm.filter("selected")["row_id"].n_unique() == ROWS
    assert arm.filter("selected")["why"].str.contains("rounds ended: ").all()
    assert arm["candidate"].max() <= 3


def test_every_row_is_in_the_ledger(made: Ran) -> None:
    ledger = made.project.platform.store.ledger
    for asset in ("interacting_prompts", "initial_images", "image_critiques"):
        found = ledger.rows(stage=asset)
        assert set(found["row_id"]) == set(made.rows("interacting_prompts")["row_id"])
        assert set(found["status"]) == {"accepted"}


def test_a_second_run_draws_nothing(made: Ran) -> None:
    before = made.versions()
    again = run(Path(made.project.platform.profile or ""), made.project.platform.store.home)
    assert again.result.success
    assert again.versions() == before
    flags = [
        event.step_materialization_data.materialization.metadata["unchanged"].value
        for event in again.result.all_events
        if event.is_step_materialization
    ]
    assert flags == [True] * 6


def test_another_home_has_the_same_content(
    made: Ran, models: dict[str, Any], tmp_path: Path
) -> None:
    fresh = run(profile_of(tmp_path, models), tmp_path / "home")
    assert fresh.versions() == made.versions()


def test_variants_go_on_from_the_kept_latents_and_have_the_same_bits_without_them(
    models: dict[str, Any], tmp_path: Path
) -> None:
    settings = settings_of(profile_of(tmp_path, models))
    rows = [plain_row(settings, str(place), f"a red mug {place}", place) for place in range(2)]
    first = Store(tmp_path / "first")
    draw_benchmark_images(first, settings, rows, "initial", str, keep_latents=True)
    without, damaged, other = (
        shutil.copytree(first.home, tmp_path / name) for name in ("none", "damaged", "other")
    )
    shutil.rmtree(without / LATENTS)
    for file in (damaged / LATENTS).rglob("*.safetensors"):
        damage(file)
    for file in (other / LATENTS).rglob("*.safetensors"):
        nothing = {step: one * 0 for step, one in load_file(file).items()}
        save_file(nothing, file, metadata={LATENTS_DIGEST: content_digest(nothing, {})})

    def variants(home: Path) -> list[list[str | None]]:
        refinements = [Redenoising(row, f"{row.prompt}, on a table") for row in rows]
        drawn = draw_variants(Store(home), settings, refinements, "variants", str)
        return [[one.known.pixels for one in own] for own in drawn]

    kept = variants(first.home)
    assert variants(without) == variants(damaged) == kept
    # Switch step 0 starts from noise; the others from what lies there.
    assert [
        [a == b for a, b in zip(*pair, strict=True)]
        for pair in zip(kept, variants(other), strict=True)
    ] == [[True, False, False]] * 2


def test_a_smaller_batch_goes_on_with_the_pictures_that_are_there(
    made: Ran, models: dict[str, Any], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    shutil.copytree(made.project.platform.store.home, home)
    options = {
        "num_inference_steps": STEPS,
        "switch_steps": [0, 3],
        "batch_size": 2,
        "width": 64,
        "height": 64,
    }
    ran = run(profile_of(tmp_path, models, redenoising=options), home)
    assert ran.result.success
    own = ran.rows("refined_images").filter(pl.col("switch_step") == 3)
    assert own.height and set(own["status"]) == {"accepted"}
    assert set(own["batch_size"]) == {2} and max(own["slot"]) < 2
    again = replay_image(
        ran.project.platform.store, ran.project.platform.settings, own["image_id"][0]
    )
    assert again.equal


def test_a_critique_is_used_for_its_own_picture_and_a_row_without_components_fails(
    made: Ran,
) -> None:
    initial, critiqued = made.rows("initial_images"), made.rows("image_critiques")
    first, second, third = initial["row_id"]
    one_redrawn = initial.with_columns(
        image_id=pl.when(pl.col("row_id") == first)
        .then(pl.lit("f" * 16))
        .otherwise(pl.col("image_id"))
    )
    components = {row_id: from_flat("(a holds b)") for row_id in (first, third)}
    able, corrected, failed = split_refinable(one_redrawn, critiqued, components, ("craft",))
    assert [row["row_id"] for row in able] == list(corrected) == [third]
    assert {row["row_id"]: row["reason"] for row in failed} == {
        first: "critique: of another picture",
        second: "no_components: see its row",
    }


def test_seconds_of_drawing_are_kept_beside_the_versions(made: Ran) -> None:
    store = made.project.platform.store
    pictures = pl.concat([made.rows(name) for name in ("refined_images", "baseline_images")])
    seconds = generation_seconds(store, pictures["image_id"].unique())
    assert set(seconds) == set(pictures["image_id"])
    assert all(0 < one < 60 for one in seconds.values())
    texts = {row_id: ["a question"] for row_id in pictures["row_id"].unique()}
    rows = pl.DataFrame(list_candidates([pictures], texts, texts), infer_schema_length=None)
    spent = {one["method"]: one for one in average_costs(rows, seconds).to_dicts()}
    assert spent["multi_seed"]["denoiser_evaluations"] == PICTURES * PLAIN_EVALUATIONS
    several = pictures.filter(method="multi_seed")
    assert spent["multi_seed"]["seconds"] == pytest.approx(
        sum(seconds[name] for name in several["image_id"]) / ROWS
    )
    assert average_costs(rows, {})["seconds"].to_list() == [None] * len(spent)


def test_s_reference_is_another_variant_of_the_same_picture(
    made: Ran, models: dict[str, Any], tmp_path: Path
) -> None:
    options = {
        "num_inference_steps": STEPS,
        "switch_steps": [1],
        "s_reference": True,
        "batch_size": 4,
        "width": 64,
        "height": 64,
    }
    ran = run(profile_of(tmp_path, models, redenoising=options), tmp_path / "home")
    ours = made.rows("refined_images").filter(pl.col("switch_step") == 1)
    theirs = ran.rows("refined_images").filter(pl.col("switch_step") == 1)
    assert set(theirs["row_id"]) == set(ours["row_id"])
    assert not set(theirs["image_id"]) & set(ours["image_id"])
    assert theirs["denoiser_evaluations"].to_list() == [2 * (STEPS - 2)] * theirs.height


def test_a_rewriter_is_asked_when_set_and_what_it_does_not_rewrite_fails_alone(
    made: Ran, models: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOI_API_KEY", "k")
    home = tmp_path / "home"
    shutil.copytree(made.project.platform.store.home, home)
    refused = json.dumps(made.rows("interacting_prompts")["prompt"][0])

    def rewritten(request: Request, number: int) -> Answer:
        if refused in request["messages"][1]["content"]:
            return Answer("I would rather not.")
        return Answer(json.dumps({"prompt": "a hand on a table holds a red mug"}))

    server = Server(rewritten)
    rewriter = {"endpoint": server.url, "model": "m", "concurrency": 1}
    gates = {"max_failed_share": 0.5}
    try:
        ran = run(profile_of(tmp_path, models, rewriter=rewriter, gates=gates), home)
    finally:
        server.close()
    table = ran.rows("baseline_images")
    own = table.filter(method="rewrite")
    (failed,) = own.filter(status="failed").to_dicts()
    assert failed["reason"].startswith("rewrite: unusable_reply")
    drawn = own.filter(status="accepted")
    assert set(drawn["drawn_prompt"]) == {"a hand on a table holds a red mug"}
    assert drawn.height == (ROWS - 1) * PICTURES
    others = pl.col("method") != "rewrite"
    assert table.filter(others).equals(made.rows("baseline_images").filter(others))


def noise_of(request: Request, number: int) -> Answer:
    """Another picture for each prompt, 96 by 80 px; first a wrong key, then a refused prompt."""
    if number < 2:
        body = json.dumps({"error": {"message": "not this one"}})
        return Answer(status=(401, 400)[number], body=body)
    rng = np.random.default_rng(zlib.crc32(request["prompt"].encode()))
    stream = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (80, 96, 3), dtype=np.uint8)).save(stream, "PNG")
    return Answer(base64.b64encode(stream.getvalue()).decode("ascii"))


def test_an_image_endpoint_is_a_baseline_when_set_and_paints_each_prompt_once(
    made: Ran, models: dict[str, Any], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    shutil.copytree(made.project.platform.store.home, home)
    server = Server(noise_of)
    endpoint = {
        "endpoint": server.url,
        "model": "m",
        "concurrency": 1,
        "api_key_env": "PAINTER_KEY",
    }
    profile = profile_of(tmp_path, models, image_endpoint=endpoint)
    try:
        held = run(profile, home)
        held_versions = held.versions()
        first = run(profile, home)
        some = first.rows("baseline_images")
        table = run(profile, home).rows("baseline_images")
    finally:
        server.close()
    (failure,) = [event for event in held.result.all_events if event.is_step_failure]
    assert "PAINTER_KEY" in failure.step_failure_data.user_failure_data.description
    assert held_versions == made.versions()

    failed = some.filter(method="endpoint", status="failed")
    assert failed["reason"].str.starts_with("refused: status 400").to_list() == [True]
    assert failed["pixels"].to_list() == [None] and not failed["selected"].any()
    # A wrong key once, each prompt once, and the failed one alone once more.
    assert len(server.requests) == 1 + ROWS + 1

    own = table.filter(method="endpoint")
    assert own["prompt"].to_list() == made.rows("interacting_prompts")["prompt"].to_list()
    assert own["selected"].all() and set(own["status"]) == {"accepted"}
    assert own["denoiser_evaluations"].to_list() == [0] * ROWS
    store = first.project.platform.store
    assert {store.images.open(pixels).size for pixels in own["pixels"]} == {(64, 64)}
    others = table.filter(pl.col("method") != "endpoint")
    assert others.equals(made.rows("baseline_images"))

    drawn = [first.rows("initial_images"), table]
    texts = {row_id: ["a question"] for row_id in own["row_id"]}
    rules, compute = describe_methods(list_candidates(drawn, texts, texts))
    assert compute["endpoint"] == "an image endpoint"
    assert rules["endpoint"] == "none: one picture"
    with pytest.raises(HoiError, match=r"96x80 came, brought to 64x64.*cannot be drawn again"):
        replay_image(store, settings_of(profile), own["image_id"][0])


def test_broken_lines_are_recorded_and_the_rest_goes_on(
    models: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "benchmark"
    folder.mkdir()
    good = [{"topic": row.topic, "prompt": row.prompt} for row in read_benchmark()[:2]]
    lines = [json.dumps(good[0]), "{broken", json.dumps({"topic": "x"}), json.dumps(good[1])]
    (folder / "functional.jsonl").write_text("\n".join(lines), encoding="utf-8")
    profile = profile_of(tmp_path, models, interacting={"folder": str(folder)})
    ran = run(profile, tmp_path / "home")
    assert ran.result.success
    failed = ran.rows("interacting_prompts").filter(pl.col("status") == "failed")
    assert dict(zip(failed["line"], failed["reason"].str.split(":").list.first(), strict=True)) == {
        2: "broken_line",
        3: "missing_key",
    }
    assert ran.rows("initial_images").height == 2


def test_a_scenario_without_a_file_is_held_and_says_so(
    models: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "benchmark"
    folder.mkdir()
    (folder / "functional.jsonl").write_text('{"topic": "a", "prompt": "a cup"}\n')
    profile = profile_of(tmp_path, models, interacting={"folder": str(folder)})
    ran = run(profile, tmp_path / "home", "compositional")
    assert not ran.result.success
    assert ran.project.platform.store.current("interacting_prompts", "compositional") is None
    (failure,) = [event for event in ran.result.all_events if event.is_step_failure]
    told = failure.step_failure_data.user_failure_data.description
    assert "looked for compositional_200.jsonl" in told and "hoi interacting fetch" in told


def test_no_benchmark_model_and_no_critic_are_refused_by_name(
    models: dict[str, Any], tmp_path: Path
) -> None:
    profile = profile_of(tmp_path, {**models, "benchmark": None})
    ran = run(profile, tmp_path / "home")
    (failure,) = [event for event in ran.result.all_events if event.is_step_failure]
    assert "models.benchmark" in failure.step_failure_data.user_failure_data.description
    profile = profile_of(tmp_path, {**models, "critic": None})
    ran = run(profile, tmp_path / "home")
    (failure,) = [event for event in ran.result.all_events if event.is_step_failure]
    assert "models.critic" in failure.step_failure_data.user_failure_data.description
