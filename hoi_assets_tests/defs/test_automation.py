"""The warm loop, what may end it, the jobs that loop, and backfills by a real daemon."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from dagster import AssetKey, DagsterRunStatus

from hoi_assets.defs.all_definitions import all_definitions
from hoi_assets.defs.backfills import launch_backfills
from hoi_assets.defs.dagster_private import repository_of
from hoi_assets.defs.project import Project, load_project
from hoi_assets.defs.runs import (
    CLOCK_TICK_S,
    DRIVER_TAG,
    HOST_TAG,
    PID_TAG,
    STARTED_TAG,
    process_tags,
    report_dead_runs,
)
from hoi_assets.defs.warm_loop import Done, run_pipelines
from hoi_assets.errors import HoiError
from hoi_assets.publishing.asset import published_asset
from hoi_assets.publishing.context import Result, StageContext
from hoi_assets.publishing.expectations import row_count, suite
from hoi_assets.settings import ROOT
from hoi_assets.store.versions import Staging
from hoi_assets_tests.publishing.small_pipeline import (
    GOOD,
    JOBS,
    POISON,
    calls,
    small_assets,
    small_project,
    write_profile,
    write_taxonomy,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two good categories and one whose prompts repeat."""
    write_taxonomy(tmp_path / "taxonomy", {"hook": GOOD, "tripod": POISON, "worn": GOOD})
    write_profile(tmp_path)
    return tmp_path


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as one:
        yield one


def quiet(line: str) -> None:
    """Nothing is printed."""


def ends(done: list[Done]) -> dict[tuple[str, str | None], str]:
    return {(one.job, one.partition): one.end for one in done}


CATEGORIES = ("hook", "tripod", "worn")


def test_a_failed_category_is_held_and_named_and_the_rest_goes_on(folder, instance):
    project = small_project(folder)
    said: list[str] = []
    report = run_pipelines(project, instance, CATEGORIES, log=said.append)
    assert ends(report.done) == {
        ("words", None): "made",
        ("category", "hook"): "made",
        ("category", "tripod"): "blocked",
        ("category", "worn"): "made",
        ("dataset_and_model", None): "made",
        ("category_evaluation", "hook"): "made",
        ("category_evaluation", "tripod"): "skipped",
        ("category_evaluation", "worn"): "made",
        ("reporting", None): "made",
    }
    (blocked,) = report.blocked
    assert (blocked.partition, blocked.asset) == ("tripod", "prompts")
    assert "expect_column_values_to_be_unique" in blocked.reason
    assert "tripod" in report.table()
    assert any("category tripod (2/3): blocked" in text for text in said)
    assert project.platform.store.require("model").json("weights") == ["hook", "worn"]


def test_every_run_of_the_loop_is_in_dagster_with_its_partition(folder, instance):
    run_pipelines(small_project(folder), instance, ["hook"], log=quiet, parent_run_id="the-parent")
    runs = instance.get_runs()
    assert {run.tags[DRIVER_TAG] for run in runs} == {"the-parent"}
    assert all(run.status == DagsterRunStatus.SUCCESS for run in runs)
    partitions = {run.job_name: run.tags.get("dagster/partition") for run in runs}
    assert partitions["category"] == "hook"
    assert partitions["dataset_and_model"] is None
    assert {run.tags[PID_TAG] for run in runs} == {str(os.getpid())}
    # What the UI lists runs by, under their jobs and on its Overview.
    assert {repository_label(run) for run in runs} == {"__repository__@hoi_assets.definitions"}


def repository_label(run: dg.DagsterRun) -> str | None:
    origin = run.remote_job_origin
    return None if origin is None else origin.repository_origin.get_label()


def test_runs_that_regenerate_makes_are_listed_where_it_is(folder, instance):
    ours = repository_of(instance, None)
    elsewhere = type(ours)(ours.code_location_origin, "elsewhere")
    parent = instance.create_run_for_job(
        small_line_job(), remote_job_origin=elsewhere.get_job_origin("regenerate")
    )
    run_pipelines(small_project(folder), instance, ["hook"], log=quiet, parent_run_id=parent.run_id)
    assert {repository_label(run) for run in instance.get_runs()} == {
        "elsewhere@hoi_assets.definitions"
    }


