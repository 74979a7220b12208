"""Workers on the cluster: actors that keep models loaded and compute batches.

A batch whose worker dies is given to another one, a bounded number of times. One batch at a time is
with a worker, so that no more than it is computed twice.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from hoi_assets.cluster.resources import Resources
from hoi_assets.cluster.worker import Worker, files_of
from hoi_assets.engines.batch_map import BatchTask
from hoi_assets.errors import HoiError
from hoi_assets.settings import Ray

Item = TypeVar("Item")
Batch = TypeVar("Batch")
Result = TypeVar("Result")

# How often nodes are counted and messages about waiting are due.
LOOK_S = 2.0
SAY_EVERY_S = 60.0
LOGS = "see the logs of the node below /tmp/ray/session_latest/logs"

logger = logging.getLogger(__name__)


class Workers:
    """The workers of this process, started as they are needed.

    Args:
        resources: of one.
        device: cpu, cuda or auto.
        budget_bytes: of a worker's model cache.
    """

    def __init__(
        self, resources: Resources, options: Ray, device: str, budget_bytes: int | None
    ) -> None:
        self.resources = resources
        self._options = options
        self._device = device
        self._budget_bytes = budget_bytes
        self._kind: dict[str, Any] | None = None
        self._idle: list[Any] = []
        self._starting: dict[Any, Any] = {}  # by the reference of what it says of itself
        self._refused = 0
        self._failed_starts = 0
        self._files: dict[str, Any] = {}

    def close(self) -> None:
        """End the workers, so that others can have what they take."""
        for worker in (*self._idle, *self._starting.values()):
            _end(worker)
        self._idle.clear()
        self._starting.clear()

    def run(
        self,
        task: BatchTask[Item, Result],
        batches: Sequence[Batch],
        load: Callable[[Batch], Sequence[Item]],
    ) -> Iterator[Result]:
        """See `map_batches`.

        Raises:
            HoiError: as the task; no worker can be started; or too many died with one batch.
        """
        import ray
        from ray.exceptions import RayError, RayTaskError

        files = self._put_folders(task.folders)
        pending = deque((batch, 0) for batch in batches)
        running: dict[Any, tuple[Any, Batch, int]] = {}
        finished: list[Result] = []
        self._greet_again()
        patience = _Patience(self.resources, self._options)
        try:
            while pending or running:
                self._grow(len(pending) + len(running), len(running), patience.capacity())
                while pending and self._idle:
                    batch, deaths = pending.popleft()
                    worker = self._idle.pop()
                    result = worker.run_batch.remote(task, load(batch), files)
                    running[result] = (worker, batch, deaths)
                # Only now, so that workers are busy while results are stored.
                yield from finished
                finished = []
                waited_for = [*running, *self._starting]
                done, _ = ray.wait(waited_for, num_returns=1, timeout=LOOK_S)
                patience.note(bool(self._idle or running or done))
                for reference in done:
                    if reference in self._starting:
                        self._welcome(reference, alone=not running)
                        continue
                    worker, batch, deaths = running.pop(reference)
                    try:
                        finished += ray.get(reference)
                        self._idle.append(worker)
                    except RayTaskError as error:
                        self._idle.append(worker)
                        raise _cause(error) from None
                    except RayError as error:  # it died, or its node, or what it returned is lost
                        _end(worker)
                        pending.appendleft((batch, self._count_death(deaths, error)))
            yield from finished
        finally:
            for worker, *_ in running.values():
                _end(worker)  # nobody waits for their batches any more

    def _put_folders(self, folders: Mapping[str, str]) -> dict[str, Any]:
        """References to the content of folders in the object store; each is put there once."""
        import ray

        for digest, folder in folders.items():
            if digest not in self._files:
                self._files[digest] = ray.put(files_of(folder))
        self._files = {digest: self._files[digest] for digest in folders}
        return self._files

    def _grow(self, wanted: int, busy: int, capacity: int) -> None:
        """Start workers until there are as many as batches, or as the cluster holds."""
        most = min(wanted, capacity - self._refused, self._options.max_workers or capacity)
        for _ in range(max(1, most) - busy - len(self._idle) - len(self._starting)):
            worker = self._start()
            self._starting[worker.kind.remote(self._device)] = worker

    def _start(self) -> Any:
        import ray

        actor = ray.remote(_RayWorker).options(
            num_cpus=self.resources.num_cpus,
            num_gpus=self.resources.num_gpus,
            memory=self.resources.memory_bytes or None,
            resources=self.resources.custom or None,
            scheduling_strategy="SPREAD",
            max_restarts=0,
        )
        return actor.remote(self._budget_bytes)

    def _greet_again(self) -> None:
        """Find out which workers are still there."""
        for worker in self._idle:
            self._starting[worker.kind.remote(self._device)] = worker
        self._idle.clear()

    def _welcome(self, reference: Any, alone: bool) -> None:
        """Take a worker that has started, if it is of the kind of the others.

        Args:
            alone: no other worker computes now.
        """
        import ray
        from ray.exceptions import RayError, RayTaskError

        worker = self._starting.pop(reference)
        try:
            kind = ray.get(reference)
        except RayTaskError as error:
            raise _cause(error) from None
        except RayError as error:
            self._failed_starts += 1
            if self._failed_starts > self._options.batch_retries:
                raise HoiError(f"no worker can be started: {_first_line(error)}", LOGS) from error
            logger.warning("a worker could not be started: %s", _first_line(error))
            return
        if self._kind is None or (alone and not self._idle and not self._starting):
            self._kind = kind
        if kind == self._kind:
            self._failed_starts = 0
            self._idle.append(worker)
            return
        _end(worker)
        self._refused += 1
        logger.warning(
            "a worker is not used, as it would draw other bits: it has %s, the others have %s; "
            "name nodes of one kind in ray.resources",
            kind,
            self._kind,
        )

    def _count_death(self, deaths: int, error: Exception) -> int:
        """How many workers have died with a batch now."""
        if deaths >= self._options.batch_retries:
            raise HoiError(
                f"{deaths + 1} workers died with the same batch: {_first_line(error)}",
                f"give workers more memory (ray.memory_gb) or smaller batches; {LOGS}",
            ) from error
        logger.warning("a worker died, its batch is computed again: %s", _first_line(error))
        return deaths + 1


class _RayWorker(Worker):
    """`Worker` as an actor; folders come from Ray's object store."""

    def run_batch(self, task: Any, batch: Any, files: Mapping[str, Any]) -> list[Any]:
        import ray

        fetch = {digest: lambda own=own: ray.get(own) for digest, own in files.items()}
        return self.run(task, batch, fetch)


