"""Re-denoising (DetailScribe, arXiv 2504.08714): the first steps of an image under its prompt, the
others under the corrected prompt.

The variants of a prompt share its seed, and so the steps before the switch step: the prefix. It is
computed once, in the initial run, and branched. A batch holds one switch step and many prompts;
its shape is fixed and a row keeps its slot, so that a variant has the same bits as a run of its own
that switches prompts halfway.

`s_reference` reproduces the published code: its callback runs after the step it is named for, so
the original prompt drives s + 1 steps, and the pooled embedding is not switched; its switch step 0
is a plain run under the corrected prompt.
"""

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from PIL import Image

from hoi_assets.engines.batch_sizes import TRIED_STEPS
from hoi_assets.engines.image_spec import ImageSpec, batches_by_slot, image_key
from hoi_assets.engines.long_prompts import grouped
from hoi_assets.engines.sd3.compute import (
    SWITCH_STEPS,
    ComputeCost,
    denoiser_evaluations,
    prefix_steps,
    start_step,
)
from hoi_assets.engines.sd3.denoising import check_spec, denoise
from hoi_assets.engines.sd3.loading import LoadedSD3
from hoi_assets.errors import HoiError
from hoi_assets.hashing import digest

REFINING_VERSION = "1"  # part of every variant's key: raise it when the pixels change


@dataclass(frozen=True)
class InitialImage:
    """A plain image, or the reason why there is none.

    Attributes:
        latents: by number of steps done, the latents (channels, height, width), on the CPU.
        batch_size: places of the batch that it was generated in.
    """

    row: ImageSpec
    image: Image.Image | None
    reason: str | None
    compute: ComputeCost
    latents: Mapping[int, Any]
    batch_size: int


