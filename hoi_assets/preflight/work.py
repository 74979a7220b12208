"""What one asset makes in one partition, as the plan counts it."""

from dataclasses import dataclass, field

from hoi_assets.preflight.calls import Calls

# Entries of models that draw.
BASE, BENCHMARK, PROPOSER, REPAIR, EDITOR = "base", "benchmark", "proposer", "repair", "editor"


@dataclass(frozen=True)
class Work:
    """What one asset makes in one partition, at most; an asset may have several of them.

    Attributes:
        asset, partition: partition is null where the asset has none.
        model: entry of the model that draws or is trained; null where none does.
        pictures: that are stored.
        evaluations: of the denoiser (NFE), for all of them.
        training: section of the training, e.g. lora; its steps are `training_steps`.
        calls: to endpoints.
    """

    asset: str
    partition: str | None
    model: str | None = None
    pictures: int = 0
    evaluations: int = 0
    training: str | None = None
    training_steps: int = 0
    calls: tuple[Calls, ...] = field(default=())


def guided(guidance_scale: float) -> int:
    """Evaluations of one denoising step: two under classifier-free guidance."""
    return 2 if guidance_scale > 1 else 1