class _Patience:
    """How long a step waits for its first worker."""

    def __init__(self, resources: Resources, options: Ray) -> None:
        self._resources = resources
        self._options = options
        self._began = self._said = time.monotonic()
        self._counted: tuple[float, int] | None = None

    def capacity(self) -> int:
        """How many workers the cluster's nodes hold, whatever else runs there."""
        now = time.monotonic()
        if self._counted is None or now - self._counted[0] > LOOK_S:
            found = sum(self._resources.fitting(one) for one in node_resources())
            self._counted = (now, found)
        return self._counted[1]

    def note(self, working: bool) -> None:
        """Say that the step waits, or end the wait.

        Raises:
            HoiError: no node is large enough for a worker, for as long as the settings wait.
        """
        now = time.monotonic()
        if working:
            self._began = now
            return
        if not self.capacity() and now - self._began > self._options.start_timeout_s:
            nodes = "; ".join(_in_words(one) for one in node_resources()) or "none"
            raise HoiError(
                f"no node of the Ray cluster is large enough for a worker, which takes "
                f"{self._resources.in_words()}; the nodes have: {nodes}",
                "set ray.num_gpus, num_cpus and memory_gb of the profile, or add a larger node",
            )
        if now - self._said > SAY_EVERY_S:
            self._said = now
            logger.warning(
                "waiting for a worker since %.0f s: the cluster holds %d, all taken or starting",
                now - self._began,
                self.capacity(),
            )


def node_resources() -> list[dict[str, float]]:
    """All that each node of the cluster has, free or not."""
    import ray

    return [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]


def _in_words(resources: Mapping[str, float]) -> str:
    named = {name: resources.get(name, 0.0) for name in ("GPU", "CPU", "memory")}
    return ", ".join(f"{name} {amount:g}" for name, amount in named.items())


def _end(worker: Any) -> None:
    import ray

    if ray.is_initialized():
        ray.kill(worker)


def _cause(error: Any) -> BaseException:
    """What was raised on the worker."""
    cause = error.cause
    return cause if isinstance(cause, BaseException) else error


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