def test_second_loop_over_the_same_inputs_makes_nothing(folder, instance):
    project = small_project(folder)
    run_pipelines(project, instance, ["hook", "worn"], log=quiet)
    before = calls(folder)
    report = run_pipelines(small_project(folder), instance, ["hook", "worn"], log=quiet)
    assert calls(folder) == before
    assert {done.end for done in report.done} == {"unchanged"}


def test_only_stale_makes_what_changed_and_what_follows(folder, instance):
    project = small_project(folder)
    run_pipelines(project, instance, ["hook", "worn"], log=quiet)
    before = len(calls(folder))
    report = run_pipelines(project, instance, ["hook", "worn"], only="stale", log=quiet)
    assert {done.end for done in report.done} == {"skipped"}
    write_taxonomy(folder / "taxonomy", {"worn": [*GOOD, "a new cup"]})
    report = run_pipelines(project, instance, ["hook", "worn"], only="stale", log=quiet)
    assert ends(report.done)["category", "hook"] == "skipped"
    assert calls(folder)[before:] == [
        "prompts worn",
        "pictures worn",
        "dataset _",
        "model _",
        "evaluation hook",
        "evaluation worn",
        "report _",
    ]


def test_only_failed_tries_the_held_category_and_no_other(folder, instance):
    project = small_project(folder)
    run_pipelines(project, instance, CATEGORIES, log=quiet)
    before = len(calls(folder))
    write_taxonomy(folder / "taxonomy", {"tripod": GOOD, "hook": [*GOOD, "a new cup"]})
    report = run_pipelines(project, instance, CATEGORIES, only="failed", log=quiet)
    assert not report.blocked
    assert ends(report.done)["category", "hook"] == "skipped"
    assert calls(folder)[before : before + 3] == ["prompts tripod", "pictures tripod", "dataset _"]
    weights = project.platform.store.require("model").json("weights")
    assert weights == ["hook", "tripod", "worn"]


def test_only_missing_makes_the_category_that_never_was(folder, instance):
    project = small_project(folder)
    run_pipelines(project, instance, ["hook"], log=quiet)
    write_taxonomy(folder / "taxonomy", {"hook": [*GOOD, "a new cup"]})
    before = len(calls(folder))
    run_pipelines(project, instance, ["hook", "worn"], only="missing", log=quiet)
    assert calls(folder)[before : before + 3] == ["prompts worn", "pictures worn", "dataset _"]


def test_failure_for_all_categories_leaves_out_what_requires_it(folder, instance):
    write_profile(folder, dataset={"min_categories": 5})
    report = run_pipelines(small_project(folder), instance, ["hook", "worn"], log=quiet)
    (blocked,) = report.blocked
    assert (blocked.job, blocked.asset) == ("dataset_and_model", "dataset")
    assert "observed 2" in blocked.reason
    after = [one for one in report.done if one.job in ("category_evaluation", "reporting")]
    assert {(one.end, one.reason) for one in after} == {("skipped", "dataset is blocked")}


def test_partitions_in_use_are_the_profiles_and_those_made_before(folder, instance):
    write_profile(folder, run_categories=["worn"])
    project = small_project(folder)
    assert project.keys_in_use() == ("worn",)
    run_pipelines(project, instance, ["hook"], log=quiet)
    assert project.keys_in_use() == ("hook", "worn")


def test_unknown_category_is_named_with_those_known(folder):
    with pytest.raises(HoiError, match=r"(?s)'hok'.*hook, .*tripod, worn"):
        small_project(folder).chosen(["hok"])


# --- the jobs that loop ------------------------------------------------------------------------


