"""Draws pictures in batches so that each depends on its own row alone.

Bits depend on the shape of a batch and, on some CPUs, on the place in it; they do not depend on
the neighbours. So every batch has the same number of places (slots), a row keeps its slot for
ever, noise comes from the row's own seed, and empty slots hold a filler. Any row can be drawn again
alone.
"""

import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from hoi_assets.engines.diffusion_pipeline import (
    prompt_embeddings,
    set_decode_slicing,
    tensor_to_images,
)
from hoi_assets.engines.sdxl.loading import LoadedSDXL
from hoi_assets.engines.seeds import generator
from hoi_assets.errors import HoiError
from hoi_assets.hashing import digest, digest_file
from hoi_assets.settings import Sampling

SAMPLING_VERSION = "1"  # part of every image key: raise it when the same row gives other pixels
LORA_FILE = "pytorch_lora_weights.safetensors"
MAX_ADAPTERS = 16


@dataclass(frozen=True)
class Lora:
    """A LoRA in diffusers' layout: its folder, and the hash that `lora_digest` gives."""

    folder: str
    digest: str


@dataclass(frozen=True)
class Draw:
    """All that determines one picture, but the base model and the environment.

    Attributes:
        seed: of the picture's own noise, in [0, 2**63).
        slot: place in the batch, in [0, batch size).
        steps: number of denoising steps.
        guidance_scale: classifier-free guidance; at 1 or less there is none.
        negative_prompt: "" means none.
    """

    prompt: str
    seed: int
    slot: int
    steps: int
    guidance_scale: float
    scheduler: str
    width: int
    height: int
    negative_prompt: str = ""
    lora: Lora | None = None


@dataclass(frozen=True)
class Drawn:
    """A row with its picture, or with the reason why there is none."""

    row: Draw
    image: Image.Image | None
    reason: str | None = None


def draw_row(
    sampling: Sampling, prompt: str, seed: int, position: int, lora: Lora | None = None
) -> Draw:
    """The row for `prompt` under the settings; `position` in its table fixes the slot."""
    return Draw(
        prompt=prompt,
        seed=seed,
        slot=position % sampling.batch_size,
        steps=sampling.num_inference_steps,
        guidance_scale=sampling.guidance_scale,
        scheduler=sampling.scheduler,
        width=sampling.width,
        height=sampling.height,
        negative_prompt=sampling.negative_prompt,
        lora=lora,
    )


def image_key(row: Draw, base_digest: str) -> str:
    """Hash of all that determines the picture of `row`; slot and environment do not belong."""
    fields = asdict(row) | {
        "guidance_scale": float(row.guidance_scale),  # 4 and 4.0 are one picture
        "lora": row.lora.digest if row.lora else None,
    }
    del fields["slot"]
    return digest({"sampling": SAMPLING_VERSION, "base": base_digest, **fields})


def lora_digest(folder: str | Path) -> str:
    """Hash of the LoRA's file in `folder`.

    Raises:
        HoiError: the folder holds no LoRA.
    """
    path = Path(folder) / LORA_FILE
    if not path.is_file():
        raise HoiError(f"LoRA file missing: {path}", "materialise category_loras again")
    return digest_file(path)


def draw(loaded: LoadedSDXL, rows: Iterable[Draw], batch_size: int) -> Iterator[Drawn]:
    """Draw `rows`; each comes back once, as soon as its batch is finished.

    Args:
        batch_size: number of slots; the same whenever the same bits are wanted.

    Raises:
        HoiError: before anything is drawn, for a row that cannot be drawn with this model.
    """
    rows = list(rows)
    for row in rows:
        _check(loaded, row, batch_size)
    return _draw_all(loaded, rows, batch_size)


def batches(rows: Sequence[Draw], batch_size: int) -> Iterator[dict[int, Draw]]:
    """Group rows that share all parameters of a call into batches, slot -> row.

    Rows of consecutive positions fill whole batches in their order; when some are missing, those
    that are left are zipped by slot.
    """
    groups: dict[tuple[Any, ...], list[Draw]] = {}
    for row in rows:
        call = (row.lora, row.scheduler, row.steps, row.guidance_scale, row.width, row.height)
        groups.setdefault(call, []).append(row)
    for group in groups.values():
        queues: dict[int, deque[Draw]] = {slot: deque() for slot in range(batch_size)}
        for row in group:
            queues[row.slot].append(row)
        while any(queues.values()):
            yield {slot: queue.popleft() for slot, queue in queues.items() if queue}


def make_scheduler(loaded: LoadedSDXL, name: str) -> Any:
    """A fresh scheduler of the model's noise schedule: `euler` or `dpmpp_2m` (DPM-Solver++ 2M)."""
    from diffusers import DPMSolverMultistepScheduler, EulerDiscreteScheduler

    config = loaded.pipe.scheduler.config
    if name == "euler":
        return EulerDiscreteScheduler.from_config(config)
    if name == "dpmpp_2m":
        return DPMSolverMultistepScheduler.from_config(
            config, algorithm_type="dpmsolver++", solver_order=2, solver_type="midpoint"
        )
    raise HoiError(f"unknown scheduler {name!r}", "name one of: euler, dpmpp_2m")


