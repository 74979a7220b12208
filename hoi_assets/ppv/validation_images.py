"""Pictures of a training under way: one prompt and the same noise, drawn with the LoRA of every
`validation_steps` steps."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from hoi_assets.engines.image_cache import get_or_generate_images
from hoi_assets.engines.image_spec import Lora
from hoi_assets.engines.sdxl.sampling import lora_digest, make_image_spec
from hoi_assets.engines.seeds import seed_of
from hoi_assets.progress import Log
from hoi_assets.settings import LoraTraining, Settings
from hoi_assets.store.versions import Store


@dataclass(frozen=True)
class ValidationImage:
    """A picture, by the digest of its pixels.

    Attributes:
        step: steps trained; 0 is the base model.
    """

    step: int
    pixels: str


def keep_snapshots(snapshots: dict[int, Path], folder: Path) -> None:
    """Copy the LoRAs of a training, by step, to `folder/<step>`."""
    for step, source in snapshots.items():
        shutil.copytree(source, folder / str(step))


def draw_validation_images(
    store: Store,
    settings: Settings,
    config: LoraTraining,
    prompt: str,
    folder: Path,
    log: Log,
) -> list[ValidationImage]:
    """Draw `prompt` with the base model and every LoRA of `keep_snapshots`, or find the pictures.

    Args:
        folder: that of `keep_snapshots`.
    """
    loras: dict[int, Lora | None] = {0: None}
    for step in sorted(int(path.name) for path in folder.iterdir()):
        path = folder / str(step)
        loras[step] = Lora(folder=str(path), digest=lora_digest(path))
    rows = [
        (
            step,
            make_image_spec(
                settings.sampling, prompt, seed_of("validation", config.seed, number), number, lora
            ),
        )
        for step, lora in loras.items()
        for number in range(config.num_validation_images)
    ]
    drawn = get_or_generate_images(
        store, settings, [row for _, row in rows], f"validation pictures, {prompt!r}", log
    )
    return [
        ValidationImage(step, known.pixels)
        for (step, _), known in zip(rows, drawn, strict=True)
        if known.pixels is not None
    ]
