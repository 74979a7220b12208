"""Promises of `HOI_EXECUTOR=ray`, on a real cluster of three nodes."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import psutil
import pytest

from hoi_assets.cluster.batch_map import RayBatchMap
from hoi_assets.cluster.connection import connect
from hoi_assets.cluster.resources import Resources
from hoi_assets.cluster.workers import Workers
from hoi_assets.engines import batch_map
from hoi_assets.engines.batch_map import BatchTask, Compute
from hoi_assets.errors import HoiError
from hoi_assets.settings import Ray
from hoi_assets.store.versions import Store
from hoi_assets_tests.cluster.conftest import CATEGORY, Ready, made
from hoi_assets_tests.cluster.loopback import NODES
from hoi_assets_tests.pipeline_fixture import materialize

CANDIDATES = ("candidate_images",)
# Title of a worker's process while it computes a batch.
COMPUTING = "ray::_RayWorker.run_batch"
SHOWN_WITHIN_S = 20


def test_candidates_over_the_cluster_have_the_version_of_one_process(
    on_ray: str, ready: Ready, tmp_path: Path
) -> None:
    home = ready.copy(tmp_path / "home")
    before = batches()
    made(ready.profile, home, CANDIDATES)
    published = Store(home).require("candidate_images", CATEGORY)
    assert published.table("rows").equals(ready.drawn)
    assert published.version == ready.version
    assert settled(before) == {"FINISHED": batches_of(ready.drawn)}
    assert len(nodes_of_workers()) == NODES


def test_a_killed_worker_is_replaced_and_its_batch_alone_is_drawn_again(
    on_ray: str, ready: Ready, tmp_path: Path
) -> None:
    home = ready.copy(tmp_path / "home")
    before, killed = batches(), list[int]()
    killer = threading.Thread(target=kill_a_computing_worker, args=(killed,))
    killer.start()
    made(ready.profile, home, CANDIDATES)
    killer.join()
    assert len(killed) == 1
    assert Store(home).require("candidate_images", CATEGORY).version == ready.version
    assert settled(before) == {"FINISHED": batches_of(ready.drawn), "FAILED": 1}


def test_a_run_on_the_ray_executor_ends_green_with_the_same_version(
    on_ray: str, ready: Ready, tmp_path: Path
) -> None:
    """The step is a job of the cluster, and shares its batches out from there; how many workers it
    has is in no version."""
    from ray.job_submission import JobSubmissionClient

    home = ready.copy(tmp_path / "home")
    current = batch_map.in_use()
    if isinstance(current, RayBatchMap):
        current.close()  # its workers take all CPUs
    before = batches()
    profile = tmp_path / "small.yaml"
    text = ready.profile.read_text(encoding="utf-8")
    profile.write_text(f"{text}ray: {{max_workers: 1}}\n", encoding="utf-8")
    materialize(home, profile, "candidate_images", CATEGORY)
    assert Store(home).require("candidate_images", CATEGORY).version == ready.version
    client = JobSubmissionClient(on_ray)
    (job,) = (one for one in client.list_jobs() if one.submission_id)
    assert (job.metadata or {})["dagster/op"] == "candidate_images"
    until = time.monotonic() + SHOWN_WITHIN_S
    while client.get_job_status(job.submission_id) == "RUNNING" and time.monotonic() < until:
        time.sleep(0.5)
    assert client.get_job_status(job.submission_id) == "SUCCEEDED"
    assert settled(before) == {"FINISHED": batches_of(ready.drawn)}


@dataclass(frozen=True, kw_only=True)
class Fault(BatchTask[str, str]):
    """Ends its worker's process, or raises."""

    def run(self, batch: Sequence[str]) -> Iterator[str]:
        if batch[0] == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        raise HoiError(f"{batch[0]} cannot be drawn", "draw another")
        yield


def test_a_batch_that_kills_its_workers_ends_the_step(on_ray: str) -> None:
    connect()
    workers = Workers(Resources(0, 1), Ray(batch_retries=1, max_workers=1), "cpu", None)
    task = Fault(compute=Compute("cpu", 1))
    try:
        with pytest.raises(HoiError, match=r"a ball cannot be drawn\n  draw another"):
            list(workers.run(task, ["a ball"], lambda batch: [batch]))
        with pytest.raises(HoiError, match="2 workers died with the same batch"):
            list(workers.run(task, ["die"], lambda batch: [batch]))
    finally:
        workers.close()


def test_a_worker_that_fits_no_node_is_named_with_what_the_nodes_have(on_ray: str) -> None:
    connect()
    workers = Workers(Resources(1, 1), Ray(start_timeout_s=1), "cpu", None)
    try:
        with pytest.raises(HoiError, match="takes GPU 1, CPU 1; the nodes have: GPU 0, CPU 1"):
            list(workers.run(Fault(compute=Compute("cpu", 1)), ["a"], lambda batch: [batch]))
    finally:
        workers.close()


def batches_of(drawn: pl.DataFrame) -> int:
    """In how many batches the rows are drawn: round by round, a slot once in each."""
    by_round = drawn.group_by("round", "slot").len().group_by("round").agg(pl.max("len"))
    return int(by_round["len"].sum())


def batches() -> Counter[str]:
    """Batches that workers were given since the cluster began, by state."""
    from ray.util.state import list_tasks

    found = list_tasks(filters=[("name", "=", "_RayWorker.run_batch")], limit=1000)
    return Counter(one.state for one in found)


def settled(before: Counter[str]) -> Counter[str]:
    """Batches since then, once Ray has noted how all of them ended."""
    until = time.monotonic() + SHOWN_WITHIN_S
    while True:
        found = batches() - before
        if set(found) <= {"FINISHED", "FAILED"} or time.monotonic() > until:
            return found
        time.sleep(0.5)


def nodes_of_workers() -> set[str]:
    from ray.util.state import list_actors

    actors = list_actors(filters=[("class_name", "=", "_RayWorker"), ("state", "=", "ALIVE")])
    return {one.node_id for one in actors}


def kill_a_computing_worker(killed: list[int]) -> None:
    """Kill -9 the first worker of our cluster that is seen at a batch."""
    until = time.monotonic() + 240
    while time.monotonic() < until:
        for process in psutil.Process(os.getpid()).children(recursive=True):
            try:
                if COMPUTING in " ".join(process.cmdline()):
                    process.send_signal(signal.SIGKILL)
                    killed.append(process.pid)
                    return
            except psutil.NoSuchProcess:
                continue
        time.sleep(0.05)
