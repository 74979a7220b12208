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
import pytest
from dagster import AssetKey, DagsterRunStatus

from hoi_assets.definitions import build_definitions
from hoi_assets.defs.automation import (
    DRIVER_TAG,
    HOST_TAG,
    PID_TAG,
    STARTED_TAG,
    Done,
    drive,
    keys_in_use,
    launch_backfills,
    process_tags,
    report_dead_runs,
)
from hoi_assets.errors import HoiError
from hoi_assets.grammar.plans import SCENARIOS
from hoi_assets.settings import ROOT
from hoi_assets_tests.publishing.small_pipeline import (
    GOOD,
    POISON,
    calls,
    small_line,
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
    line = small_line(folder)
    said: list[str] = []
    report = drive(line, instance, CATEGORIES, log=said.append)
    assert ends(report.done) == {
        ("line_head", None): "made",
        ("hand_pose_line", "hook"): "made",
        ("hand_pose_line", "tripod"): "held",
        ("hand_pose_line", "worn"): "made",
        ("line_dataset", None): "made",
        ("hand_pose_evaluation", "hook"): "made",
        ("hand_pose_evaluation", "tripod"): "skipped",
        ("hand_pose_evaluation", "worn"): "made",
        ("line_tail", None): "made",
    }
    (held,) = report.held
    assert (held.partition, held.asset) == ("tripod", "prompts")
    assert "expect_column_values_to_be_unique" in held.reason
    assert "tripod" in report.table()
    assert any("hand_pose_line tripod (2/3): held" in text for text in said)
    assert line.platform.store.require("model").json("weights") == ["hook", "worn"]


def test_every_run_of_the_loop_is_in_dagster_with_its_partition(folder, instance):
    drive(small_line(folder), instance, ["hook"], log=quiet, parent_run_id="the-parent")
    runs = instance.get_runs()
    assert {run.tags[DRIVER_TAG] for run in runs} == {"the-parent"}
    assert all(run.status == DagsterRunStatus.SUCCESS for run in runs)
    partitions = {run.job_name: run.tags.get("dagster/partition") for run in runs}
    assert partitions["hand_pose_line"] == "hook"
    assert partitions["line_dataset"] is None
    assert {run.tags[PID_TAG] for run in runs} == {str(os.getpid())}


def test_second_loop_over_the_same_inputs_makes_nothing(folder, instance):
    line = small_line(folder)
    drive(line, instance, ["hook", "worn"], log=quiet)
    before = calls(folder)
    report = drive(small_line(folder), instance, ["hook", "worn"], log=quiet)
    assert calls(folder) == before
    assert {done.end for done in report.done} == {"unchanged"}


def test_only_stale_makes_what_changed_and_what_follows(folder, instance):
    line = small_line(folder)
    drive(line, instance, ["hook", "worn"], log=quiet)
    before = len(calls(folder))
    report = drive(line, instance, ["hook", "worn"], only="stale", log=quiet)
    assert {done.end for done in report.done} == {"skipped"}
    write_taxonomy(folder / "taxonomy", {"worn": [*GOOD, "a new cup"]})
    report = drive(line, instance, ["hook", "worn"], only="stale", log=quiet)
    assert ends(report.done)["hand_pose_line", "hook"] == "skipped"
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
    line = small_line(folder)
    drive(line, instance, CATEGORIES, log=quiet)
    before = len(calls(folder))
    write_taxonomy(folder / "taxonomy", {"tripod": GOOD, "hook": [*GOOD, "a new cup"]})
    report = drive(line, instance, CATEGORIES, only="failed", log=quiet)
    assert not report.held
    assert ends(report.done)["hand_pose_line", "hook"] == "skipped"
    assert calls(folder)[before : before + 3] == ["prompts tripod", "pictures tripod", "dataset _"]
    weights = line.platform.store.require("model").json("weights")
    assert weights == ["hook", "tripod", "worn"]


def test_only_missing_makes_the_category_that_never_was(folder, instance):
    line = small_line(folder)
    drive(line, instance, ["hook"], log=quiet)
    write_taxonomy(folder / "taxonomy", {"hook": [*GOOD, "a new cup"]})
    before = len(calls(folder))
    drive(line, instance, ["hook", "worn"], only="missing", log=quiet)
    assert calls(folder)[before : before + 3] == ["prompts worn", "pictures worn", "dataset _"]


def test_failure_for_all_categories_ends_the_loop_there(folder, instance):
    write_profile(folder, dataset={"min_categories": 5})
    report = drive(small_line(folder), instance, ["hook", "worn"], log=quiet)
    assert report.done[-1].job == "line_dataset"
    assert report.done[-1].asset == "dataset"
    assert "observed 2" in report.done[-1].reason


def test_partitions_in_use_are_the_profiles_and_those_made_before(folder, instance):
    write_profile(folder, run_categories=["worn"])
    line = small_line(folder)
    assert keys_in_use(line) == ("worn", *SCENARIOS)
    drive(line, instance, ["hook"], log=quiet)
    assert keys_in_use(line) == ("hook", "worn", *SCENARIOS)


def test_unknown_category_is_named_with_those_known(folder):
    with pytest.raises(HoiError, match=r"(?s)'hok'.*functional, hook, .*tripod, worn"):
        small_line(folder).platform.chosen(["hok"])


# --- the jobs that loop ------------------------------------------------------------------------


def test_regenerate_runs_the_same_loop_and_fails_naming_the_held(folder, instance):
    line = small_line(folder)
    job = build_definitions(line).resolve_job_def("regenerate")
    result = job.execute_in_process(instance=instance, raise_on_error=False)
    assert not result.success
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    told = failure.step_failure_data.user_failure_data.description
    assert told.startswith("held: tripod")
    children = [run for run in instance.get_runs() if run.job_name != "regenerate"]
    assert {run.tags[DRIVER_TAG] for run in children} == {result.run_id}
    assert line.platform.store.require("model").json("weights") == ["hook", "worn"]


def test_regenerate_takes_categories_and_what_to_make(folder, instance):
    job = build_definitions(small_line(folder)).resolve_job_def("regenerate")
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
    repository = build_definitions(small_line(folder)).get_repository_def()
    (schedule,) = repository.schedule_defs
    with dg.build_schedule_context(instance=instance, repository_def=repository) as context:
        tick = schedule.evaluate_tick(context)
    assert len(tick.run_requests or []) == 1


def test_what_follows_the_categories_is_asked_for_by_its_condition(folder, instance):
    line = small_line(folder)
    definitions = build_definitions(line)
    first = dg.evaluate_automation_conditions(defs=definitions, instance=instance)
    assert first.total_requested == 0
    line.defs.resolve_job_def("line_head").execute_in_process(instance=instance)
    for category in ("hook", "tripod"):
        line.defs.resolve_job_def("hand_pose_line").execute_in_process(
            partition_key=category, instance=instance, raise_on_error=False
        )
    then = dg.evaluate_automation_conditions(
        defs=definitions, instance=instance, cursor=first.cursor
    )
    # One category failed and one was never made; the fan-in goes ahead with the third.
    assert then.get_num_requested(AssetKey("dataset")) == 1
    assert then.get_num_requested(AssetKey("model")) == 1
    assert then.get_num_requested(AssetKey("prompts")) == 0
    line.defs.resolve_job_def("line_dataset").execute_in_process(instance=instance)
    last = dg.evaluate_automation_conditions(
        defs=definitions, instance=instance, cursor=then.cursor
    )
    assert last.get_requested_partitions(AssetKey("evaluation")) == {"hook"}


# --- processes that end before their runs do ---------------------------------------------------

DRIVER = """
import sys, time
from pathlib import Path
import dagster as dg
from hoi_assets.defs.automation import drive
from hoi_assets.publishing.expectations import rows
from hoi_assets.publishing.stage import Result, stage
from hoi_assets.definitions import build_line

folder = Path(sys.argv[1])

@stage("endless", partitions="hand_pose", code_version="1")
def endless(work, out):
    print("inside", flush=True)
    time.sleep(600)
    return Result()

line = build_line(str(folder / "small.yaml"), folder / "home", [endless], {"endless": rows("rows")})
with dg.DagsterInstance.get() as instance:
    drive(line, instance, ["hook"], say=print)
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
        with small_line(folder).platform.store.lock("endless", "hook", timeout_s=1):
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


# --- backfills by the daemon -------------------------------------------------------------------

BACKFILL_S = 1500  # a minute and a half on a free machine; patience on a crowded one


def wait_until(ready: Callable[[], bool], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, f"{what} did not come within {seconds} s"
        time.sleep(1)


@pytest.fixture
def daemon(folder: Path) -> Iterator[dg.DagsterInstance]:
    """A real daemon over the small line, with this repository's dagster.yaml."""
    from hoi_assets.defs.resources import prepare_dagster_home

    home = prepare_dagster_home(folder / "home")
    log = (folder / "daemon.log").open("w", encoding="utf-8")
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "dagster._daemon",
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
    line = small_line(folder)
    with dg.DagsterInstance.ephemeral() as other:
        line.defs.resolve_job_def("line_head").execute_in_process(instance=other)
    (backfill_id,) = launch_backfills(line, daemon, CATEGORIES, {})

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
    tail = line.defs.resolve_job_def("line_dataset").execute_in_process(instance=daemon)
    assert tail.success
    store = line.platform.store
    assert set(store.require("dataset").table("rows")["category"]) == {"hook", "worn"}
    assert store.require("model").json("weights") == ["hook", "worn"]


def test_a_fan_in_without_anything_made_is_skipped_and_says_why(folder, instance):
    line = small_line(folder)
    report = drive(line, instance, list(SCENARIOS), log=quiet)
    assert [(one.job, one.end, one.reason) for one in report.done[1:]] == [
        ("line_dataset", "skipped", "no hand_pose is made"),
        ("line_tail", "skipped", "no hand_pose is made"),
    ]
    assert not report.held