def use_lora(loaded: LoadedSDXL, lora: Lora | None) -> None:
    """Make `lora` the only active adapter; None is the base, bit for bit.

    Adapters are never fused: taking a fused one out again leaves rounding in the base.

    Raises:
        HoiError: the folder is gone, or its file is not the one that `lora.digest` names.
    """
    pipe = loaded.pipe
    if lora is None:
        if loaded.adapters:
            pipe.disable_lora()
        return
    if lora.digest not in loaded.adapters:
        _load_adapter(loaded, lora)
    loaded.adapters.move_to_end(lora.digest)
    pipe.enable_lora()
    pipe.set_adapters(loaded.adapters[lora.digest])


def _load_adapter(loaded: LoadedSDXL, lora: Lora) -> None:
    from safetensors import safe_open

    found = lora_digest(lora.folder)
    if found != lora.digest:
        raise HoiError(
            f"LoRA in {lora.folder} has hash {found[:12]}, but {lora.digest[:12]} was asked for",
            "materialise category_loras again, or draw with the version that is there",
        )
    path = Path(lora.folder) / LORA_FILE
    with safe_open(path, framework="pt") as file:
        if any(not key.startswith("unet.") for key in file.keys()):  # noqa: SIM118
            raise HoiError(
                f"{path} changes more than the UNet", "train text encoders apart; use a UNet LoRA"
            )
    while len(loaded.adapters) >= MAX_ADAPTERS:
        _, oldest = loaded.adapters.popitem(last=False)
        loaded.pipe.delete_adapters(oldest)
    name = f"lora_{lora.digest[:16]}"
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")  # so it should be
            loaded.pipe.load_lora_weights(
                lora.folder, weight_name=LORA_FILE, adapter_name=name, local_files_only=True
            )
    except (ValueError, RuntimeError, OSError) as error:
        raise HoiError(
            f"{path} does not fit the base model {loaded.ref.source!r}: {error}",
            "train the LoRA on this base model",
        ) from error
    loaded.adapters[lora.digest] = name


def _check(loaded: LoadedSDXL, row: Draw, batch_size: int) -> None:
    factor = loaded.pipe.vae_scale_factor
    if not 0 <= row.slot < batch_size:
        raise HoiError(
            f"row {row.prompt!r} has slot {row.slot}, outside a batch of {batch_size}",
            "set sampling.batch_size to the value that the row was drawn with",
        )
    if row.width % factor or row.height % factor:
        raise HoiError(
            f"picture size {row.width}x{row.height} is no multiple of {factor}",
            "mend sampling.width and sampling.height",
        )
    if row.scheduler not in ("euler", "dpmpp_2m"):
        raise HoiError(f"unknown scheduler {row.scheduler!r}", "name one of: euler, dpmpp_2m")


def _draw_all(loaded: LoadedSDXL, rows: list[Draw], batch_size: int) -> Iterator[Drawn]:
    for batch in batches(rows, batch_size):
        yield from _draw_batch(loaded, batch, batch_size)


def _draw_batch(loaded: LoadedSDXL, batch: dict[int, Draw], batch_size: int) -> Iterator[Drawn]:
    import torch

    pipe = loaded.pipe
    call = next(iter(batch.values()))
    use_lora(loaded, call.lora)
    shape = (
        1,
        pipe.unet.config.in_channels,
        call.height // pipe.vae_scale_factor,
        call.width // pipe.vae_scale_factor,
    )
    places = [batch.get(slot) for slot in range(batch_size)]
    latents = torch.cat(
        [torch.randn(shape, generator=generator(row.seed if row else 0)) for row in places]
    )
    embeds = prompt_embeddings(
        loaded,
        [row.prompt if row else None for row in places],
        [row.negative_prompt if row else None for row in places],
        guided=call.guidance_scale > 1,
    )
    set_decode_slicing(loaded, call.width, call.height)
    with scheduler_of(loaded, call.scheduler), torch.no_grad():
        try:
            decoded = pipe(
                **embeds,
                latents=latents.to(pipe.unet.dtype),
                num_inference_steps=call.steps,
                guidance_scale=call.guidance_scale,
                width=call.width,
                height=call.height,
                output_type="pt",
            ).images
        except torch.OutOfMemoryError as error:
            raise HoiError(
                f"a batch of {batch_size} pictures of {call.width}x{call.height} px does not fit "
                f"into the memory of {loaded.device}",
                "lower sampling.batch_size, or the size",
            ) from error
    images = tensor_to_images(decoded)
    for slot, row in batch.items():
        image = images[slot]
        yield Drawn(row, image, None if image else "not_finite: the model gave NaN or infinity")


@contextmanager
def scheduler_of(loaded: LoadedSDXL, name: str) -> Iterator[None]:
    """Lend the pipeline a fresh scheduler, and give it its own back."""
    own = loaded.pipe.scheduler
    loaded.pipe.scheduler = make_scheduler(loaded, name)
    try:
        yield
    finally:
        loaded.pipe.scheduler = own
