"""Promises of what runs by itself: stopped, described, and asked for once per change."""

from pathlib import Path

import dagster as dg
import polars as pl
import pytest
import yaml

from hoi_assets.defs.all_definitions import all_definitions
from hoi_assets.defs.project import Project, load_project
from hoi_assets.defs.sensors import PAIRS, benchmark_on_changed_model, retrain_on_new_labels
from hoi_assets.publishing.asset import published_asset
from hoi_assets.publishing.context import Result, StageContext
from hoi_assets.publishing.expectations import row_count, suite
from hoi_assets.settings import PROFILES
from hoi_assets.store.versions import Staging

pytestmark = pytest.mark.slow


def write_profile(folder: Path, **changes: object) -> str:
    profile = yaml.safe_load((PROFILES / "tiny.yaml").read_text(encoding="utf-8"))
    for section, values in changes.items():
        both = isinstance(values, dict) and isinstance(profile.get(section), dict)
        profile[section] = {**profile[section], **values} if both else values  # type: ignore[dict-item]
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump(profile), encoding="utf-8")
    return str(path)


@published_asset(
    code_version="1",
    suite=suite(rows=[row_count()]),
    external_inputs=lambda context: {
        "labels": (Path(context.settings.verifier.labels_folder) / "labels.csv").read_text()
    },
)
def verifier_training_pairs(context: StageContext, staging: Staging) -> Result:
    staging.write_table("rows", pl.DataFrame({"pair_id": ["a"]}))
    return Result()


JOB = dg.define_asset_job("verifier_training", selection=[PAIRS])


@dg.op
def nothing() -> None: ...


@dg.job
def regenerate() -> None:
    nothing()


def label(folder: Path, number: int) -> None:
    rows = "".join(f"{n}.png,a hand,1,0\n" for n in range(number))
    (folder / "labels.csv").write_text(f"file,prompt,fidelity,alignment\n{rows}", encoding="utf-8")


def evaluated(
    sensor: dg.SensorDefinition, cursor: str | None
) -> tuple[list[dg.RunRequest], str | None]:
    with dg.build_sensor_context(cursor=cursor) as context:
        tick = sensor.evaluate_tick(context)
    return list(tick.run_requests or []), tick.cursor


def labelled_project(folder: Path) -> Project:
    label(folder, 10)
    profile = write_profile(
        folder,
        verifier={"labels_folder": str(folder)},
        schedules={"retrain_after_labels": 5},
        timezone="Europe/Paris",
    )
    return load_project(profile, folder / "home", [verifier_training_pairs], [JOB])


def test_all_are_stopped_described_and_in_the_profiles_time_zone(tmp_path: Path) -> None:
    profile = write_profile(tmp_path, timezone="Europe/Paris")
    repository = all_definitions(load_project(profile, tmp_path / "home")).get_repository_def()
    schedules = {one.name: one for one in repository.schedule_defs}
    assert set(schedules) == {"nightly_regeneration", "weekly_reverification"}
    for schedule in schedules.values():
        assert schedule.execution_timezone == "Europe/Paris"
        assert schedule.default_status == dg.DefaultScheduleStatus.STOPPED
        assert schedule.description
    sensors = {one.name: one for one in repository.sensor_defs}
    assert {"retrain_on_new_labels", "benchmark_on_changed_model", "follow_categories"} == set(
        sensors
    )
    for sensor in sensors.values():
        assert sensor.default_status == dg.DefaultSensorStatus.STOPPED
        assert sensor.description


def test_enough_new_labels_ask_for_one_retraining(tmp_path: Path) -> None:
    project = labelled_project(tmp_path)
    sensor = retrain_on_new_labels(project, regenerate)
    with dg.DagsterInstance.ephemeral() as instance:
        made = project.pipelines.resolve_job_def("verifier_training").execute_in_process(
            instance=instance
        )
        assert made.success
        requests, cursor = evaluated(sensor, None)
        assert not requests
        label(tmp_path, 14)
        requests, cursor = evaluated(sensor, cursor)
        assert not requests  # four of five
        label(tmp_path, 15)
        requests, cursor = evaluated(sensor, cursor)
        assert [one.run_key for one in requests] == ["labels-15"]
        requests, cursor = evaluated(sensor, cursor)
        assert not requests
        label(tmp_path, 19)
        project.pipelines.resolve_job_def("verifier_training").execute_in_process(instance=instance)
        requests, cursor = evaluated(sensor, cursor)
        assert not requests and cursor == "19"  # trained by hand in between
        label(tmp_path, 23)
        requests, cursor = evaluated(sensor, cursor)
        assert not requests
        label(tmp_path, 24)
        assert len(evaluated(sensor, cursor)[0]) == 1


def test_changed_model_of_the_benchmark_asks_for_its_scenarios_once(tmp_path: Path) -> None:
    def sensor(**models: object) -> dg.SensorDefinition:
        profile = write_profile(tmp_path, models=models)
        project = load_project(profile, tmp_path / "home", [verifier_training_pairs], [JOB])
        return benchmark_on_changed_model(project, regenerate, ["functional"])

    requests, cursor = evaluated(sensor(), None)
    assert not requests
    requests, cursor = evaluated(sensor(), cursor)
    assert not requests
    other = sensor(critic={"source": "data/models/tiny/vilt"})
    (request,), cursor = evaluated(other, cursor)
    config = request.run_config["ops"]["regenerate_loop"]["config"]
    assert config == {"partitions": ["functional"], "only": "stale"}
    assert request.tags["hoi/changed_models"] == "critic"
    assert not evaluated(other, cursor)[0]
