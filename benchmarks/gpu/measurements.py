"""The measurements: the platform beside plain diffusers, on the same weights in the same run."""

import gc
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks import refine
from benchmarks.gpu import plain
from benchmarks.gpu.models import Size
from benchmarks.sampling_loop import batched_loop
from hoi_assets.engines import model_cache
from hoi_assets.settings import LoraTraining, ModelRef, Sampling

GUIDANCE = 7.0
PROMPT = "a left hand holds a blue mug"
WARM_UP_TRAIN_STEPS = 2
WARM_UP_REFINE_STEPS = 5
SWITCHES = 2  # from one pipeline to the other and back, this often
GIB = 1 << 30


@dataclass(frozen=True)
class Figure:
    """One line of the measurement.

    Attributes:
        ours, plain: in `unit`; None where it could not be measured, which `note` explains.
        ratio: ours over plain.
        goal: in words.
        reached: whether the goal is met; None at a small size, or with nothing to compare.
        peak_gib, plain_peak_gib: most memory that tensors took on the GPU; None on a CPU.
    """

    name: str
    unit: str
    ours: float | None
    plain: float | None
    goal: str
    reached: bool | None
    peak_gib: float | None = None
    plain_peak_gib: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        return self.ours / self.plain if self.ours and self.plain else None

    def line(self) -> str:
        """The figure in one line."""
        parts = [f"{self.name}: {_number(self.ours)} {self.unit}, plain {_number(self.plain)}"]
        if self.ratio is not None:
            parts.append(f"ratio {self.ratio:.2f}")
        if self.peak_gib is not None:
            parts.append(f"peak {self.peak_gib:.1f} GiB, plain {_number(self.plain_peak_gib)} GiB")
        reached = {True: "reached", False: "MISSED", None: "not compared"}[self.reached]
        parts.append(f"goal {self.goal}: {reached}")
        return "; ".join([*parts, self.note] if self.note else parts)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


@dataclass(frozen=True)
class Bench:
    """Where and at what size is measured.

    Attributes:
        folder: holds `sdxl` and `sd3`, made by `models`.
        budget_gib: memory of the card that the eviction is measured for.
    """

    size: Size
    folder: Path
    device: str
    budget_gib: float

    def ref(self, name: str) -> ModelRef:
        return ModelRef(source=str(self.folder / name), dtype=self.size.dtype)


def sampling(bench: Bench) -> Figure:
    """SDXL: images a second in batches, decoded to Pillow images."""
    from hoi_assets.engines.sdxl.loading import load_sdxl
    from hoi_assets.engines.sdxl.sampling import generate_images, make_image_spec

    size = bench.size
    prompts = [f"{PROMPT}, view {number}" for number in range(size.images)]
    options = Sampling(
        scheduler="euler",
        num_inference_steps=size.steps,
        guidance_scale=GUIDANCE,
        width=size.side,
        height=size.side,
        batch_size=size.batch_size,
    )
    rows = [make_image_spec(options, text, n, n) for n, text in enumerate(prompts)]

    def ours(count: int) -> None:
        loaded = load_sdxl(bench.ref("sdxl"), bench.device)  # once, then the model cache's
        drawn = list(generate_images(loaded, rows[:count], size.batch_size))
        if not all(one.image for one in drawn):
            raise RuntimeError("SDXL drew NaN or infinity")

    own, own_peak = _rate(bench, ours, size.batch_size, size.images)
    free()
    pipe = plain.load_sdxl(bench.folder / "sdxl", bench.device, size.dtype)

    def theirs(count: int) -> None:
        seeds = range(count)
        batched_loop(
            *(pipe, prompts[:count], seeds, size.steps, GUIDANCE),
            *(size.side, size.side, size.batch_size),
        )

    other, other_peak = _rate(bench, theirs, size.batch_size, size.images)
    reached = own / other >= 1.3
    return Figure(
        *("sampling", "images/s", own, other, "at least 1.3 times plain", reached),
        *(own_peak, other_peak),
    )


def training(bench: Bench) -> Figure:
    """DreamBooth LoRA of SDXL: steps a second, batch size 1, rank 16."""
    from hoi_assets.engines.sdxl.loading import load_sdxl
    from hoi_assets.engines.sdxl.lora import train_dreambooth_lora

    size = bench.size
    pictures = [Image.effect_noise((size.side, size.side), 64 + n).convert("RGB") for n in range(4)]

    # One step more, whose beginning is the end of the last one that is timed.
    config = LoraTraining(
        rank=16,
        lora_alpha=16,
        max_train_steps=WARM_UP_TRAIN_STEPS + size.train_steps + 1,
        train_batch_size=1,
        gradient_checkpointing=True,
        learning_rate=1e-4,
        with_prior_preservation=False,
        snr_gamma=None,
        mixed_precision="no" if size.dtype == "float32" else "bf16",
        checkpointing_steps=1000,
    )
    began: list[float] = []
    with tempfile.TemporaryDirectory() as work, _peak(bench) as own_peak:
        loaded = load_sdxl(bench.ref("sdxl"), bench.device)
        hook = loaded.denoiser.register_forward_pre_hook(
            lambda *_: began.append(plain.settled(bench.device))
        )
        train_dreambooth_lora(
            loaded,
            [(picture, PROMPT) for picture in pictures],
            (),
            config,
            Path(work) / "w",
            Path(work) / "lora",
            _silent,
        )
        hook.remove()
    del loaded
    own = size.train_steps / (began[-1] - began[WARM_UP_TRAIN_STEPS])
    free()
    with _peak(bench) as other_peak:
        other = plain.train_dreambooth(
            *(bench.folder / "sdxl", bench.device, size.dtype, pictures, PROMPT, size.side),
            *(WARM_UP_TRAIN_STEPS, size.train_steps),
        )
    return Figure(
        *("training", "steps/s", own, other, "at least plain's", own >= other),
        *(own_peak[0], other_peak[0]),
    )


