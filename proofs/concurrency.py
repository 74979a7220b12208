"""Several processes on one home; the content is that of one after the other."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from hoi_assets.cli.exit_codes import ExitCode
from hoi_assets.defs.backfills import launch_backfills
from hoi_assets.defs.dagster_home import prepare_dagster_home
from hoi_assets.defs.warm_loop import run_pipelines
from hoi_assets.rating.raters import make_links
from hoi_assets.rating.vote_tables import votes_table
from hoi_assets.settings import ROOT
from hoi_assets.store import catalogue
from hoi_assets.store.versions import Store
from hoi_assets_tests.publishing.small_pipeline import (
    GOOD,
    calls,
    small_project,
    write_profile,
    write_taxonomy,
)
from hoi_assets_tests.rating.conftest import study_of
from hoi_assets_tests.rating.server import Server as RatingServer
from proofs.campaign import Campaign, Trial
from proofs.children import FEW, MANY, preload, start
from proofs.homes import content_of, fault_of
from proofs.pipelines import PIPELINES, endpoint, run_pipeline, small_profile, twice
from proofs.rewriting import KEY

TRIALS = 8
PATIENCE_S = 900.0
QUERIES_S = 8.0
READERS, ROWS = 3, 200
CATEGORIES = ("hook", "tripod", "worn")
VOTES = 20
SMALL = "hoi_assets_tests.publishing.small_pipeline"
DONE = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
ASKED = "{ assetNodes { assetMaterializations(limit: 1) { runId } } runsOrError { __typename } }"


# --- the catalogue ------------------------------------------------------------------------------


def publish_on(home: Path, seconds: float, number: int) -> None:
    """Publish version after version, each of rows that hold the same number, growing from `number`
    on, and take the catalogue away now and then."""
    store, end, first = Store(home), time.monotonic() + seconds, number
    while time.monotonic() < end or number == first:
        number += 1
        with store.stage("pictures", "hook") as staging:
            staging.write_table("rows", pl.DataFrame({"number": [number] * ROWS}))
            store.publish(staging, {}, None)
        if number % 5 == 0:
            catalogue.catalogue_path(store).unlink(missing_ok=True)


def query_on(home: Path, seconds: float) -> None:
    """Query until the time is over; every answer must be of one version, whole and no older than
    the one before."""
    store, end, last, answers = Store(home), time.monotonic() + seconds, 0, 0
    text = "select count(*) as n, min(number) as low, max(number) as high from pictures"
    while time.monotonic() < end or not answers:
        rows, low, high = catalogue.query(store, text).row(0)
        if (rows, low) != (ROWS, high) or low < last:
            raise SystemExit(f"{rows} rows of {low} to {high} after {last}")
        last, answers = low, answers + 1
    print(f"{answers} answers, up to version {last}")


def _catalogue(folder: Path) -> str:
    home = folder / "home"
    publish_on(home, 0, 0)
    writers = [start(publish_on, (home, QUERIES_S, 1), folder / "writer.log")]
    readers = [
        start(query_on, (home, QUERIES_S), folder / f"reader-{number}.log")
        for number in range(READERS)
    ]
    for child in (*writers, *readers):
        if child.wait(PATIENCE_S):
            return child.printed[-300:]
    return ""


# --- the rating page ----------------------------------------------------------------------------


def _rating(folder: Path) -> str:
    """Two servers of one study: the second is refused, and takes over once the first is gone."""
    study = study_of(folder, "rating")
    first = RatingServer(study)
    try:
        url = make_links(study, ["anna"], first.url)["anna"]
        code = "import sys; from proofs.concurrency import serve_told; serve_told(sys.argv[1])"
        command = [sys.executable, "-c", code, str(study)]
        for place in range(1, VOTES + 1):
            if place == VOTES // 2:
                second = subprocess.run(command, cwd=ROOT, text=True, capture_output=True)
                if second.returncode != ExitCode.USER_ERROR or "already" not in second.stderr:
                    return f"second server: {second.returncode} {second.stderr[-300:]}"
            _vote(url, place)
        first.kill()
        first.start()
        _vote(url, VOTES + 1)
    finally:
        first.kill()
    table = votes_table(study).sort("line")
    votes = table.filter(status="accepted")["place"].to_list()
    return "" if votes == [*range(1, VOTES + 2)] else f"votes of places {votes}"


def serve_told(folder: str) -> None:
    """Serve a study as `hoi rate serve` does."""
    from hoi_assets.cli.main import told
    from hoi_assets.rating.page import serve

    sys.exit(int(told(lambda: serve(Path(folder), port=0))))


def _vote(url: str, place: int) -> None:
    body = {"place": place, "question": "fidelity", "answer": 1 + place % 5}
    request = urllib.request.Request(f"{url}votes", json.dumps(body).encode())
    urllib.request.urlopen(request, timeout=30).close()


# --- backfills and the UI -----------------------------------------------------------------------


def _backfills(folder: Path) -> str:
    """By Dagster's daemon: one category twice and all at once, while the UI's server is read."""
    serial, busy = folder / "serial", folder / "busy"
    for place in (serial, busy):
        write_taxonomy(place / "taxonomy", dict.fromkeys(CATEGORIES, GOOD))
        write_profile(place)
    with dg.DagsterInstance.ephemeral() as instance:
        run_pipelines(small_project(serial), instance, CATEGORIES, log=lambda _: None)
    project = small_project(busy)
    home = prepare_dagster_home(busy / "home")
    with (
        dg.DagsterInstance.from_config(str(home)) as instance,
        _dagster(busy, home, "dagster-daemon", "run", "-m", SMALL),
        _webserver(busy, home) as url,
    ):
        project.pipelines.resolve_job_def("words").execute_in_process(instance=instance)
        asked = [("hook",), ("hook",), CATEGORIES]
        for keys in asked:
            launch_backfills(project, instance, keys, {})
        answers = _read_ui(url, instance, sum(map(len, asked)))
        failed = [run.run_id for run in instance.get_runs() if run.status != DONE[0]]
        run_pipelines(project, instance, CATEGORIES, log=lambda _: None)
    if failed or not answers:
        return f"{len(failed)} runs failed, {answers} answers of the UI"
    made_twice = len(calls(busy)) - len(calls(serial))
    if made_twice:
        return f"{made_twice} steps computed twice"
    return fault_of(busy / "home", content_of(serial / "home"))


def _read_ui(url: str, instance: dg.DagsterInstance, wanted: int) -> int:
    """Ask the UI's server until so many backfilled runs have ended; how often it answered."""
    end, answers = time.monotonic() + PATIENCE_S, 0
    while time.monotonic() < end:
        found = _graphql(url, ASKED)
        if "errors" in found:
            raise RuntimeError(f"the UI's server answered {str(found['errors'])[:300]}")
        answers += 1
        runs = [run for run in instance.get_runs() if "dagster/backfill" in run.tags]
        if len(runs) == wanted and all(run.status in DONE for run in runs):
            return answers
        time.sleep(0.5)
    raise TimeoutError(f"{len(runs)} of {wanted} runs after {PATIENCE_S:.0f} s")


