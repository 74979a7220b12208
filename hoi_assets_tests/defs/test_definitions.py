"""The definitions: what they hold, and what loading them costs."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from hoi_assets.definitions import build_definitions, build_line
from hoi_assets.settings import ROOT

# Group and partitions of every asset: names are a contract.
PPV, DETAILSCRIBE, EVALUATION = "prompt_propose_verify", "detailscribe", "evaluation"
ASSETS = {
    "base_prompt_taxonomy": (PPV, None),
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
    "scorecards": (EVALUATION, None),
    "evaluation_report": (EVALUATION, None),
}
HEAVY = ("torch", "great_expectations", "transformers", "diffusers", "peft", "matplotlib", "openai")
MAX_LOAD_S = 2.0


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> dg.RepositoryDefinition:
    home = tmp_path_factory.mktemp("home")
    built = build_definitions(build_line("tiny", home)).get_repository_def()
    built.load_all_definitions()
    return built


def test_every_asset_of_the_line_is_there_with_its_partitions_and_gate(repository):
    graph = repository.asset_graph
    assert {key.to_user_string() for key in graph.materializable_asset_keys} == set(ASSETS)
    some_key = {"hand_pose": "power_wrap", "scenario": "functional", None: None}
    for name, (group, partitions) in ASSETS.items():
        node = graph.get(dg.AssetKey(name))
        assert node.is_partitioned == (partitions is not None), name
        if node.partitions_def is not None:
            assert some_key[partitions] in node.partitions_def.get_partition_keys(), name
        assert node.description and node.group_name == group
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


def test_jobs_and_a_nightly_schedule_shipped_stopped(repository):
    assert {
        "line_head",
        "hand_pose_line",
        "scenario_line",
        "line_tail",
        "whole_line",
        "regenerate",
    } <= set(repository.job_names)
    (schedule,) = repository.schedule_defs
    assert schedule.job_name == "regenerate"
    assert schedule.default_status == dg.DefaultScheduleStatus.STOPPED
    (sensor,) = repository.sensor_defs
    assert sensor.default_status == dg.DefaultSensorStatus.STOPPED


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


def test_loading_takes_at_most_two_seconds_and_imports_nothing_heavy(tmp_path):
    code = f"""
import json, sys
from hoi_assets.definitions import build_definitions, build_line
build_definitions(build_line()).get_repository_def()
print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))
"""
    # Processor time, and beside it what Dagster alone takes: the wall's clock, and on a crowded
    # machine even the processor's, tells how busy the neighbours are.
    pairs = [(_seconds(code, tmp_path), _seconds("import dagster", tmp_path)) for _ in range(2)]
    heavy = json.loads(load_in_a_process(code, tmp_path))
    assert heavy == []
    assert any(ours <= max(MAX_LOAD_S, 1.8 * dagster) for ours, dagster in pairs), pairs


def _seconds(code: str, tmp_path: Path) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    load_in_a_process(code, tmp_path)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_loading_writes_nothing(tmp_path):
    load_in_a_process(
        "from hoi_assets.definitions import build_definitions, build_line\n"
        "build_definitions(build_line()).get_repository_def()",
        tmp_path,
    )
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