def refinement(bench: Bench) -> Figure:
    """SD3: an initial image and four switch steps, seconds a prompt; plain is the published way."""
    from hoi_assets.engines.sd3.loading import load_sd3

    size = bench.size
    loaded = load_sd3(bench.ref("sd3"), bench.device)
    prompts = [(f"{PROMPT}, view {n}", f"{PROMPT}, view {n}, red") for n in range(size.prompts)]
    found = {}
    for name, draw, asked in (
        ("ours", refine.draw_ours, prompts),
        ("plain", refine.draw_published, prompts[:1]),
    ):
        warm = WARM_UP_REFINE_STEPS
        partial(draw, steps=warm, side=size.side)(loaded, asked[:1])
        with _peak(bench) as peak:
            timed = partial(draw, steps=size.refine_steps, side=size.side)
            seconds, _ = refine.time_per_prompt(loaded, timed, asked)
        found[name] = (seconds, peak[0])
    (own, own_peak), (other, other_peak) = found["ours"], found["plain"]
    return Figure(
        *("refinement", "s/prompt", own, other, "at most 0.6 of plain", own / other <= 0.6),
        *(own_peak, other_peak),
    )


def eviction(bench: Bench) -> Figure:
    """Seconds from one pipeline to the other and its first image, within a card's memory.

    Plain diffusers loads each pipeline anew, dropping the other one.
    """
    from hoi_assets.engines.sd3.compute import initial_image_spec
    from hoi_assets.engines.sd3.loading import load_sd3
    from hoi_assets.engines.sd3.redenoising import generate_initial_images
    from hoi_assets.engines.sdxl.loading import load_sdxl
    from hoi_assets.engines.sdxl.sampling import generate_images, make_image_spec

    size, device = bench.size, bench.device
    options = Sampling(
        num_inference_steps=2, width=size.side, height=size.side, batch_size=1, scheduler="euler"
    )

    def sdxl() -> None:
        rows = [make_image_spec(options, PROMPT, 0, 0)]
        list(generate_images(load_sdxl(bench.ref("sdxl"), device), rows, 1))

    def sd3() -> None:
        rows = [initial_image_spec(PROMPT, 0, 0, 1, 2, 4.5, size.side, size.side)]
        list(generate_initial_images(load_sd3(bench.ref("sd3"), device), rows, 1))

    def plainly(load: Callable[..., Any], name: str) -> None:
        pipe = load(bench.folder / name, device, size.dtype)
        pipe(PROMPT, num_inference_steps=2, width=size.side, height=size.side)
        del pipe
        free()

    free()
    # As on a card of that size: half of the free memory may hold models.
    budget = int(model_cache.FREE_MEMORY_SHARE * bench.budget_gib * GIB)
    model_cache.configure(budget)
    try:
        with _capped(bench), _peak(bench) as own_peak:
            own = _seconds_each([sdxl, sd3] * SWITCHES)
        model_cache.clear()
        calls = [
            partial(plainly, plain.load_sdxl, "sdxl"),
            partial(plainly, plain.load_sd3, "sd3"),
        ]
        with _capped(bench), _peak(bench) as other_peak:
            other = _seconds_each(calls * SWITCHES)
    finally:
        model_cache.configure(None)
    # It got here without running out of memory, or the error is in the place of this figure.
    return Figure(
        *("eviction", "s/switch", own, other, f"no out-of-memory in {bench.budget_gib:g} GB"),
        *(True if device.startswith("cuda") else None, own_peak[0], other_peak[0]),
        note="" if device.startswith("cuda") else "a CPU's memory is not capped",
    )


MEASUREMENTS = {one.__name__: one for one in (sampling, training, refinement, eviction)}


def _seconds_each(calls: Sequence[Callable[[], None]]) -> float:
    start = time.perf_counter()
    for call in calls:
        call()
    return (time.perf_counter() - start) / len(calls)


def _rate(
    bench: Bench, draw: Callable[[int], None], warm_up: int, count: int
) -> tuple[float, float | None]:
    """Images a second after a first batch, and the most memory taken."""
    draw(warm_up)
    with _peak(bench) as peak:
        start = time.perf_counter()
        draw(count)
        seconds = time.perf_counter() - start
    return count / seconds, peak[0]


@contextmanager
def _peak(bench: Bench) -> Iterator[list[float | None]]:
    """One entry afterwards: the most GiB that tensors took on the GPU; None on a CPU."""
    found: list[float | None] = [None]
    if not bench.device.startswith("cuda"):
        yield found
        return
    import torch

    torch.cuda.reset_peak_memory_stats()
    yield found
    found[0] = torch.cuda.max_memory_allocated() / GIB


@contextmanager
def _capped(bench: Bench) -> Iterator[None]:
    """Let this process take no more of the GPU than the card that is measured for has."""
    if not bench.device.startswith("cuda"):
        yield
        return
    import torch

    whole = torch.cuda.get_device_properties(bench.device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, bench.budget_gib * GIB / whole))
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def free() -> None:
    """Drop all models, and give their memory back."""
    model_cache.clear()
    gc.collect()
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _silent(line: str) -> None:
    pass
