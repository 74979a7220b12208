"""Maps batches over the workers of a Ray cluster."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from hoi_assets.cluster.connection import connect
from hoi_assets.cluster.resources import resources_of
from hoi_assets.cluster.workers import Workers
from hoi_assets.engines.batch_map import BatchMap, BatchTask
from hoi_assets.settings import Settings

Item = TypeVar("Item")
Batch = TypeVar("Batch")
Result = TypeVar("Result")


class RayBatchMap(BatchMap):
    """Shares batches out over the cluster; results are stored where the step runs.

    It connects when there is something to compute. Workers stay from one asset to the next.

    Args:
        shares_out: whether an asset's batches are shared out; another one computes in its step's
            own process, and has no workers beside it.
    """

    def __init__(self, settings: Settings, shares_out: Callable[[str], bool]) -> None:
        self.settings = settings
        self._shares_out = shares_out
        self._asset = ""
        self._workers: Workers | None = None

    def begin(self, asset: str) -> None:
        """End the workers where this asset does not use them."""
        self._asset = asset
        if not self._shares_out(asset):
            self.close()

    def map(
        self,
        task: BatchTask[Item, Result],
        batches: Sequence[Batch],
        load: Callable[[Batch], Sequence[Item]],
    ) -> Iterator[Result]:
        """See `map_batches`."""
        if not self._shares_out(self._asset):
            yield from super().map(task, batches, load)
            return
        connect()
        yield from self._workers_now().run(task, batches, load)

    def close(self) -> None:
        """End the workers."""
        if self._workers is not None:
            self._workers.close()
            self._workers = None

    def _workers_now(self) -> Workers:
        resources = resources_of(self.settings, self._asset)
        if self._workers is not None and self._workers.resources != resources:
            self.close()
        if self._workers is None:
            self._workers = Workers(
                resources,
                self.settings.ray,
                self.settings.device,
                self.settings.model_budget_bytes,
            )
        return self._workers
