"""SIGKILL to workers and to the head of a Ray cluster in the middle of a step that draws.

Three nodes on loopback. A home takes up to ten kills: of two workers, then of the head, and so on.
The step itself survives those of workers; after that of the head, head and step are started anew.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hoi_assets.engines.batch_map import BatchTask, in_chunks
from hoi_assets.settings import ROOT
from hoi_assets.store.versions import Store
from hoi_assets_tests.cluster.conftest import BEFORE, made
from hoi_assets_tests.cluster.loopback import NODES, LoopbackCluster, ray_variables
from hoi_assets_tests.pipeline_fixture import write_profile
from proofs.campaign import Campaign, Trial
from proofs.homes import Content, content_of, fault_of

TRIALS = 20
BATCH = 2
STEP = ("candidate_images",)
KILLS_OF_A_HOME = 10
HEAD_EVERY = 3
# A kill comes when so many more batches have begun than at the one before.
APART = (2, 4)
PATIENCE_S = 600.0
# How long a node waits for its head. Ray's default, a minute, would only make the campaign longer.
HEAD_AWAY_S = 10


@dataclass(frozen=True, kw_only=True)
class Noting(BatchTask[Any, Any]):
    """Another task, which notes the pictures of each batch in a file when it begins and ends."""

    inner: Any
    file: str

    def run(self, batch: Sequence[Any]) -> Iterator[Any]:
        """See `BatchTask`."""
        from hoi_assets.engines.image_cache import image_key

        keys = ",".join(image_key(row, self.inner.digest) for row in batch)
        self._note("begin", keys)
        yield from replace(self.inner, folders=self.folders).run(batch)
        self._note("end", keys)

    def _note(self, what: str, keys: str) -> None:
        file = os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.write(file, f"{what} {os.getpid()} {keys}\n".encode())
        os.close(file)


@dataclass(frozen=True)
class Noted:
    """A line of that file."""

    what: str
    process: int
    keys: tuple[str, ...]


def prepare(profile: str, home: str) -> None:
    """All that the step needs, in this process."""
    made(Path(profile), Path(home), BEFORE)


def draw(profile: str, home: str, noted: str) -> None:
    """The step, in this process; its batches are noted where they are computed."""
    from hoi_assets.cluster.batch_map import RayBatchMap

    share_out = RayBatchMap.map

    def noting(self: RayBatchMap, task: Any, batches: Any, load: Any) -> Iterator[Any]:
        wrapped = Noting(compute=task.compute, folders=task.folders, inner=task, file=noted)
        return share_out(self, wrapped, batches, load)

    RayBatchMap.map = noting  # type: ignore[method-assign]
    made(Path(profile), Path(home), STEP)


class Line:
    """A home that is killed, and killed again.

    Args:
        before: a home that is ready for the step.
    """

    def __init__(self, folder: Path, before: Path, profile: Path) -> None:
        self.home, self.log, self.profile = folder / "home", folder / "log", profile
        self._noted, self._killed = folder / "noted", set[int]()
        shutil.copytree(before, self.home)

    def start(self, address: str | None) -> "subprocess.Popen[bytes]":
        """Start the step: on the cluster, or in one process."""
        on_ray = {"HOI_EXECUTOR": "ray", "RAY_ADDRESS": address} if address else {}
        return _start("draw", [self.profile, self.home, self._noted], self.log, on_ray)

    def noted(self) -> list[Noted]:
        """What was noted so far."""
        text = self._noted.read_text(encoding="utf-8") if self._noted.exists() else ""
        lines = [line.split() for line in text.splitlines()]
        return [Noted(what, int(process), tuple(keys.split(","))) for what, process, keys in lines]

    def wait_for_batch(self, begun: int, step: "subprocess.Popen[bytes]") -> int:
        """The process of a worker that computes, once so many batches have begun."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            lines = self.noted()
            ended = {line.process: line.what for line in lines}
            computing = [
                process
                for process, what in ended.items()
                if what == "begin" and process not in self._killed
            ]
            if sum(line.what == "begin" for line in lines) >= begun and computing:
                return computing[-1]
            if step.poll() is not None:
                raise RuntimeError(f"the step ended too early: {self.told()}")
            time.sleep(0.02)
        raise TimeoutError(f"no {begun} batches: {self.told()}")

    def kill(self, worker: int) -> None:
        """SIGKILL to a worker."""
        os.kill(worker, signal.SIGKILL)
        self._killed.add(worker)

    def drawn_since(self, place: int) -> set[str]:
        """Pictures of the batches that are noted from that line on."""
        return {key for line in self.noted()[place:] for key in line.keys}

    def stored(self) -> set[str]:
        """Pictures that the ledger knows; no worker is left then."""
        self._killed |= {line.process for line in self.noted()}
        store = Store(self.home)
        found = set(store.ledger.get("image", self.drawn_since(0)))
        store.ledger.close()
        return found

    def told(self) -> str:
        """The end of what the step printed."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-800:]


def _start(
    name: str, arguments: Sequence[Path], log: Path, environment: Mapping[str, str]
) -> "subprocess.Popen[bytes]":
    """A function of this module, in a process of its own."""
    code = f"import sys; from proofs.cluster import {name}; {name}(*sys.argv[1:])"
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-c", code, *(str(one) for one in arguments)],
            cwd=ROOT,
            env=os.environ | environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def _trials(line: Line, expected: Content, kills: Sequence[int]) -> Iterator[Trial]:
    cluster = LoopbackCluster()
    allowed, lost = 0, set[str]()
    known, first_after = set[str](), 0
    try:
        step = line.start(cluster.address)
        for number, begun in enumerate(kills, 1):
            worker = line.wait_for_batch(begun, step)
            whom = "a worker" if number % HEAD_EVERY else "the head"
            if number % HEAD_EVERY == 0:
                cluster.kill_head()
                allowed += (NODES + 1) * BATCH  # one with each worker, and one that is being stored
                if step.wait(PATIENCE_S) == 0:
                    yield Trial(whom, "the step ended well without a head")
                    return
                cluster.close()
                lost |= line.drawn_since(first_after) & known
                known, first_after = line.stored(), len(line.noted())
                lost |= set() if known else {"none: nothing was stored before the head died"}
                cluster = LoopbackCluster()
                step = line.start(cluster.address)
            else:
                line.kill(worker)
                allowed += BATCH
            if number < len(kills):
                yield Trial(f"{whom}, after {begun} batches")
        failed = step.wait(PATIENCE_S)
    finally:
        cluster.close()
    name = f"{whom}, after {begun} batches, the last of {len(kills)} in one home"
    if failed:
        yield Trial(name, f"the step failed: {line.told()}")
        return
    began = [one for one in line.noted() if one.what == "begin"]
    drawn = [key for one in began for key in one.keys]
    again = len(drawn) - len(set(drawn))
    lost |= line.drawn_since(first_after) & known
    told = [
        f"{again} pictures drawn twice, {allowed} were in flight" if again > allowed else "",
        f"stored and drawn again: {', '.join(sorted(lost))}" if lost else "",
        fault_of(line.home, expected),
    ]
    yield Trial(name, "; ".join(filter(None, told)))


def _run(folder: Path, seed: int, trials: int | None) -> Iterator[Trial]:
    folder, chance = folder.resolve(), np.random.default_rng(seed)
    start = {"max_train_steps": 1, "num_class_images": 2, "checkpointing_steps": 1}
    profile = write_profile(
        folder,
        lora=start,
        candidates={"per_prompt": 8},
        sampling={"num_inference_steps": 4, "batch_size": BATCH},
    )
    log = folder / "before.log"
    if _start("prepare", [profile, folder / "before"], log, {}).wait(PATIENCE_S):
        raise RuntimeError(f"no home before the step: {log.read_text(encoding='utf-8')[-800:]}")
    (folder / "alone").mkdir()
    alone = Line(folder / "alone", folder / "before", profile)
    if alone.start(None).wait(PATIENCE_S):
        raise RuntimeError(f"the step failed in one process: {alone.told()}")
    expected = content_of(alone.home)
    wanted = TRIALS if trials is None else trials
    with ray_variables(
        RAY_gcs_rpc_server_reconnect_timeout_s=str(HEAD_AWAY_S), PYTHONPATH=str(ROOT)
    ):
        for number, some in enumerate(in_chunks(range(wanted), KILLS_OF_A_HOME)):
            own = folder / f"{number}"
            own.mkdir()
            apart = chance.integers(*APART, len(some), endpoint=True)
            kills = [int(begun) for begun in np.cumsum(apart)]
            yield from _trials(Line(own, folder / "before", profile), expected, kills)


CAMPAIGN = Campaign(
    "cluster",
    "with workers and the head of a Ray cluster killed, a step ends with the content of one "
    "process, loses nothing, and draws nothing twice beyond the batches in flight",
    _run,
)