def test_regenerate_runs_the_same_loop_and_fails_naming_the_held(folder, instance):
    project = small_project(folder)
    job = all_definitions(project).resolve_job_def("regenerate")
    result = job.execute_in_process(instance=instance, raise_on_error=False)
    assert not result.success
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    told = failure.step_failure_data.user_failure_data.description
    assert told.startswith("blocked: tripod")
    children = [run for run in instance.get_runs() if run.job_name != "regenerate"]
    assert {run.tags[DRIVER_TAG] for run in children} == {result.run_id}
    assert project.platform.store.require("model").json("weights") == ["hook", "worn"]


def test_regenerate_takes_categories_and_what_to_make(folder, instance):
    job = all_definitions(small_project(folder)).resolve_job_def("regenerate")
    config = {"partitions": ["hook"], "only": "missing"}
    result = job.execute_in_process(
        instance=instance, run_config={"ops": {"regenerate_loop": {"config": config}}}
    )
    assert result.success
    assert "prompts worn" not in calls(folder)
    with pytest.raises(dg.DagsterInvalidConfigError, match="only"):
        job.execute_in_process(
            instance=instance,
            run_config={"ops": {"regenerate_loop": {"config": {"only": "some"}}}},
        )


def test_nightly_schedule_asks_for_what_is_stale(folder, instance):
    repository = all_definitions(small_project(folder)).get_repository_def()
    schedule = repository.get_schedule_def("nightly_regeneration")
    with dg.build_schedule_context(instance=instance, repository_def=repository) as context:
        tick = schedule.evaluate_tick(context)
    assert len(tick.run_requests or []) == 1


def test_what_follows_the_categories_is_asked_for_by_its_condition(folder, instance):
    project = small_project(folder)
    definitions = all_definitions(project)
    first = dg.evaluate_automation_conditions(defs=definitions, instance=instance)
    assert first.total_requested == 0
    project.pipelines.resolve_job_def("words").execute_in_process(instance=instance)
    for category in ("hook", "tripod"):
        project.pipelines.resolve_job_def("category").execute_in_process(
            partition_key=category, instance=instance, raise_on_error=False
        )
    then = dg.evaluate_automation_conditions(
        defs=definitions, instance=instance, cursor=first.cursor
    )
    # One category failed and one was never made; the fan-in goes ahead with the third.
    assert then.get_num_requested(AssetKey("dataset")) == 1
    assert then.get_num_requested(AssetKey("model")) == 1
    assert then.get_num_requested(AssetKey("prompts")) == 0
    project.pipelines.resolve_job_def("dataset_and_model").execute_in_process(instance=instance)
    last = dg.evaluate_automation_conditions(
        defs=definitions, instance=instance, cursor=then.cursor
    )
    assert last.get_requested_partitions(AssetKey("evaluation")) == {"hook"}


# --- processes that end before their runs do ---------------------------------------------------

DRIVER = """
import sys, time
from pathlib import Path
import dagster as dg
from hoi_assets.defs.project import load_project
from hoi_assets.defs.warm_loop import run_pipelines
from hoi_assets.publishing.asset import published_asset
from hoi_assets.publishing.context import Result
from hoi_assets.publishing.expectations import row_count, suite

folder = Path(sys.argv[1])

@published_asset(
    partitions_def=dg.StaticPartitionsDefinition(["hook"]),
    code_version="1",
    suite=suite(rows=[row_count()]),
)
def endless(context, staging):
    print("inside", flush=True)
    time.sleep(600)
    return Result()

project = load_project(
    str(folder / "small.yaml"),
    folder / "home",
    [endless],
    [dg.define_asset_job("job", selection=["endless"])],
)
with dg.DagsterInstance.get() as instance:
    run_pipelines(project, instance, ["hook"], log=print)
"""


def start_driver(folder: Path) -> "subprocess.Popen[str]":
    (folder / "dagster").mkdir(exist_ok=True)
    (folder / "dagster" / "dagster.yaml").write_text(
        "telemetry: {enabled: false}", encoding="utf-8"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(folder)],
        cwd=ROOT,
        env=os.environ | {"DAGSTER_HOME": str(folder / "dagster")},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    while line := process.stdout.readline():
        if line.startswith("inside"):
            return process
    raise AssertionError("the driver ended before its stage began")


