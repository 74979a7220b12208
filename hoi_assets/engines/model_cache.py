"""The one cache of loaded models of a process: the least recently used are evicted when memory is
short.

Every loader of `hoi_assets.engines` goes through `load_cached`. A model is found by what was
loaded, not by where it lay: the digest of its weights, its dtype and its device. Each device has a
budget of its own, in bytes of parameters and buffers. Eviction drops the cache's reference only: a
caller that still holds the model can go on using it.
"""

import gc
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import RLock
from typing import Any, NamedTuple, Protocol, TypeVar

from hoi_assets.engines.device import resolve_device
from hoi_assets.engines.pretrained import loads_shapes_only
from hoi_assets.settings import ModelRef
from hoi_assets.store.weights import model_digest

# Share of the free memory of a device that models may take when no budget is set.
FREE_MEMORY_SHARE = 0.5
META = "meta"  # torch's device for tensors without numbers


Source = ModelRef | Path | str


class CachedModel(Protocol):
    """What the cache holds: anything that names its `torch.nn.Module`s."""

    @property
    def modules(self) -> Sequence[Any]: ...


Model = TypeVar("Model", bound=CachedModel)


class ModelKey(NamedTuple):
    """What identifies a loaded model.

    Attributes:
        kind: the loader, e.g. "sdxl"; two loaders may read one folder in two ways.
        digest: `store.weights.model_digest` of what was loaded.
        dtype: as in `ModelRef`.
        device: torch device name.
    """

    kind: str
    digest: str
    dtype: str
    device: str


class ModelCache:
    """Models by key, least recently used first.

    Args:
        budget_bytes: per device; None takes half of the memory that is free when the device is
            first used.
    """

    def __init__(self, budget_bytes: int | None = None) -> None:
        self._models: OrderedDict[ModelKey, Any] = OrderedDict()
        self._budget_bytes = budget_bytes
        self._measured: dict[str, int] = {}
        self._lock = RLock()

    def configure(self, budget_bytes: int | None) -> None:
        """Set the budget per device, and evict what exceeds it."""
        with self._lock:
            self._budget_bytes = budget_bytes
            for device in {key.device for key in self._models}:
                self.make_room(0, device)

    def get(self, key: ModelKey, load: Callable[[], Model]) -> Model:
        """The model of `key`; `load` is called only if it is not in the cache."""
        with self._lock:
            if key not in self._models:
                self.budget(key.device)  # measured before the first model takes memory
                model = load()
                self.make_room(size_bytes(model.modules), key.device)
                self._models[key] = model
            self._models.move_to_end(key)
            found: Model = self._models[key]
            return found

    def make_room(self, incoming_bytes: int, device: str) -> None:
        """Evict least recently used models of `device` until `incoming_bytes` fit the budget.

        A model larger than the whole budget evicts all others.
        """
        with self._lock:
            sizes = {
                key: size_bytes(model.modules)
                for key, model in self._models.items()
                if key.device == device
            }
            total = incoming_bytes + sum(sizes.values())
            evicted = False
            for key, size in sizes.items():
                if total <= self.budget(device):
                    break
                del self._models[key]
                total -= size
                evicted = True
            if evicted:
                _release(device)

    def budget(self, device: str) -> int:
        """Bytes that the models of `device` may take together."""
        if self._budget_bytes is not None:
            return self._budget_bytes
        if device not in self._measured:
            self._measured[device] = int(FREE_MEMORY_SHARE * free_bytes(device))
        return self._measured[device]

    def keys(self) -> tuple[ModelKey, ...]:
        """Keys of the models in memory, least recently used first."""
        return tuple(self._models)

    def clear(self) -> None:
        """Drop every model."""
        with self._lock:
            devices = {key.device for key in self._models}
            self._models.clear()
            for device in devices:
                _release(device)


_cache = ModelCache()


def configure(budget_bytes: int | None) -> None:
    """Set the budget of this process's cache, see `ModelCache`."""
    _cache.configure(budget_bytes)


def load_cached(
    kind: str, source: Source, device: str, load: Callable[[ModelRef, str], Model]
) -> Model:
    """The model of `source`, loaded at most once while it stays in the cache.

    Weights that changed on disk are another model, and are loaded anew.

    Args:
        kind: names the loader.
        source: a reference, or a folder, which is read as float32.
        device: cpu, cuda or auto.
        load: reads the model and moves it by `move_to_device`.

    Raises:
        HoiError: no such folder, a hub repository without a pinned revision, or no such device.
    """
    ref = source if isinstance(source, ModelRef) else ModelRef(source=str(Path(source).resolve()))
    if loads_shapes_only():
        return load(ref, META)
    device = resolve_device(device)
    key = ModelKey(kind, model_digest(ref), ref.dtype, device)
    return _cache.get(key, lambda: load(ref, device))


def move_to_device(modules: Sequence[Any], device: str) -> None:
    """Move modules to `device` in place, after evicting cached models for which no room is left.

    On the CPU the tensors are copied: safetensors maps its file into memory, and a file that is
    overwritten later would change the model under its old digest.
    """
    if device != META:
        _cache.make_room(size_bytes(modules), device)
    for module in modules:
        module.to(device)
        if device == "cpu":
            for tensor in (*module.parameters(), *module.buffers()):
                tensor.data = tensor.data.clone()


def cached_keys() -> tuple[ModelKey, ...]:
    """Keys of the models in this process's cache, least recently used first."""
    return _cache.keys()


def clear() -> None:
    """Drop every model of this process's cache."""
    _cache.clear()


def size_bytes(modules: Sequence[Any]) -> int:
    """Bytes of all parameters and buffers; a tensor that modules share counts once."""
    tensors = {
        id(tensor): tensor
        for module in modules
        for tensor in (*module.parameters(), *module.buffers())
    }
    return sum(tensor.nbytes for tensor in tensors.values())


def free_bytes(device: str) -> int:
    """Memory of `device` that is free now."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    return int(psutil.virtual_memory().available)


def _release(device: str) -> None:
    """Give the memory of evicted models back to the device."""
    gc.collect()  # pipelines hold reference cycles
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()
