"""Promises of `HOI_EXECUTOR=ray`, on a real cluster of three nodes."""

import os
import signal
import socket
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest

from hoi_assets.cluster import connection
from hoi_assets.defs.project import load_project
from hoi_assets_tests.cluster.conftest import CATEGORY, Ready, candidates, made
from hoi_assets_tests.pipeline_fixture import hoi, materialize

BATCH = 4
RUNNING = "ray::_RayWorker.run_batch"


def batch_tasks() -> Counter[str]:
    """Batches that were given to workers since the cluster began, by state."""
    from ray.util.state import list_tasks

    found = list_tasks(filters=[("name", "=", "_RayWorker.run_batch")], limit=1000, detail=False)
    return Counter(one.state for one in found)


def test_candidates_over_the_cluster_have_the_version_of_one_process(
    on_ray: str, ready: Ready, tmp_path: Path
) -> None:
    home = ready.copy(tmp_path / "home")
    made(ready.profile, home, ("candidate_images",))
    assert candidates(home).table("rows").equals(ready.drawn)
    assert candidates(home).version == ready.version
    nodes = nodes_of_workers()
    assert len(nodes) == 3, "one worker on each node"


def nodes_of_workers() -> set[str]:
    from ray.util.state import list_actors

    actors = list_actors(filters=[("class_name", "=", "_RayWorker"), ("state", "=", "ALIVE")])
    return {one.node_id for one in actors}