@pytest.mark.slow
def test_run_of_a_killed_driver_is_reported_dead_and_its_category_is_free(folder):
    process = start_driver(folder)
    process.kill()
    process.wait()
    with dg.DagsterInstance.from_config(str(folder / "dagster")) as instance:
        (run,) = instance.get_runs()
        assert run.status == DagsterRunStatus.STARTED
        said: list[str] = []
        assert report_dead_runs(instance, said.append) == [run.run_id]
        after = instance.get_run_by_id(run.run_id)
        assert after is not None and after.status == DagsterRunStatus.FAILURE
        assert "ended without finishing" in said[0]
        with small_project(folder).platform.store.lock("endless", "hook", timeout_s=1):
            pass


@pytest.mark.slow
def test_interrupted_driver_leaves_no_run_in_progress(folder):
    process = start_driver(folder)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) != 0
    with dg.DagsterInstance.from_config(str(folder / "dagster")) as instance:
        (run,) = instance.get_runs()
        assert run.is_finished
        assert report_dead_runs(instance, quiet) == []


def started(instance: dg.DagsterInstance, tags: dict[str, str]) -> str:
    job = small_line_job()
    run = instance.create_run_for_job(job, tags=tags, status=DagsterRunStatus.STARTED)
    return run.run_id


def small_line_job() -> dg.JobDefinition:
    @dg.op
    def nothing() -> None: ...

    @dg.job
    def job() -> None:
        nothing()

    return job


def test_runs_of_living_processes_and_of_other_machines_are_left_alone(instance):
    started(instance, process_tags())
    started(instance, {**process_tags(), PID_TAG: "999999999", HOST_TAG: "elsewhere"})
    started(instance, {})
    assert report_dead_runs(instance, quiet) == []
    reused = {**process_tags(), STARTED_TAG: "1.00", HOST_TAG: socket.gethostname()}
    dead = started(instance, reused)
    assert report_dead_runs(instance, quiet) == [dead]


def test_setting_the_clock_does_not_change_when_a_process_started() -> None:
    # Seconds since the machine started; the time of day of both moves with the clock.
    started_s = float(process_tags()[STARTED_TAG])
    assert 0 < started_s < time.clock_gettime(time.CLOCK_BOOTTIME) + CLOCK_TICK_S


# --- backfills by the daemon -------------------------------------------------------------------

BACKFILL_S = 1500  # a minute and a half on a free machine; patience on a crowded one


