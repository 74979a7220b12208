"""Defects planted in runs launched by `hoi run`, by the daemon's backfill and by clicks.

The processes are the user's: the command line, `dagster dev` with its webserver and daemon, and a
process of its own for each run. A click is the request that the UI sends for it.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
from dagster import DagsterRunStatus

from hoi_assets.defs.backfills import launch_backfills
from hoi_assets.defs.dagster_home import prepare_dagster_home
from hoi_assets.defs.project import Project
from hoi_assets.defs.runs import DRIVER_TAG
from hoi_assets.publishing.asset import FORCE_TAG
from hoi_assets.settings import ROOT
from hoi_assets_tests.pipeline_fixture import CATEGORIES, SCENARIO, environment
from proofs.campaign import Trial
from proofs.defects import DEFECTS
from proofs.doctored import plant
from proofs.verdict import escaped
from proofs.versions import in_force

Planted = Mapping[str, str]  # place: name of a defect

START_S = 300
RUNS_S = 1500
FORCE = {FORCE_TAG: "true"}
DONE = (DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED)
A, B = CATEGORIES

# No two in one chain, or the first would hide the second.
BY_RUN = {
    f"detailed_prompts/{A}": "detailed_prompts: empty caption",
    f"category_loras/{B}": "category_loras: zero weights",
    "hoi_dataset": "hoi_dataset: train/test leak",
    f"initial_images/{SCENARIO}": "initial_images: all the same",
}
BY_BACKFILL = {
    f"candidate_images/{A}": "candidate_images: blank",
    f"instance_images/{B}": "instance_images: one picture for all",
    f"refined_images/{SCENARIO}": "refined_images: nothing chosen",
}
BY_CLICK = {
    "verifier": "verifier: accepts all",
    f"verified_pairs/{B}": "verified_pairs: none accepted",
    "interacting_scorecards": "interacting_scorecards: scores missing",
}
LAUNCH = """mutation ($params: ExecutionParams!) { launchRun(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""


def by_run(project: Project, profile: Path) -> Iterator[Trial]:
    """All of `BY_RUN` in one `hoi run --force`."""
    store = project.platform.store
    before = in_force(store)
    plant(store.home, BY_RUN)
    done = subprocess.run(
        [sys.executable, "-m", "proofs.doctored", "run", "--force", *CATEGORIES, SCENARIO],
        cwd=ROOT,
        env=environment(store.home, profile),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=RUNS_S,
    )
    for place, name in BY_RUN.items():
        fault = escaped(store, place, DEFECTS[name], before, done.returncode != 1)
        yield Trial(f"hoi run, {name}", f"{fault}\n{done.stdout[-2000:]}" if fault else "")


def by_daemon_and_clicks(project: Project, profile: Path) -> Iterator[Trial]:
    """`BY_BACKFILL` as `hoi backfill` launches it, then `BY_CLICK`."""
    store = project.platform.store
    before = in_force(store)
    with serving(store.home, profile) as (url, instance):
        plant(store.home, BY_BACKFILL)
        launch_backfills(project, instance, [*CATEGORIES, SCENARIO], FORCE)
        ended = wait_for_runs(instance, 3)
        yield from _trials(project, BY_BACKFILL, before, "backfill", ended)
        plant(store.home, BY_CLICK)
        for place in BY_CLICK:
            click(url, *place.split("/"))
        ended = wait_for_runs(instance, 3 + len(BY_CLICK))
        yield from _trials(project, BY_CLICK, before, "click", ended)


def _trials(
    project: Project, planted: Planted, before: Mapping[str, str], way: str, ended: set[str]
) -> Iterator[Trial]:
    for place, name in planted.items():
        succeeded = DagsterRunStatus.SUCCESS.value in ended
        fault = escaped(project.platform.store, place, DEFECTS[name], before, succeeded)
        yield Trial(f"{way}, {name}", fault)


def click(url: str, asset: str, partition: str | None = None) -> str:
    """What the button Materialize sends for one asset; the run's id."""
    tags = {**FORCE, **({"dagster/partition": partition} if partition else {})}
    params = {
        "mode": "default",
        "runConfigData": "{}",
        "selector": {
            "repositoryLocationName": "proofs.doctored",
            "repositoryName": "__repository__",
            "jobName": "__ASSET_JOB",
            "assetSelection": [{"path": [asset]}],
        },
        "executionMetadata": {"tags": [{"key": k, "value": v} for k, v in tags.items()]},
    }
    found = _ask(url, LAUNCH, {"params": params})["launchRun"]
    if found["__typename"] != "LaunchRunSuccess":
        raise AssertionError(f"{asset} was not launched: {found}")
    return str(found["run"]["runId"])


def _ask(url: str, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(f"{url}/graphql", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=START_S) as reply:
        answer = json.loads(reply.read())
    if answer.get("errors"):
        raise AssertionError(str(answer["errors"])[:1000])
    found: dict[str, Any] = answer["data"]
    return found


def wait_for_runs(instance: dg.DagsterInstance, number: int) -> set[str]:
    """How all runs ended that a backfill or a click launched, once there are so many."""

    def ended() -> list[DagsterRunStatus]:
        # Runs of `hoi run` have a driver.
        forced = [run for run in instance.get_runs() if FORCE_TAG in run.tags]
        return [run.status for run in forced if DRIVER_TAG not in run.tags and run.status in DONE]

    _until(lambda: len(ended()) >= number, RUNS_S, f"the end of {number} runs")
    return {status.value for status in ended()}


@contextmanager
def serving(home: Path, profile: Path) -> Iterator[tuple[str, dg.DagsterInstance]]:
    """Webserver and daemon of the doctored pipelines: the address, and their instance."""
    dagster_home = prepare_dagster_home(home)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    log = (home.parent / "dagster_dev.log").open("w", encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, "-m", "dagster", "dev", "-m", "proofs.doctored", "-p", str(port)],
        cwd=ROOT,
        env=environment(home, profile)
        | {"DAGSTER_HOME": str(dagster_home), "DAGSTER_GRPC_TIMEOUT_SECONDS": "300"},
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _until(lambda: _answers(url), START_S, "the webserver")
        with dg.DagsterInstance.from_config(str(dagster_home)) as instance:
            yield url, instance
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        log.close()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/server_info", timeout=5):
            return True
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False


def _until(ready: Callable[[], bool], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not come within {seconds:.0f} s")
        time.sleep(1)