def _graphql(url: str, query: str) -> dict[str, Any]:
    body = json.dumps({"query": query}).encode()
    request = urllib.request.Request(
        f"{url}/graphql", body, headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


@contextmanager
def _dagster(folder: Path, home: Path, command: str, *arguments: str) -> Iterator[None]:
    environment = {
        "DAGSTER_HOME": str(home),
        "HOI_HOME": str(folder / "home"),
        "HOI_PROFILE": str(folder / "small.yaml"),
        "DAGSTER_GRPC_TIMEOUT_SECONDS": "300",
    }
    with (folder / f"{command}.log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [Path(sys.executable).with_name(command), *arguments],
            cwd=ROOT,
            env=os.environ | environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait(timeout=120)


@contextmanager
def _webserver(folder: Path, home: Path) -> Iterator[str]:
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    arguments = ("-m", SMALL, "-p", str(port), "-h", "127.0.0.1")
    with _dagster(folder, home, "dagster-webserver", *arguments):
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                _graphql(url, "{ version }")
                break
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.5)
        yield url


def _free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


# --- four processes -----------------------------------------------------------------------------


def _four_processes(folder: Path) -> str:
    """Each pipeline twice at once, against one after the other."""
    with endpoint() as calls_made:
        profile = small_profile(folder, calls_made.server.url)
        asked = []
        for name, waves in (
            ("serial", [(one,) for one in PIPELINES]),
            ("busy", [2 * [*PIPELINES]]),
        ):
            calls_made.asked.clear()
            for wave in (*waves, (" ".join(PIPELINES),)):
                fault = _runs(folder, name, profile, wave)
                if fault:
                    return fault
            asked.append(calls_made.twice())
    drawn = [twice(folder / f"{name}.drawn") for name in ("serial", "busy")]
    if drawn[1] > drawn[0] or asked[1] > asked[0]:
        return f"{drawn[1] - drawn[0]} pictures and {asked[1] - asked[0]} replies made twice"
    return fault_of(folder / "busy", content_of(folder / "serial"))


def _runs(folder: Path, name: str, profile: Path, pipelines: tuple[str, ...] | list[str]) -> str:
    environment = {"HOI_HOME": str(folder / name), "HOI_PROFILE": str(profile), "DAGSTER_HOME": ""}
    children = [
        start(
            run_pipeline,
            (["run", *(PIPELINES[one] for one in names.split())], folder / f"{name}.drawn"),
            folder / f"{name}-{number}.log",
            {**environment, **KEY},
        )
        for number, names in enumerate(pipelines)
    ]
    codes = [child.wait() for child in children]
    failed = [child for child, code in zip(children, codes, strict=True) if code]
    return f"{name}: {failed[0].printed[-500:]}" if failed else ""


KINDS: dict[str, Callable[[Path], str]] = {
    "catalogue rebuilt under queries": _catalogue,
    "two servers of one study": _rating,
    "backfills of one category twice and of all, while the UI is read": _backfills,
    "four processes, each pipeline twice": _four_processes,
}


def _run(folder: Path, seed: int, trials: int | None) -> Iterator[Trial]:
    wanted = TRIALS if trials is None else trials
    preload("proofs.small_work", *FEW, *(MANY if wanted >= len(KINDS) else ()))
    for number, (name, make) in enumerate(islice(cycle(KINDS.items()), wanted)):
        own = folder.resolve() / f"{number}"
        own.mkdir()
        yield Trial(name, make(own))


CAMPAIGN = Campaign(
    "concurrency",
    "four processes at once give the bytes of one after the other, and make nothing twice",
    _run,
)