def wait_until(ready: Callable[[], bool], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, f"{what} did not come within {seconds} s"
        time.sleep(1)


@pytest.fixture
def daemon(folder: Path) -> Iterator[dg.DagsterInstance]:
    """A real daemon over the small project, with this repository's dagster.yaml."""
    from hoi_assets.defs.dagster_home import prepare_dagster_home

    home = prepare_dagster_home(folder / "home")
    log = (folder / "daemon.log").open("w", encoding="utf-8")
    process = subprocess.Popen(
        [
            Path(sys.executable).with_name("dagster-daemon"),
            "run",
            "-m",
            "hoi_assets_tests.publishing.small_pipeline",
        ],
        cwd=ROOT,
        env=os.environ
        | {
            "DAGSTER_HOME": str(home),
            "HOI_HOME": str(folder / "home"),
            "HOI_PROFILE": str(folder / "small.yaml"),
            "DAGSTER_GRPC_TIMEOUT_SECONDS": "300",
        },
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        with dg.DagsterInstance.from_config(str(home)) as instance:
            yield instance
    finally:
        assert process.poll() is None, (folder / "daemon.log").read_text(encoding="utf-8")[-3000:]
        process.terminate()
        process.wait(timeout=60)
        log.close()


@pytest.mark.slow
@pytest.mark.timeout(2 * BACKFILL_S)
def test_backfill_by_the_daemon_keeps_the_poisoned_category_out_of_dataset_and_model(
    folder, daemon
):
    project = small_project(folder)
    with dg.DagsterInstance.ephemeral() as other:
        project.pipelines.resolve_job_def("words").execute_in_process(instance=other)
    (backfill_id,) = launch_backfills(project, daemon, CATEGORIES, {})

    def runs() -> dict[str | None, DagsterRunStatus]:
        return {
            run.tags.get("dagster/partition"): run.status
            for run in daemon.get_runs()
            if run.tags.get("dagster/backfill") == backfill_id
        }

    done = (DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE)
    wait_until(
        lambda: len(runs()) == 3 and all(status in done for status in runs().values()),
        BACKFILL_S,
        "the backfill's end",
    )
    assert runs() == {
        "hook": DagsterRunStatus.SUCCESS,
        "tripod": DagsterRunStatus.FAILURE,
        "worn": DagsterRunStatus.SUCCESS,
    }
    assert daemon.get_materialized_partitions(AssetKey("pictures")) == {"hook", "worn"}
    # The fan-in runs later, in a run of its own, and reads what was published only.
    tail = project.pipelines.resolve_job_def("dataset_and_model").execute_in_process(
        instance=daemon
    )
    assert tail.success
    store = project.platform.store
    assert set(store.require("dataset").table("rows")["category"]) == {"hook", "worn"}
    assert store.require("model").json("weights") == ["hook", "worn"]


def test_a_fan_in_without_anything_made_is_skipped_and_says_why(folder, instance):
    write_taxonomy(folder / "taxonomy", {"hook": POISON})
    report = run_pipelines(small_project(folder), instance, ["hook"], log=quiet)
    assert {one.job: one.reason for one in report.done if one.end == "skipped"} == {
        "dataset_and_model": "no partition of pictures is published",
        "category_evaluation": "blocked before",
        "reporting": "no partition of pictures is published",
    }


# --- two pipelines in one project --------------------------------------------------------------


def two_pipelines(folder: Path, verifier_passes: bool = True) -> Project:
    """The small pipeline, a second one over scenarios, and a page that reads whatever exists."""
    scenario = dg.StaticPartitionsDefinition(["functional"])

    @published_asset(partitions_def=scenario, code_version="1", suite=suite(rows=[row_count()]))
    def drawings(context: StageContext, staging: Staging) -> Result:
        staging.write_table("rows", pl.DataFrame({"scenario": [context.partition_key]}))
        return Result()

    @published_asset(
        optional_deps=["report"],
        deps=["drawings"],
        code_version="1",
        suite=suite(rows=[row_count()]),
    )
    def page(context: StageContext, staging: Staging) -> Result:
        reads = ["drawings"] + ["report"] * (context.parents["report"] is not None)
        staging.write_table("rows", pl.DataFrame({"reads": reads}))
        return Result()

    if not verifier_passes:
        write_profile(folder, dataset={"min_categories": 5})
    return load_project(
        str(folder / "small.yaml"),
        folder / "home",
        [*small_assets(["hook", "worn"]), drawings, page],
        [
            *JOBS,
            dg.define_asset_job("scenario", selection=["drawings"]),
            dg.define_asset_job("summary", selection=["page"]),
        ],
    )


def test_one_pipeline_runs_without_touching_the_other(folder, instance):
    project = two_pipelines(folder)
    report = run_pipelines(project, instance, ["functional"], log=quiet)
    assert ends(report.done) == {("scenario", "functional"): "made", ("summary", None): "made"}
    assert calls(folder) == []
    assert project.platform.store.require("page").table("rows")["reads"].to_list() == ["drawings"]


def test_a_blocked_pipeline_does_not_stop_the_other(folder, instance):
    project = two_pipelines(folder, verifier_passes=False)
    report = run_pipelines(project, instance, ["hook", "functional"], log=quiet)
    assert report.blocked_names == "dataset_and_model"
    assert ends(report.done)["scenario", "functional"] == "made"
    assert ends(report.done)["summary", None] == "made"
