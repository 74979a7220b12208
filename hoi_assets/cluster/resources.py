"""What a process takes of the cluster, by the settings."""

from dataclasses import dataclass, field

from hoi_assets.settings import BYTES_PER_GB, RayResources, Settings


@dataclass(frozen=True)
class Resources:
    """Of one worker or step.

    Attributes:
        memory_bytes: 0 sets none aside.
        custom: further resources by name.
    """

    num_gpus: float
    num_cpus: float
    memory_bytes: int = 0
    custom: dict[str, float] = field(default_factory=dict)

    def wanted(self) -> dict[str, float]:
        """By the names that Ray gives them."""
        own = {"GPU": self.num_gpus, "CPU": self.num_cpus, "memory": float(self.memory_bytes)}
        return {name: amount for name, amount in (own | self.custom).items() if amount}

    def fitting(self, total: dict[str, float]) -> int:
        """How many such processes a node with these resources holds; 1 where none is asked for."""
        wanted = self.wanted()
        if not wanted:
            return 1
        return int(min(total.get(name, 0.0) / amount for name, amount in wanted.items()) + 1e-9)

    def in_words(self) -> str:
        """For a message."""
        return ", ".join(f"{name} {amount:g}" for name, amount in self.wanted().items()) or "none"


def resources_of(settings: Settings, asset: str) -> Resources:
    """What computing for an asset takes: a worker of it, or its step where that computes itself."""
    ray, own = settings.ray, settings.ray.assets.get(asset, RayResources())

    def given(name: str, otherwise: float) -> float:
        values = (getattr(own, name), getattr(ray, name), otherwise)
        return next(value for value in values if value is not None)

    gpus = given("num_gpus", 0.0 if settings.device == "cpu" else 1.0)
    cpus = given("num_cpus", 1.0 if gpus else float(settings.threads))
    memory = int(given("memory_gb", 0.0) * BYTES_PER_GB)
    return Resources(gpus, cpus, memory, dict(ray.resources))