@dataclass(frozen=True)
class Redenoising:
    """An image to generate again under a corrected prompt.

    Attributes:
        row: what the initial image was generated from.
        latents: those of `InitialImage`; a prefix that is missing is computed again.
    """

    row: ImageSpec
    corrected_prompt: str
    latents: Mapping[int, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class VariantImage:
    """The image of one switch step, or the reason why there is none.

    Attributes:
        compute: of the steps after the switch step; a prefix that had to be computed again counts
            with the first variant that needs it.
        batch_size: places of the batch that it was generated in.
    """

    redenoising: Redenoising
    switch_step: int
    image: Image.Image | None
    reason: str | None
    compute: ComputeCost
    batch_size: int


def variant_key(redenoising: Redenoising, switch_step: int, s_reference: bool, base: str) -> str:
    """Hash of all that determines a variant, except slot and environment.

    A variant that is a plain image has that image's key.

    Args:
        base: digest of the model, `LoadedSD3.digest`.
    """
    row = redenoising.row
    prompt, start = (
        _prompt(redenoising, switch_step, s_reference),
        start_step(row, switch_step, s_reference),
    )
    after = image_key(replace(row, prompt=prompt), base)
    if not start:
        return after
    return digest(
        {
            "refining": REFINING_VERSION,
            "before": image_key(row, base),
            "after": after,
            "switch_after_steps": start,
            "pooled_switched": not s_reference,
        }
    )


def generate_initial_images(
    loaded: LoadedSD3,
    rows: Iterable[ImageSpec],
    batch_size: int,
    switch_steps: Sequence[int] = (),
    s_reference: bool = False,
) -> Iterator[InitialImage]:
    """Generate the images of `rows`; each is yielded as soon as its batch is finished.

    Args:
        batch_size: number of slots; the bits depend on it.
        switch_steps: those whose latents are returned, for `generate_variants`.

    Raises:
        HoiError: before the first batch, for a row that this model cannot generate.
    """
    rows = list(rows)
    for row in rows:
        check_spec(loaded, row, batch_size)
    return _generate_initial_images(loaded, rows, batch_size, switch_steps, s_reference)


def try_batch(loaded: LoadedSD3, row: ImageSpec, size: int) -> None:
    """Draw a full batch of images like `row`, to see whether it fits (`settle_batch_size`)."""
    steps = min(row.steps, TRIED_STEPS)
    rows = [replace(row, slot=slot, steps=steps) for slot in range(size)]
    deque(generate_initial_images(loaded, rows, size), maxlen=0)


def generate_variants(
    loaded: LoadedSD3,
    redenoisings: Iterable[Redenoising],
    batch_size: int,
    switch_steps: Sequence[int] = SWITCH_STEPS,
    s_reference: bool = False,
) -> Iterator[VariantImage]:
    """Generate one variant per switch step; they come batch by batch, in slot order.

    Args:
        batch_size: that of the initial images.
        switch_steps: numbers of steps under the original prompt; 0 is a plain image under the
            corrected prompt, all steps (or more) is the initial image again.
        s_reference: reproduce the published code, see the module.

    Raises:
        HoiError: before the first batch, for a row that this model cannot generate.
    """
    redenoisings = list(redenoisings)
    for one in redenoisings:
        check_spec(loaded, one.row, batch_size)
    if any(step < 0 for step in switch_steps):
        raise HoiError(
            f"switch steps {list(switch_steps)}", "use numbers from 0 to the number of steps"
        )
    return _generate_variants(loaded, redenoisings, batch_size, switch_steps, s_reference)


def _prompt(redenoising: Redenoising, switch_step: int, s_reference: bool) -> str:
    """The prompt of the steps after the prefix."""
    left = redenoising.row.steps - prefix_steps(switch_step, s_reference)
    return redenoising.corrected_prompt if left > 0 else redenoising.row.prompt


def _generate_initial_images(
    loaded: LoadedSD3,
    rows: list[ImageSpec],
    batch_size: int,
    switch_steps: Sequence[int],
    s_reference: bool,
) -> Iterator[InitialImage]:
    alike = grouped(rows, lambda row: loaded.chunks(row.prompt, row.negative_prompt))
    for batch in chain.from_iterable(batches_by_slot(some, batch_size) for some in alike):
        call = next(iter(batch.values()))
        starts = {start_step(call, step, s_reference) for step in switch_steps}
        begin = time.perf_counter()
        prompts = {slot: row.prompt for slot, row in batch.items()}
        run = denoise(loaded, batch, prompts, batch_size, latents_after=starts)
        seconds = (time.perf_counter() - begin) / len(batch)
        for slot, row in batch.items():
            yield InitialImage(
                row,
                run.images[slot],
                _reason(run.images[slot]),
                ComputeCost(denoiser_evaluations(row), seconds),
                {done: latents[slot].clone() for done, latents in run.latents.items()},
                run.batch_size,
            )


def _generate_variants(
    loaded: LoadedSD3,
    redenoisings: list[Redenoising],
    batch_size: int,
    switch_steps: Sequence[int],
    s_reference: bool,
) -> Iterator[VariantImage]:
    alike = grouped(redenoisings, lambda one: _chunks(one, loaded.chunks))
    for batch in chain.from_iterable(_batches(some, batch_size) for some in alike):
        rows = {slot: one.row for slot, one in batch.items()}
        call = next(iter(rows.values()))
        starts = {step: start_step(call, step, s_reference) for step in switch_steps}
        latents, again = _prefixes(loaded, batch, batch_size, set(starts.values()) - {0})
        for step, start in starts.items():
            begin = time.perf_counter()
            original_prompts = {slot: row.prompt for slot, row in rows.items()}
            run = denoise(
                loaded,
                rows,
                {slot: _prompt(one, step, s_reference) for slot, one in batch.items()},
                batch_size,
                pooled=original_prompts if s_reference and start else None,
                start=start,
                latents={slot: latents[slot][start] for slot in rows} if start else None,
            )
            seconds = (time.perf_counter() - begin) / len(batch)
            for slot, one in batch.items():
                cost = ComputeCost(denoiser_evaluations(one.row, start), seconds)
                if start:
                    cost += again.pop(slot, ComputeCost())
                image = run.images[slot]
                yield VariantImage(one, step, image, _reason(image), cost, run.batch_size)


def batches_of_redenoisings(
    redenoisings: Sequence[Redenoising], batch_size: int, chunks: Callable[..., int]
) -> Iterator[list[Redenoising]]:
    """Batch by batch; see `batches_of_rows`.

    Args:
        redenoisings: with their slots in batches of that size.
    """
    for alike in grouped(redenoisings, lambda one: _chunks(one, chunks)):
        for batch in _batches(alike, batch_size):
            yield list(batch.values())


def _chunks(one: Redenoising, chunks: Callable[..., int]) -> tuple[int, int]:
    """Of the prompt and of the corrected prompt."""
    texts = (one.row.prompt, one.corrected_prompt)
    before, after = (chunks(text, one.row.negative_prompt) for text in texts)
    return before, after


def _batches(redenoisings: list[Redenoising], batch_size: int) -> Iterator[dict[int, Redenoising]]:
    """Batches, as `batches_by_slot` arranges their rows."""
    waiting: dict[ImageSpec, deque[Redenoising]] = defaultdict(deque)
    for one in redenoisings:
        waiting[one.row].append(one)
    for batch in batches_by_slot([one.row for one in redenoisings], batch_size):
        yield {slot: waiting[row].popleft() for slot, row in batch.items()}


def _prefixes(
    loaded: LoadedSD3, batch: dict[int, Redenoising], batch_size: int, starts: set[int]
) -> tuple[dict[int, dict[int, Any]], dict[int, ComputeCost]]:
    """Per slot the latents at `starts`, and the cost of those that had to be computed again."""
    latents = {slot: dict(one.latents) for slot, one in batch.items()}
    rows = {slot: one.row for slot, one in batch.items() if starts - one.latents.keys()}
    if not rows:
        return latents, {}
    begin = time.perf_counter()
    prompts = {slot: row.prompt for slot, row in rows.items()}
    last = max(starts)
    run = denoise(loaded, rows, prompts, batch_size, latents_after=starts, stop=last)
    seconds = (time.perf_counter() - begin) / len(rows)
    for slot in rows:
        latents[slot] |= {done: whole[slot] for done, whole in run.latents.items()}
    return latents, {
        slot: ComputeCost(denoiser_evaluations(row) - denoiser_evaluations(row, last), seconds)
        for slot, row in rows.items()
    }


def _reason(image: Image.Image | None) -> str | None:
    return None if image else "not_finite: the model gave NaN or infinity"
