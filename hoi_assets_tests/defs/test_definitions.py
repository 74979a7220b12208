"""The definitions: what they hold, and that loading them is light."""

import json
import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from hoi_assets.defs.all_definitions import all_definitions
from hoi_assets.defs.dagster_home import prepare_dagster_home
from hoi_assets.defs.jobs import PIPELINE_JOBS
from hoi_assets.defs.project import Project, load_project, published_below
from hoi_assets.settings import ROOT

# Group and partitions of every asset: names are a contract.
PPV, DETAILSCRIBE, EVALUATION = "prompt_propose_verify", "detailscribe", "evaluation"
ASSETS = {
    "base_prompt_taxonomy": (PPV, None),
    "round_plan": (PPV, "hand_pose"),
    "detailed_prompts": (PPV, "hand_pose"),
    "instance_images": (PPV, "hand_pose"),
    "category_loras": (PPV, "hand_pose"),
    "candidate_images": (PPV, "hand_pose"),
    "verifier_training_pairs": (PPV, None),
    "verifier": (PPV, None),
    "verified_pairs": (PPV, "hand_pose"),
    "hoi_dataset": (PPV, None),
    "finetuned_model": (PPV, None),
    "hoi_evaluation_images": (EVALUATION, "hand_pose"),
    "interacting_prompts": (DETAILSCRIBE, "scenario"),
    "interaction_decompositions": (DETAILSCRIBE, "scenario"),
    "initial_images": (DETAILSCRIBE, "scenario"),
    "image_critiques": (DETAILSCRIBE, "scenario"),
    "refined_images": (DETAILSCRIBE, "scenario"),
    "baseline_images": (DETAILSCRIBE, "scenario"),
    "human_ratings": (EVALUATION, None),
    "hoi_scorecards": (EVALUATION, None),
    "interacting_scorecards": (EVALUATION, None),
    "round_scorecards": (EVALUATION, None),
    "evaluation_report": (EVALUATION, None),
}
HEAVY = ("torch", "great_expectations", "transformers", "diffusers", "peft", "matplotlib", "openai")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return load_project("tiny", tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def repository(project: Project) -> dg.RepositoryDefinition:
    built = all_definitions(project).get_repository_def()
    built.load_all_definitions()
    return built


def test_every_asset_is_there_with_its_partitions_gate_and_owner(repository):
    graph = repository.asset_graph
    assert {key.to_user_string() for key in graph.materializable_asset_keys} == set(ASSETS)
    some_key = {"hand_pose": "power_wrap", "scenario": "functional", None: None}
    for name, (group, partitions) in ASSETS.items():
        node = graph.get(dg.AssetKey(name))
        assert node.is_partitioned == (partitions is not None), name
        if node.partitions_def is not None:
            assert some_key[partitions] in node.partitions_def.get_partition_keys(), name
        assert node.description and node.group_name == group and node.owners
        (check,) = [k for k in graph.asset_check_keys if k.asset_key == node.key]
        assert check.name == "gate"
        check_node = graph.get(check)
        assert check_node.blocking
        assert (check_node.partitions_def is not None) == node.is_partitioned


def test_partitions_are_the_taxonomy(repository):
    keys = repository.asset_graph.get(dg.AssetKey("detailed_prompts")).partitions_def
    files = (ROOT / "data" / "taxonomy" / "categories").glob("*.yaml")
    assert set(keys.get_partition_keys()) == {file.stem for file in files}
    assert "power_wrap" in keys.get_partition_keys()


def test_backfill_policy_is_unset_so_that_checks_keep_their_partition(repository):
    graph = repository.asset_graph
    assert all(graph.get(k).backfill_policy is None for k in graph.materializable_asset_keys)


def test_pipelines_are_independent_of_each_other(project):
    ppv = {name for name, (group, _) in ASSETS.items() if group == PPV}
    detailscribe = {name for name, (group, _) in ASSETS.items() if group == DETAILSCRIBE}
    graph = project.graph
    assert not graph.upstream(detailscribe) & ppv
    assert not graph.upstream(ppv) & detailscribe
    assert not graph.upstream(["interacting_scorecards"]) & ppv
    assert not graph.upstream(["hoi_scorecards"]) & detailscribe
    assert graph.upstream(["evaluation_report"]) == {"evaluation_report"}


def test_candidates_wait_for_the_verifier_only_where_a_goal_is_set(project, tmp_path):
    assert "verifier" not in project.graph["candidate_images"].deps
    profile = tmp_path / "goal.yaml"
    tiny = (ROOT / "data" / "profiles" / "tiny.yaml").read_text(encoding="utf-8")
    profile.write_text(tiny + "candidates: {accepted_goal: 8}\n", encoding="utf-8")
    with_goal = load_project(str(profile), tmp_path / "home")
    assert "verifier" in with_goal.graph["candidate_images"].deps


def test_every_asset_runs_in_exactly_one_pipeline_job(project):
    run = [name for job in PIPELINE_JOBS for name in project.assets_of(job)]
    assert sorted(run) == sorted(ASSETS)


def test_what_loads_a_model_asks_for_the_gpu_pool():
    assets = published_below("hoi_assets.defs")
    pools = {asset.key.to_user_string(): asset.op.pool for asset in assets}
    loads_models = {
        spec.key.to_user_string()
        for asset in assets
        for spec in asset.specs
        if "pytorch" in spec.kinds
    }
    assert {name for name, pool in pools.items() if pool == "gpu"} == loads_models
    assert "hoi_scorecards" in loads_models and "category_loras" in loads_models


def test_pool_of_the_gpu_has_one_slot_in_a_new_home(tmp_path: Path):
    with dg.DagsterInstance.from_config(str(prepare_dagster_home(tmp_path))) as instance:
        assert instance.get_concurrency_config().pool_config.default_pool_limit == 1


def test_jobs_have_fixed_names_and_schedule_and_sensor_are_shipped_stopped(repository):
    assert {
        "verifier_training",
        "ppv_category",
        "dataset_and_finetune",
        "evaluation_images",
        "detailscribe_scenario",
        "evaluation",
        "all_pipelines",
        "regenerate",
    } <= set(repository.job_names)
    assert {one.name: one.job_name for one in repository.schedule_defs} == {
        "nightly_regeneration": "regenerate",
        "weekly_reverification": "reverification",
    }
    assert {one.default_status for one in repository.schedule_defs} == {
        dg.DefaultScheduleStatus.STOPPED
    }
    assert {one.name for one in repository.sensor_defs} == {
        "benchmark_on_changed_model",
        "follow_categories",
        "retrain_on_new_labels",
    }
    assert {one.default_status for one in repository.sensor_defs} == {
        dg.DefaultSensorStatus.STOPPED
    }


def load_in_a_process(code: str, tmp_path: Path) -> str:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"HOI_HOME": str(tmp_path)},
        check=True,
        text=True,
        capture_output=True,
        timeout=120,
    ).stdout


LOAD = "from hoi_assets.definitions import defs\ndefs()"


def test_loading_imports_nothing_heavy_and_writes_nothing(tmp_path):
    code = f"""
import json, sys
{LOAD}.get_repository_def()
print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))
"""
    assert json.loads(load_in_a_process(code, tmp_path)) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [["dg", "check", "defs"], ["dagster", "definitions", "validate"]]
)
def test_dagster_accepts_the_definitions(command, tmp_path):
    program = Path(sys.executable).parent / command[0]
    before = {path.name for path in ROOT.iterdir()}
    done = subprocess.run(
        [str(program), *command[1:]],
        cwd=ROOT,
        env=os.environ | {"HOI_HOME": str(tmp_path), "DAGSTER_HOME": str(tmp_path)},
        text=True,
        capture_output=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path.name for path in ROOT.iterdir()} == before
